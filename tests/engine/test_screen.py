"""What a run shows, and what stands in its log file only."""

import io
import json
import logging
import os
import pty
import sys
import warnings
from pathlib import Path

import pytest
import torch
from mmengine.logging import MMLogger, print_log
from PIL import Image

import mmmoco
from mmmoco import progress
from mmmoco.apis.process import tidy
from mmmoco.apis.training.jobs import Training, train
from mmmoco.engine.queue_rise import QueueRise
from mmmoco.engine.screen import Screen, early_notes, hand_on, noise_kept_off
from mmmoco.evaluation.linear_probe import ProbeSettings, train_heads
from mmmoco.evaluation.svm import svm_map

#: How mmengine ends what stands before the text of a line.
INFO = ' - INFO - '


@pytest.fixture
def shown(small_config, tmp_path, capfd):
    """Return a function that trains and returns the run and its screen."""

    def make(**options):
        cfg = small_config(**options)
        result = train(cfg, work_dir=str(tmp_path / 'run'), seed=0)
        return result, capfd.readouterr()

    return make


@pytest.mark.slow
def test_little_is_said_before_the_first_iteration(shown):
    result, said = shown(**{'train_cfg.max_epochs': 1})
    lines = said.out.splitlines()
    first = next(i for i, x in enumerate(lines) if 'Epoch(train)' in x)
    begin = [x.partition(INFO)[2] for x in lines[:first] if INFO in x]
    kinds = [x.partition(' ')[0].rstrip(':') for x in begin]
    assert kinds[:6] == [
        *('Images', 'Model', 'Run', 'Hardware', 'Watched', 'Loss'),
    ]
    assert kinds[6:9] == ['Effective', 'Learning', 'Log,']
    assert first <= 12 and 'deprecat' not in said.out + said.err
    (log,) = Path(result.work_dir).glob('*/*.log')
    assert str(log) in said.out
    text = log.read_text()
    assert all(text.count(line) == 1 for line in begin[:9])
    for kept in ('System environment', 'Config:', 'Initialization inform'):
        assert text.count(kept) == 1, kept
    assert 'data workers' in text  # Said before the log was there.
    (scalars,) = Path(result.work_dir).glob('*/vis_data/scalars.json')
    chance = json.loads(scalars.read_text().splitlines()[0])['chance']
    assert f'chance is {chance:.2f}' in said.out


def test_a_result_names_checkpoint_and_next_step():
    saved = Training('w', 'w/a.pth', 1200, {}, 'mmmoco knn w/a.pth')
    assert str(saved).splitlines() == [
        'Trained for 1,200 iterations: w/a.pth',
        'Next: mmmoco knn w/a.pth',
    ]
    assert 'no checkpoint in w' in str(Training('w', None, 0, {}))


def test_a_model_is_built_without_a_word(capfd):
    mmmoco.get_model('demo/mocov2_digits')
    assert len(capfd.readouterr().out.splitlines()) < 3


@pytest.fixture
def logger(tmp_path):
    """Return a logger of mmengine with a screen in memory and a file."""
    made = MMLogger(tmp_path.name, log_file=str(tmp_path / 'log'))
    made.handlers[0].setStream(io.StringIO())
    return made


def on(logger):
    return logger.handlers[0].stream.getvalue()


def test_warnings_are_shown_and_the_rest_waits(logger, tmp_path):
    screen = Screen.of(logger)
    logger.info('noise')
    logger.info('about', extra={'about_the_run': True})
    logger.warning('look')
    assert 'look' in on(logger) and 'about' not in on(logger)
    screen.start(logger, ['first'], ['last'])
    logger.info('later')
    places = [on(logger).index(x) for x in ('first', 'about', 'last', 'later')]
    assert places == sorted(places) and 'noise' not in on(logger)
    text = (tmp_path / 'log').read_text()
    assert all(text.count(x) == 1 for x in ('noise', 'about', 'first'))


def test_a_screen_for_debugging_has_all(tmp_path):
    logger = MMLogger('debugging', log_level='DEBUG')
    logger.handlers[0].setStream(io.StringIO())
    Screen.of(logger)
    logger.info('all of it')
    assert 'all of it' in on(logger)


