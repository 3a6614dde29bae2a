"""Every tool answers bad input with one line and exit code 2."""

import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
TOOLS = sorted(p.name for p in (ROOT / 'tools').glob('*.py'))
DEMO, R50 = 'demo/mocov2_digits', 'mocov2_r50_8xb32'


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """Files to name on a command line: some good, some bad."""
    import mmmoco

    folder = tmp_path_factory.mktemp('files')
    model = mmmoco.get_model(DEMO)
    torch.save({'state_dict': model.state_dict()}, folder / 'good.pth')
    whole = (folder / 'good.pth').read_bytes()
    (folder / 'cut.pth').write_bytes(whole[: len(whole) // 2])
    (folder / 'text.pth').write_text('hello')
    (folder / 'broken.py').write_text('model = dict(\n')
    (folder / 'empty').mkdir()
    (folder / 'images' / 'dogs').mkdir(parents=True)
    picture = folder / 'images' / 'dogs' / 'a.png'
    Image.new('RGB', (8, 8)).save(picture)
    return folder


def call(tool, argv, tmp_path, monkeypatch):
    """Run a tool as a program; return its exit code."""
    monkeypatch.setattr(sys, 'argv', [tool, *argv])
    monkeypatch.chdir(tmp_path)
    try:
        runpy.run_path(str(ROOT / 'tools' / tool), run_name='__main__')
    except SystemExit as stop:
        return stop.code or 0
    return 0


def cases():
    """Tool, what is wrong, command line, and what the answer names."""
    config = {
        # Tool: what else it needs, with {good} for a checkpoint.
        'browse_views.py': [],
        'davis_seg.py': ['{good}', '{empty}'],
        'estimate_memory.py': [],
        'extract_features.py': ['{good}', '--out', 'x.npz'],
        'knn.py': ['{good}'],
        'linear_probe.py': ['{good}'],
        'similarity.py': ['{good}'],
        'svm.py': ['{good}'],
        'test.py': ['{good}'],
        'train.py': [],
        'verify_config.py': [],
        'visualize_similarity.py': ['{good}'],
        'zero_shot_seg.py': ['{good}'],
        'evaluate_checkpoints.py': ['--checkpoint-dir', '{empty}'],
    }
    for tool, rest in config.items():
        yield tool, ['nowhere.py', *rest], 'nowhere.py'
        yield tool, ['mmdett::x.py', *rest], 'mmdett'
        yield tool, ['{broken}', *rest], 'broken.py'
        wrong = ['--cfg-options', 'modle.m=0.9']
        yield tool, [DEMO, *rest, *wrong], 'modle'
        if '{good}' in rest and tool != 'davis_seg.py':
            for name in ('missing', 'cut', 'text'):
                bad = [a.replace('{good}', f'{{{name}}}') for a in rest]
                yield tool, [DEMO, *bad], f'{name}.pth'
    yield 'train.py', [DEMO, '--max-iters', '0'], '--max-iters 0'
    yield 'train.py', [DEMO, '--max-iters', 'x'], '--max-iters'
    yield 'train.py', [DEMO, '--launcher', 'slurm'], 'slurm'
    yield 'train.py', [DEMO, '--resume', '{cut}'], 'cut.pth'
    yield 'train.py', [DEMO, '--resume', '{good}'], 'lacks'
    for option, words in (
        ('model.m=0.001', '0.999'),
        ('model.no_such=1', 'no_such'),
        ('model.type=NoSuch', 'NoSuch'),
        ('optim_wrapper.dtype=float8', 'float8'),
        ('optim_wrapper.optimizer.type=NoSuch', 'NoSuch'),
        ('optim_wrapper.optimizer.no_such=1', 'no_such'),
        ('train_dataloader.batch_size=0', 'batch_size'),
        ('train_dataloader.batch_size=99999', '99999'),
        ('train_dataloader.sampler.infinite=True', 'infinite'),
        ('train_dataloader.dataset.type=NoSuch', 'NoSuch'),
        ('model.dictionary.size=1', 'queue'),
        ('model.dictionary.type=NoSuch', 'NoSuch'),
        ('model.m_schedule=linear', 'linear'),
        ('train_cfg.max_epochs=ten', 'ten'),
        ('env_cfg.mp_cfg.mp_start_method=x', "'x'"),
        ('model.loss.temperature=0', 'temperature'),
        ('model.loss.temperature=-1', 'temperature'),
    ):
        yield 'train.py', [DEMO, '--cfg-options', option], words
    yield 'knn.py', [DEMO, '{good}', '--k', '0'], 'k'
    yield 'knn.py', [DEMO, '{good}', '--k', '99999'], '99999'
    yield 'knn.py', [DEMO, '{good}', '--temperature', '0'], 'temperature'
    yield 'estimate_memory.py', [DEMO, '--batch-size', '0'], 'batch'
    yield 'estimate_memory.py', [DEMO, '--gpus', '0'], 'gpus'
    yield 'browse_views.py', [DEMO, '--num', '0'], 'num'
    yield 'convert_config.py', ['nowhere.py', 'out.py'], 'nowhere.py'
    yield 'convert_config.py', ['{broken}', 'out.py'], 'broken.py'
    yield 'dataset_stats.py', ['{missing}'], 'missing'
    yield 'transfer.py', ['{missing}', 'voc-seg'], 'missing'
    yield 'transfer.py', ['random', 'no-such'], 'no-such'
    yield 'transfer.py', ['random', 'voc-seg'], 'data'
    yield 'transfer.py', ['random', 'voc-seg', '--resume'], '--resume'
    yield 'dataset_stats.py', ['{empty}'], 'empty'
    for name in ('missing', 'cut', 'text'):
        rest = [f'{{{name}}}', 'out.pth']
        yield 'export_backbone.py', [*rest, '--to', 'mmdet'], f'{name}.pth'
        yield 'import_checkpoint.py', rest, f'{name}.pth'
    yield 'export_backbone.py', ['{good}', 'x.pth', '--to', 'tf'], "'tf'"
    yield 'export_backbone.py', ['{good}', 'x.pth'], '--to'
    yield 'make_shards.py', ['{missing}', 'out'], 'missing'
    yield 'make_shards.py', ['{empty}', 'out'], 'empty'
    yield (
        'make_shards.py',
        ['{images}', 'out', '--samples-per-shard', '0'],
        'samples',
    )
    subset = ['--percent', '1', '--out', 'x.txt']
    yield 'make_label_subset.py', ['{missing}', *subset], 'missing'
    yield 'make_label_subset.py', ['{empty}', *subset], 'empty'
    yield (
        'make_label_subset.py',
        ['{images}', '--percent', '200', '--out', 'x'],
        '200',
    )
    yield 'make_digit_scenes.py', ['out', '--no-such'], '--no-such'
    yield 'make_digit_scenes.py', ['out', '--size', 'x'], '--size'
    yield 'report.py', ['{missing}'], 'missing'
    yield 'report.py', ['{empty}'], 'empty'


CASES = list(cases())


def test_no_tool_is_left_out():
    assert {tool for tool, *_ in CASES} == set(TOOLS)


@pytest.mark.parametrize('tool', TOOLS)
def test_bad_input_gets_one_line(tool, files, tmp_path, monkeypatch, capfd):
    failed = []
    for name, argv, words in CASES:
        if name != tool:
            continue
        named = {f'{{{path.stem}}}': str(path) for path in files.iterdir()} | {
            '{missing}': str(files / 'missing.pth')
        }
        argv = [named.get(a, a) for a in argv]
        if tool == 'train.py':
            argv += ['--work-dir', str(tmp_path / 'run')]
        try:
            code = call(tool, argv, tmp_path, monkeypatch)
        except BaseException as error:
            capfd.readouterr()
            failed.append((argv, f'{type(error).__name__}: {error}'[:300]))
            continue
        text = capfd.readouterr()
        lines = [x for x in text.err.splitlines() if ': error: ' in x]
        if (
            code != 2
            or len(lines) != 1
            or 'Traceback' in text.err + text.out
            or not re.search(re.escape(words), lines[0])
        ):
            failed.append((argv, code, text.err[-500:]))
    assert not failed, '\n'.join(map(str, failed))
