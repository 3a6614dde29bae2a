"""How tools fail: one line for the user, a trace for faults of ours."""

import os
import signal
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Literal

import pytest
import torch

import mmmoco
from mmmoco.apis import cli
from mmmoco.apis.training import runner as runtime
from mmmoco.datasets.bad_files import UnreadableDataError
from mmmoco.engine.checkpoint_io import CheckpointError
from mmmoco.engine.collapse import CollapseError
from mmmoco.engine.endings import note_training
from mmmoco.engine.hooks.bad_files_hook import TooManyBadFilesError
from mmmoco.engine.hooks.non_finite_hook import NonFiniteError

ROOT = Path(__file__).parents[2]


def end_of(error, training=False):
    """What a tool that raises it prints and ends with."""

    def tool():
        if training:
            note_training(error, 7)
        raise error

    with pytest.raises((SystemExit, type(error))) as caught:
        cli.run(tool, 'tool.py', debug=False)
    error.__notes__ = []
    return getattr(caught.value, 'code', 'raised')


OURS = [RuntimeError('x'), TypeError('unhashable'), AttributeError('x')]
YOURS = [
    OSError(2, 'No such file', 'a.jpg'),
    KeyError('no such type'),
    ValueError('lr=-1'),
    ImportError('no faiss'),
    TypeError('MoCo.__init__() got an unexpected keyword'),
    UnicodeDecodeError('utf-8', b'caf\xe9', 3, 4, 'unexpected end of data'),
]
ENDS = [
    kind('said whole')
    for kind in (
        CheckpointError,
        CollapseError,
        NonFiniteError,
        TooManyBadFilesError,
        UnreadableDataError,
    )
]
SHORTAGES = [
    MemoryError('8 GB'),
    torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB'),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"),
    OSError(12, 'Cannot allocate memory'),
    RuntimeError(
        'unable to write to file </torch_1_2>: No space left on device (28)'
    ),
    RuntimeError(
        'DataLoader worker (pid 7) is killed by signal: Bus error. It is '
        "possible that dataloader's workers are out of shared memory."
    ),
]


@pytest.mark.parametrize('error', [*YOURS, *ENDS, *SHORTAGES], ids=repr)
def test_what_a_user_can_mend_is_one_line(error, capsys):
    assert end_of(error) == 2
    line, hint = capsys.readouterr().err.splitlines()
    assert line.startswith('tool.py: error: ') and '--debug' in hint


@pytest.mark.parametrize('error', [*OURS, *YOURS], ids=repr)
def test_in_a_training_any_other_error_is_ours(error, capsys):
    """Its trace is in the log, as an error, and it ends the process."""
    assert end_of(error, training=True) == 'raised'
    text = capsys.readouterr()
    assert 'ERROR' in text.out + text.err and 'Traceback' in text.out
    assert ': error: ' not in text.err
    if error in OURS:
        assert end_of(error) == 'raised'


@pytest.mark.parametrize('error', [*ENDS, *SHORTAGES], ids=repr)
def test_what_is_expected_stays_one_line_in_a_training(error, capsys):
    assert end_of(error, training=True) == 2
    assert 'Traceback' not in capsys.readouterr().err


def test_a_missing_key_says_who_asked_for_it(capsys):
    """As a transform does whose data set does not give what it takes."""
    with pytest.raises(SystemExit):
        cli.run(lambda: {}['sample_idx'], 'tool.py', debug=False)
    line = capsys.readouterr().err.splitlines()[0]
    assert "there is no 'sample_idx' for " in line
    assert f'({__file__}:' in line


def test_texts_are_whole(capsys):
    for error, words in (
        (YOURS[5], "codec can't decode byte 0xe9 in position 3"),
        (YOURS[1], 'error: no such type'),
        (YOURS[0], "'a.jpg'"),
        (SHORTAGES[4], '/dev/shm is full ('),
        (SHORTAGES[5], 'train_dataloader.num_workers=0'),
        (SHORTAGES[2], 'mmmoco memory'),
    ):
        end_of(error)
        assert words in capsys.readouterr().err