def test_what_libraries_say_of_their_names_goes_by_origin(logger):
    """The same words from elsewhere are shown."""
    Screen.of(logger)
    theirs = {'__name__': 'mmengine.fileio.x', 'log': logger, 'p': print_log}
    exec("p('x will be deprecated', log, 30)", theirs)
    assert not on(logger)
    print_log('y will be deprecated', logger, logging.WARNING)
    exec("def called(): p('z is wrong', log, 30)", theirs)
    theirs['called']()
    assert 'y will' in on(logger) and 'z is wrong' in on(logger)
    # What they lack is said at their import.
    exec("p('w is not compiled', log, 30)", theirs)
    assert 'not compiled' not in on(logger)
    exec("p('v is wrong', log, 30)", theirs | {'__name__': 'mine'})
    assert 'v is wrong' in on(logger)


@pytest.mark.parametrize(
    ('module', 'kind', 'heard'),
    [
        ('mmcv.cnn', DeprecationWarning, False),
        ('torch.nn', FutureWarning, False),
        ('torch.utils.data.dataloader', UserWarning, False),
        ('mmpretrain.models', UserWarning, True),
        ('torchlike', DeprecationWarning, True),
        ('mine', FutureWarning, True),
    ],
)
def test_pythons_warnings_are_silenced_by_module(
    module, kind, heard, monkeypatch
):
    monkeypatch.setattr(sys, 'warnoptions', [])

    @tidy
    def job():
        warnings.warn_explicit('old', kind, 'f.py', 1, module=module)

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter('always')
        job()
        told = [str(warning.message) for warning in seen]
        assert told.count('old') == heard  # Others may be of the collector.
        warnings.warn_explicit('old', kind, 'f.py', 2, module=module)
    told = [str(warning.message) for warning in seen]
    assert told.count('old') == heard + 1  # The filters went with the job.


def test_early_notes_reach_the_file(logger, tmp_path, monkeypatch):
    early = MMLogger('early')
    early.handlers[0].setStream(io.StringIO())
    monkeypatch.setattr(MMLogger, 'get_current_instance', lambda: early)
    with noise_kept_off():
        early.info('said by the job')
        with early_notes():
            early.info('quiet')
            early.warning('loud')
        monkeypatch.setattr(MMLogger, 'get_current_instance', lambda: logger)
        hand_on()
    early.info('after')
    assert 'loud' in on(early) and 'after' in on(early)
    assert 'quiet' not in on(early)
    text = (tmp_path / 'log').read_text()
    for each in ('said by the job', 'quiet', 'loud'):
        assert text.count(each) == 1
    assert 'said by the job' in on(early) and not on(logger)


# ------------------------------------------------------------- progress


@pytest.fixture
def clock(monkeypatch):
    """Let the time be what the test says."""

    class Clock:
        now = 0.0

    monkeypatch.setattr(progress.time, 'monotonic', lambda: Clock.now)
    return Clock


def test_lines_with_the_time_left(clock, capfd):
    for _ in progress.track(range(100), 'Reading'):
        clock.now += 1
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == 'Reading: 6 of 100 (6 %), 0:01:34 left'
    assert 3 < len(lines) < 7


@pytest.mark.parametrize('total', [1, 7, 100, 40_000])
@pytest.mark.parametrize('seconds', [0.01, 1, 90])
def test_the_lines_are_few_however_long_it_takes(total, seconds, clock, capfd):
    """A slow start, and what is done within, bring no further lines."""
    clock.now += 100
    for i in progress.track(range(total), 'outer'):
        clock.now += seconds
        if i % 1000 == 0:
            for _ in progress.track(range(50), 'inner'):
                clock.now += 10
    lines = capfd.readouterr().err.splitlines()
    assert 1 <= len(lines) <= 7
    assert all(line.startswith('outer') for line in lines)
    assert ', inner: 1 of 50' in lines[0]


@pytest.mark.parametrize('steps', [0, 4])
def test_nothing_is_said_of_what_ends_soon(steps, clock, capfd):
    for _ in progress.track(iter(range(steps)), 'Reading'):
        clock.now += 1
    assert not capfd.readouterr().err


