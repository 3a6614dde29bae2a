"""tools/transfer.sh: what it refuses, and one whole run."""

import hashlib
import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmmoco.apis import cli, load_config
from mmmoco.apis.exchange.export_backbone import method_of
from mmmoco.apis.lookup import config_root
from mmmoco.apis.report.jobs import report
from mmmoco.apis.training import jobs, transfer
from mmmoco.engine import checkpoint_io
from mmmoco.json_lines import read_json_lines

from . import segmentation_data as data

pytestmark = pytest.mark.downstream

ROOT = Path(__file__).parents[2]
TASKS = transfer.read_tasks()
CONFIG = "model = dict(backbone=dict(type='ResNet'), type='MoCoV1')\n"


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """A ResNet-18, as a run of MoCo v1 would save it."""
    from torchvision.models import resnet18

    path = tmp_path_factory.mktemp('weights') / 'epoch_200.pth'
    torch.manual_seed(0)
    state = resnet18().state_dict()
    state = {
        f'backbone.{k}': v for k, v in state.items() if not k.startswith('fc')
    }
    torch.save({'state_dict': state, 'meta': {'cfg': CONFIG}}, path)
    return str(path)


@pytest.fixture(scope='module')
def voc(tmp_path_factory):
    return data.write_scenes(tmp_path_factory.mktemp('scenes')) / 'VOC2012'


def arguments(checkpoint, voc, work_dir, iterations=1):
    options = data.small_options(load_config(TASKS['voc-seg'].config))
    return [
        checkpoint, 'voc-seg', '--data-root', str(voc),
        '--work-dir', str(work_dir), '--max-iters', str(iterations),
        '--seed', '7', *options, 'model.backbone.depth=18',
        'model.decode_head.in_channels=512',
    ]  # fmt: skip


def call(argv):
    cli.main(jobs.transfer, argv, 'transfer.sh')


def refusal(argv, capsys):
    """Return the one line, and check that nothing was left behind."""
    with pytest.raises(SystemExit) as stop:
        call(argv)
    assert stop.value.code == 2
    first, *rest = capsys.readouterr().err.splitlines()
    assert rest == ['(--debug shows where it was raised)']
    return first