def test_a_queue_that_finds_no_room_names_its_place(capsys, monkeypatch):
    """The error itself names no file; another disk may be meant."""
    for free, words in ((0, '/dev/shm is full'), (1 << 30, 'Errno 28')):
        monkeypatch.setattr(
            cli.shutil,
            'disk_usage',
            lambda _: SimpleNamespace(free=free, total=1 << 30),
        )
        end_of(OSError(28, 'No space left on device'))
        assert words in capsys.readouterr().err


def test_sigterm_is_one_line(capsys):
    """Also where what it ends, such as a data worker, is complained of."""

    def tool():
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            raise RuntimeError('a worker exited')  # noqa: B904

    with pytest.raises(SystemExit) as stop:
        cli.run(tool, 'mmmoco plan', debug=False)
    assert stop.value.code == 143
    assert capsys.readouterr().err == 'mmmoco plan: ended by SIGTERM\n'
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_ctrl_c_is_one_line(capsys):
    # What a shell starts in the background ignores the signal.
    own = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as stop:
            cli.run(
                lambda: os.kill(os.getpid(), signal.SIGINT), 'tool.py', False
            )
    finally:
        signal.signal(signal.SIGINT, own)
    assert stop.value.code == 130
    assert capsys.readouterr().err == 'tool.py: interrupted\n'


@pytest.mark.parametrize(('processes', 'gpus'), [(2, 1), (8, 4), (1, 0)])
def test_more_processes_than_gpus_are_one_line(monkeypatch, processes, gpus):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: gpus)
    monkeypatch.setenv('LOCAL_WORLD_SIZE', str(processes))
    with pytest.raises(ValueError, match=f'{processes} .* shows {gpus} GPU'):
        runtime.init_processes(runtime.ConfigDict(), 'pytorch')


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (
            {'model.neck.in_channels': 16},
            'model.neck.in_channels=16, but model.backbone (PlainConvNet) '
            'gives 8: leave it out',
        ),
        (
            {'model.loss.temperature': 'a'},
            "'float' and 'str'; in {'type': 'InfoNCE', 'temperature': 'a'};",
        ),
        (
            {'model.backbone.type': 'mmpretrain.ResNet', 'model.neck': {}},
            'Known: depth, ',
        ),
        (
            {'model.queue_len': 5},
            "'queue_len'. Known: loss, dictionary, symmetric, ",
        ),
        ({'model.dictionary.length': 5}, "'length'. Known: size, "),
        (
            {'train_dataloader.dataset.seeds': 5},
            "'seeds'. Known: ",
        ),
    ],
)
def test_a_config_that_makes_no_run_says_where(
    options, words, small_config, capsys
):
    """Also where torch or python itself raises, who know of no config."""

    def tool():
        runtime.build_runner(small_config(**options)).train()

    with pytest.raises(SystemExit) as stop:
        cli.run(tool, 'tool.py', debug=False)
    line, _ = capsys.readouterr().err.splitlines()[-2:]
    assert stop.value.code == 2 and words in line


@pytest.mark.parametrize(
    'backbone',
    [
        dict(type='torch.nn.BatchNorm1d', num_features=3),  # a ValueError
        dict(
            type='torch.nn.Conv2d',
            in_channels=1,
            out_channels=3,
            kernel_size=99,
        ),
    ],
    ids=['value', 'runtime'],
)
def test_the_errors_of_others_get_their_place(backbone, small_config, capsys):
    cfg = small_config(**{'model.neck.in_channels': 3})
    cfg.model.backbone = backbone

    def tool():
        runtime.build_runner(cfg).train()

    with pytest.raises(SystemExit):
        cli.run(tool, 'tool.py', debug=False)
    assert 'in model.backbone, a ' in capsys.readouterr().err.splitlines()[-2]


def test_an_option_without_value_is_named(capsys):
    parser = ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=cli.CfgOptions)
    good = parser.parse_args(['--cfg-options', 'a.b=1', 'c=x=y'])
    assert good.cfg_options == {'a.b': 1, 'c': 'x=y'}
    with pytest.raises(SystemExit):
        parser.parse_args(['--cfg-options', 'a=1', 'nonsense'])
    assert "'nonsense' is not KEY=VALUE" in capsys.readouterr().err