@pytest.fixture
def photos(tmp_path):
    """Return a folder with two class folders of four images each."""
    for name in 'ab':
        (tmp_path / name).mkdir()
        for i in range(4):
            image = Image.effect_noise((8, 8), 50 + i)
            image.save(tmp_path / name / f'{i}.png')
    return tmp_path


def labelled_features(count):
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(0))
    return x, torch.arange(count) % 2


LONG = {
    'Reading images': lambda p: mmmoco.dataset_stats(str(p)),
    'Writing shards': lambda p: mmmoco.make_shards(
        str(p), str(p / 'out'), samples_per_shard=2
    ),
    'Drawing train': lambda p: mmmoco.make_digit_scenes(
        str(p / 'out'), num_train=2, num_val=1
    ),
    'SVM of classes': lambda p: svm_map(
        labelled_features(16), labelled_features(8), shots=(2,), draws=2
    ),
    'SVM of 2 shots': lambda p: svm_map(
        labelled_features(16), labelled_features(8), shots=(2,), draws=2
    ),
    'Epochs of the probe': lambda p: train_heads(
        *labelled_features(16), 2, [(0.1, 0.0)], ProbeSettings(epochs=2), 'cpu'
    ),
}


@pytest.mark.parametrize('what', LONG)
def test_what_may_take_long_says_how_far_it_is(
    what, photos, capfd, monkeypatch
):
    monkeypatch.setattr(progress, 'PATIENCE', -1.0)
    LONG[what](photos)
    assert f'{what}: 1 of ' in capfd.readouterr().err


def test_one_process_speaks(clock, capfd, monkeypatch):
    monkeypatch.setenv('RANK', '1')
    for _ in progress.track(range(100), 'Reading'):
        clock.now += 1
    assert not capfd.readouterr().err


def test_a_terminal_has_one_line_for_all(monkeypatch):
    """Also where one thing is done within another."""
    reader, writer = pty.openpty()
    monkeypatch.setattr(progress, 'PATIENCE', -1.0)
    monkeypatch.setattr(progress, 'BLINK', -1.0)
    with os.fdopen(writer, 'w') as terminal:
        monkeypatch.setattr(sys, 'stderr', terminal)
        for _ in progress.track(range(2), 'outer'):
            for _ in progress.track(range(2), 'inner'):
                pass
        assert progress.Progress._live is None
    shown = os.read(reader, 1 << 16).decode()
    os.close(reader)
    assert 'outer' in shown and 'inner' in shown


# ------------------------------------------------------------- the loss


def notes(losses, full):
    watch = QueueRise(full)
    said = [
        watch.see(i, torch.tensor(float(x))) for i, x in enumerate(losses, 1)
    ]
    return {i: x for i, x in enumerate(said, 1) if x}


def test_a_rise_is_told_once_while_the_queue_fills():
    said = notes([2 + i / 100 for i in range(300)], full=160)
    assert list(said) == [40] and 'until iteration 160' in said[40]


@pytest.mark.parametrize(
    ('losses', 'full'),
    [
        ([9 - i / 100 for i in range(300)], 160),  # It falls.
        ([2.0] * 200 + [4.0] * 100, 160),  # Not by the queue.
        ([float(i) for i in range(9)], 4),  # Too soon full.
        ([float('nan')] * 300, 160),
    ],
)
def test_no_rise_no_note(losses, full):
    assert not notes(losses, full)


@pytest.mark.parametrize(
    ('options', 'chance'),
    [
        ({}, 'log(K+1)'),
        ({'model.symmetric': True}, '2 log(K+1)'),
    ],
)
def test_chance_is_the_loss_of_equal_similarities(options, chance):
    cfg = mmmoco.load_config('demo/mocov2_digits', options)
    model = mmmoco.get_model(cfg)
    size = cfg.model.dictionary.size
    expected = torch.tensor(size + 1.0).log() * (2 if options else 1)
    assert model.chance(16) == pytest.approx(expected.item(), rel=1e-6)