def test_bad_calls_get_one_line_before_anything_starts(
    checkpoint, voc, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    line = refusal([checkpoint, 'voc-set'], capsys)
    assert "'voc-set'" in line and 'voc-seg' in line and 'coco-det' in line
    assert "'no.pth' does not exist" in refusal(['no.pth', 'voc-seg'], capsys)
    line = refusal([checkpoint, 'voc-seg'], capsys)
    assert 'data/VOCdevkit/VOC2012/' in line and '--data-root' in line
    for option in ('--init', '--load-from', '--resume'):
        line = refusal([checkpoint, 'voc-seg', option, 'x.pth'], capsys)
        assert option in line
    (voc / 'ImageSets' / 'Segmentation' / 'aug.txt').rename(tmp_path / 'aug')
    line = refusal([checkpoint, 'voc-seg', '--data-root', str(voc)], capsys)
    assert f"'{voc}/ImageSets/Segmentation/aug.txt' does not exist" in line
    (tmp_path / 'aug').rename(voc / 'ImageSets' / 'Segmentation' / 'aug.txt')
    assert not list(tmp_path.iterdir())


def test_the_help_names_all_tasks():
    _, helps, _ = cli._docstring(jobs.transfer)
    assert helps['task'] == f'One of {", ".join(TASKS)}'


def test_check_only_looks(checkpoint, voc, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call([checkpoint, 'voc-seg', '--data-root', str(voc), '--check'])
    out = capsys.readouterr().out
    assert TASKS['voc-seg'].config in out
    # Two checkpoints of one name get work dirs of their own.
    digits = hash_of(checkpoint)
    assert f'work_dirs/voc-seg/epoch_200-{digits}' in out
    assert not list(tmp_path.iterdir())


def hash_of(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:8]


def test_a_work_dir_belongs_to_one_run(checkpoint, voc, tmp_path, capsys):
    argv = arguments(checkpoint, voc, tmp_path)
    other = {'task': 'voc-seg', 'init': 'random', 'seed': 7}
    (tmp_path / 'transfer.json').write_text(json.dumps(other))
    line = refusal(argv, capsys)
    assert 'belongs to another run (task voc-seg, init random' in line
    assert [p.name for p in tmp_path.iterdir()] == ['transfer.json']


def test_data_move_with_lists_and_annotations():
    """As mmdet has them: the evaluator's file is a path of its own."""
    part = dict(
        type='CocoDataset',
        data_root='data/coco/',
        ann_file='annotations/a.json',
        data_prefix=dict(img='train/'),
    )
    cfg = Config(
        dict(
            train_dataloader=dict(
                dataset=dict(type='ConcatDataset', datasets=[part, part])
            ),
            val_dataloader=dict(
                dataset=dict(type='RepeatDataset', dataset=part)
            ),
            val_evaluator=[dict(ann_file='data/coco/annotations/b.json')],
            work_dir='data/coco/x',
        )
    )
    transfer.move_data(cfg, '/my/coco')
    roots = [d.data_root for d in cfg.train_dataloader.dataset.datasets]
    assert roots == ['/my/coco/'] * 2
    assert cfg.val_dataloader.dataset.dataset.data_root == '/my/coco/'
    assert cfg.val_evaluator[0].ann_file == '/my/coco/annotations/b.json'
    assert cfg.work_dir == 'data/coco/x'
    with pytest.raises(FileNotFoundError, match='/my/coco/annotations/a.json'):
        transfer.check_data(cfg, 'coco-det')
    with pytest.raises(ValueError, match='no data_root'):
        transfer.move_data(Config(dict(train_dataloader={})), '/x')


def test_figures_become_percent_by_one_rule():
    found = transfer.in_percent(
        {
            'coco/bbox_mAP': 0.385,
            'coco/bbox_mAP_s': -1.0,
            'coco/bbox_mAP_copypaste': '0.385 0.6',
        },
        'mmdet',
    )
    assert found == {'bbox_mAP': 38.5}
    found = transfer.in_percent(
        {'mIoU': np.float32(72.5), 'mAcc': float('nan')}, 'mmseg'
    )
    assert found == {'mIoU': 72.5}


def test_published_figures_are_those_of_the_same_start():
    task = TASKS['voc-seg']
    assert task.published_for('MoCoV1') == {
        'mIoU': 72.5,
        'source': 'MoCo v1, table 6',
        'random': 'mIoU 39.5',
        'supervised': 'mIoU 74.4',
    }
    assert task.published_for('random')['mIoU'] == 39.5
    assert TASKS['digits-seg'].published_for('random') is None
    unknown = task.published_for(None)
    assert 'mIoU' not in unknown and unknown['MoCoV1'] == 'mIoU 72.5'


def test_the_method_is_read_from_the_file(checkpoint):
    assert method_of(checkpoint_io.read(checkpoint)) == 'MoCoV1'
    exported = {'state_dict': {'conv1.weight': torch.zeros(1)}}
    assert method_of(exported) is None
    assert method_of({**exported, 'meta': {'method': 'MMC'}}) == 'MMC'


def test_a_missing_package_is_named(checkpoint, capsys, monkeypatch):
    monkeypatch.setattr(transfer, 'find_spec', lambda name: None)
    line = refusal([checkpoint, 'cityscapes-inst'], capsys)
    assert 'cityscapes-inst needs the package cityscapesscripts' in line


@pytest.mark.parametrize('name', [n for n in TASKS if TASKS[n].published])
def test_published_figures_are_the_same_everywhere(name):
    """In the table, in the head of the config, in the documentation."""
    task = TASKS[name]
    path = config_root() / f'{task.config}.py'
    head = ' '.join(path.read_text().splitlines()[:4])
    text = (ROOT / 'docs' / 'transfer.md').read_text()
    (rows,) = re.findall(rf'\*\*{name}\*\*.*?\n\n(.*?)\n\n', text, re.DOTALL)
    for start, figures in task.published.items():
        row = next(r for r in rows.splitlines() if r.startswith(f'| {start}'))
        values = [f'{x:.1f}' for x in figures.values()]
        for i in range(0, len(values), 3):  # AP / AP50 / AP75, box and mask
            assert f'| {" / ".join(values[i : i + 3])} |' in row
    mocos = [v for k, v in task.published.items() if k.startswith('MoCo')]
    assert any(str(next(iter(figures.values()))) in head for figures in mocos)


@pytest.mark.slow
def test_transfer_sh_trains_tests_records_and_resumes(
    checkpoint, voc, tmp_path
):
    def call(iterations):
        done = subprocess.run(
            [
                'bash', str(ROOT / 'tools' / 'transfer.sh'),
                *arguments(checkpoint, voc, 'run', iterations)[:2], '1',
                *arguments(checkpoint, voc, 'run', iterations)[2:],
            ],
            cwd=tmp_path,
            env=data.environment(ROOT),
            capture_output=True,
            text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    run = tmp_path / 'run'
    first = call(1)
    assert 'backbone: all ' in first
    (line,) = read_json_lines(run / 'results.jsonl')
    assert line['task'] == 'voc-seg' and line['seed'] == 7
    assert line['protocol']['init'] == 'epoch_200.pth'
    assert line['protocol']['iterations'] == 1
    assert line['published']['mIoU'] == 72.5
    assert line['checkpoint'] == 'run/iter_1.pth'
    assert line['checkpoint_hash'] and line['config_hash']
    figure = line['metrics']['mIoU']
    assert f'mIoU: {figure:.4f}' in first  # what mmseg's metric logged

    again = call(2)
    assert 'resumed' in again and 'backbone: all ' not in again
    lines = read_json_lines(run / 'results.jsonl')
    assert [x['protocol']['iterations'] for x in lines] == [1, 2]
    assert lines[1]['checkpoint'] == 'run/iter_2.pth'
    weights = checkpoint_io.read(run / 'iter_2.pth')
    assert weights['meta']['iter'] == 2

    html = report([str(run)]).read_text()
    for words in (
        f'mIoU {figure:.2f}',
        'mIoU 72.50',
        'MoCo v1, table 6',
        'supervised: mIoU 74.4',
        'config=fcn16s_r50',
    ):
        assert words in html, words


@pytest.mark.slow
def test_transfer_sh_says_what_is_wrong(checkpoint, tmp_path):
    """With several processes too: once, and before they start."""

    def call(*argv):
        return subprocess.run(
            ['bash', str(ROOT / 'tools' / 'transfer.sh'), *argv],
            cwd=tmp_path,
            env=data.environment(ROOT),
            capture_output=True,
            text=True,
        )

    done = call(checkpoint)
    assert done.returncode == 2 and 'CKPT TASK' in done.stderr
    assert "not 'two'" in call(checkpoint, 'voc-seg', 'two').stderr
    assert 'ade-seg' in call('--help').stdout
    done = call(checkpoint, 'voc-seg', '2')
    assert done.returncode == 2
    assert done.stderr.count('does not exist') == 1
    assert not list(tmp_path.iterdir())