def paint(
    source: str,
    out: 'str | None' = None,
    *,
    to: "Literal['jpg', 'png']",
    k: 'Sequence[int]' = (20, 200),
    bands: 'tuple[int, int, int]' = (0, 1, 2),
    keep: 'str | bool' = False,
    rate: 'float | None' = None,
    shuffle: 'bool' = True,
    wet: 'bool' = False,
    tau: "Annotated[Sequence[float], {'nargs': '*', 'metavar': 'T'}]" = (),
    cfg_options: 'cli.Settings | None' = None,
    launcher: 'cli.Launcher' = 'none',
) -> 'Unknown':  # noqa: F821
    """Paint a picture, to 100 %.

    It takes a while.

    Args:
        source: File to read. A long text goes
            on in the next line.
        out: File to write.
        to: Its format.
        k: Sizes.
        bands: Which bands are red, green and blue.
        keep: Keep the sketch, or ``FILE``.
        rate: Of the strokes.
        shuffle: Any order.
        wet: Do not wait.
        tau: Times.
        cfg_options: Settings.
        launcher: Of the painters.

    Returns:
        Nothing that matters.

    Example:
        paint.py a.png b.png --to png
        --k 3
    """
    given = dict(locals())
    return SimpleNamespace(**given, problem=None)


def parsed(*argv):
    return vars(cli.parser_of(paint, 'paint.py').parse_args(argv))


def test_a_command_line_is_that_of_the_function():
    given = parsed('a', '--to', 'png')
    assert given == {
        'source': 'a',
        'out': None,
        'to': 'png',
        'k': (20, 200),
        'bands': (0, 1, 2),
        'keep': False,
        'rate': None,
        'shuffle': True,
        'wet': False,
        'tau': (),
        'cfg_options': None,
        'launcher': 'none',
        'local_rank': 0,
        'debug': False,
    }
    words = (
        'a b --to jpg --k 3 4 --bands 3 2 1 --keep --rate 1.5 --no-shuffle '
        '--wet --tau --cfg-options x.y=1 z=(1,2) --launcher slurm '
        '--local-rank 2 --debug'
    )
    given = parsed(*words.split())
    assert given['out'] == 'b' and given['k'] == [3, 4]
    assert given['bands'] == [3, 2, 1] and given['keep'] is True
    assert given['rate'] == 1.5 and given['tau'] == [] and given['debug']
    assert not given['shuffle'] and given['wet']
    assert given['cfg_options'] == {'x.y': 1, 'z': (1, 2)}
    assert parsed('a', '--to', 'png', '--keep', 'f')['keep'] == 'f'


@pytest.mark.parametrize(
    ('argv', 'words'),
    [
        (['a'], '--to'),
        (['a', '--to', 'gif'], "'gif' (choose from"),
        (['a', '--to', 'png', '--k', '3', 'x'], "--k: invalid int value: 'x'"),
        (['a', '--to', 'png', '--k'], '--k: expected at least one argument'),
        (['a', '--to', 'png', '--bands', '1', '2'], '--bands: expected 3'),
        (['a', '--to', 'png', '--kk', '3'], 'unrecognized arguments: --kk 3'),
        ([], 'required: source'),
    ],
)
def test_a_wrong_command_line_is_one_line(argv, words, capsys):
    with pytest.raises(SystemExit) as stop:
        parsed(*argv)
    line = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 2
    assert line.startswith('paint.py: error: ') and words in line


def test_help_comes_from_the_docstring():
    text = ' '.join(cli.parser_of(paint, 'paint.py').format_help().split())
    for words in (
        'Paint a picture, to 100 %. It takes a while.',
        'source File to read. A long text goes on in the next line ',
        '--to {jpg,png} Its format ',
        '--k N [N ...] Sizes (20 200)',
        '--keep [KEEP] Keep the sketch, or FILE',
        '--no-shuffle Any order',
        '--tau [T ...] Times --cfg',
        'Example: paint.py a.png b.png --to png --k 3',
    ):
        assert words in text
    assert 'local_rank' not in text and 'matters' not in text


def test_a_result_is_printed_and_its_problem_ends_the_tool(capsys):
    class Result:
        problem = None

        def __str__(self):
            return 'three pictures'

    def job(count: int):
        """Say it."""
        result = Result()
        result.problem = 'there are too many' if count > 3 else None
        return result

    cli.main(job, ['3'], 'job.py')
    assert capsys.readouterr().out == 'three pictures\n'
    with pytest.raises(SystemExit) as stop:
        cli.main(job, ['4'], 'job.py')
    said = capsys.readouterr()
    assert stop.value.code == 2 and said.out == 'three pictures\n'
    assert said.err.startswith('job.py: error: there are too many\n')
    # Plain figures were logged already.
    cli.main(lambda: {'acc': 1.0}, [], 'job.py')
    assert capsys.readouterr().out == ''


@pytest.mark.parametrize(
    ('job', 'argv', 'expected'),
    [
        (mmmoco.report, ['a', 'b'], {'work_dirs': ['a', 'b']}),
        (
            mmmoco.import_checkpoint,
            ['a', 'b.pth', '--drop', 'x', 'y', '--from', 'moco'],
            {'drop': ['x', 'y'], 'from_': 'moco'},
        ),
        (
            mmmoco.similarity,
            ['--layers', '0', '3', '--config', 'a'],
            {'layers': [0, 3], 'checkpoint': None, 'config': 'a'},
        ),
    ],
)
def test_several_values_arrive_as_a_list(job, argv, expected):
    """What a type names must be there when the tool runs, too."""
    given, _ = cli.arguments(job, argv)
    assert expected.items() <= given.items()


def test_options_of_another_job_go_there(capsys):
    @cli.with_options_of(paint)
    def transfer(checkpoint: str, *, check: bool = False, **training: object):
        """Fine-tune.

        Args:
            checkpoint: File.
        """
        raise ValueError(f'{checkpoint} {check} {training}')

    with pytest.raises(SystemExit):
        cli.main(
            transfer,
            ['random', '--to', 'png', '--k', '7'],
            't.py',
        )
    line = capsys.readouterr().err.splitlines()[0]
    assert "random False {'to': 'png', 'k': [7], 'bands'" in line


@pytest.mark.parametrize(
    'tool', sorted(path.name for path in (ROOT / 'tools').glob('*.py'))
)
def test_help_imports_nothing_heavy(tool):
    """Not time, which depends on the machine, but what takes it."""
    code = (
        'import runpy, sys, time\n'
        f'sys.argv = [{tool!r}, "--help"]\n'
        'try:\n'
        f'    runpy.run_path({str(ROOT / "tools" / tool)!r}, '
        'run_name="__main__")\n'
        'except SystemExit as stop:\n'
        '    assert not stop.code\n'
        'heavy = "torch numpy mmengine mmcv mmpretrain cv2 PIL".split()\n'
        'print("found", [m for m in heavy if m in sys.modules])\n'
        'print(f"{time.process_time():.2f} s of CPU")\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True,
        text=True,
        check=False,
    )
    sys.stdout.write(f'{tool}: {done.stdout.splitlines()[-1:]}\n')
    assert done.returncode == 0, done.stderr
    assert 'found []' in done.stdout and 'usage: ' in done.stdout


def test_a_process_of_a_group_ends_at_once_after_its_job(monkeypatch):
    """Slurm's and MPI's number is in the environment during a job only."""
    monkeypatch.delenv('RANK', raising=False)

    def leave(code):
        raise SystemExit(100 + code)

    monkeypatch.setattr(os, '_exit', leave)

    def bad() -> None:
        """Fail."""
        raise ValueError('bad')

    store = torch.distributed.HashStore()
    torch.distributed.init_process_group(
        'gloo', store=store, rank=0, world_size=1
    )
    try:
        with pytest.raises(SystemExit) as stop:
            cli.main(bad, [])
    finally:
        torch.distributed.destroy_process_group()
    assert stop.value.code == 102
