"""The command-line tools, called as a user calls them."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

import mmmoco
from mmmoco.apis import cli, load_config
from mmmoco.apis.config import adapt
from mmmoco.apis.config.adapt import fit_workers, use_precision
from mmmoco.apis.training.jobs import train
from mmmoco.apis.training.train import prepare
from mmmoco.engine import checkpoint_io

from .. import conftest
from ..conftest import call, one_line
from ..engine.earlier.make import KINDS, config, images

ROOT = Path(__file__).parents[2]
TINY = [
    'train_dataloader.dataset.num_scenes=64',
    'train_dataloader.batch_size=16',
    *conftest.TINY,
]


@pytest.mark.parametrize(
    ('argv', 'words'),
    [
        (['mocov2_r51.py'], ['mocov2_r51.py', 'mocov2_r50_8xb32']),
        (['nowhere.py'], ['nowhere.py', 'demo/mocov2_digits']),
        (['demo/mocov2_digits', '--max-iters', '0'], ['--max-iters 0']),
        (['demo/mocov2_digits', '--load-from', 'no.pth'], ['no.pth']),
        (['demo/mocov2_digits', '--resume', 'no.pth'], ['no.pth']),
        (
            ['demo/mocov2_digits', '--cfg-options', 'modle.m=0.9'],
            ['modle', 'model'],
        ),
        (
            ['demo/mocov2_digits', '--resume', 'a', '--load-from', 'b'],
            ['--resume', '--load-from'],
        ),
        (
            ['demo/mocov2_digits', '--cfg-options', 'model.m=0.001'],
            ['m=0.001', '0.999'],
        ),
        (
            ['demo/mocov2_digits', '--cfg-options', 'model.momentum=0.001'],
            ['momentum'],
        ),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2(
    argv, words, capsys, tmp_path
):
    argv = [*argv, '--work-dir', tmp_path / 'run']
    assert call(train, *argv) == 2
    line = one_line(capsys)
    assert all(word in line for word in words), line


def test_layer_wise_rates_need_a_model_with_depths(capsys, tmp_path):
    path = tmp_path / 'foreign.py'
    path.write_text(
        "_base_ = 'mmmoco::demo/mocov2_digits.py'\n"
        "model = dict(_delete_=True, type='BackboneOnly', "
        "backbone=dict(type='PlainConvNet', in_channels=1))\n"
    )
    code = call(
        train,
        path,
        *('--work-dir', tmp_path / 'run', '--cfg-options'),
        'optim_wrapper.constructor='
        'mmpretrain.LearningRateDecayOptimWrapperConstructor',
        'optim_wrapper.paramwise_cfg.layer_decay_rate=0.75',
    )
    line = one_line(capsys)
    assert code == 2 and 'optim_wrapper.constructor: ' in line
    assert 'get_layer_depth' in line and 'custom_keys' in line


def test_missing_images_are_named(capsys, tmp_path):
    code = call(
        train,
        'mocov2_r50_8xb32',
        '--work-dir',
        tmp_path / 'run',
        '--cfg-options',
        f'train_dataloader.dataset.data_root={tmp_path}/photos',
        'train_dataloader.num_workers=0',
        'model.dictionary.size=64',
    )
    assert code == 2
    line = one_line(capsys)
    assert f'{tmp_path}/photos' in line and 'does not exist' in line


def test_debug_shows_the_trace(tmp_path):
    with pytest.raises(FileNotFoundError):
        cli.main(train, ['nowhere.py', '--debug'])


def test_train_resume_knn_and_test(tmp_path, capsys):
    work = tmp_path / 'run'
    base = ['demo/mocov2_digits', '--work-dir', work]
    options = ['--cfg-options', *TINY]
    assert call(train, *base, '--max-iters', 5, *options) == 0
    checkpoint = work / 'iter_5.pth'
    assert checkpoint.is_file()
    assert (work / 'last_checkpoint').read_text().endswith('iter_5.pth')

    scalars = next(work.glob('*/vis_data/scalars.json')).read_text()
    steps = [json.loads(x) for x in scalars.splitlines()]
    losses = [s for s in steps if 'loss' in s]
    assert [s['step'] for s in losses] == [1, 2, 3, 4, 5]
    assert losses[-1]['lr'] < losses[0]['lr']  # compressed to five

    for tool in ('knn.py', 'test.py'):
        argv = ['demo/mocov2_digits', checkpoint, *options]
        assert call(tool, *argv) == 0
    lines = (work / 'results.jsonl').read_text().splitlines()
    results = [json.loads(line) for line in lines]
    during, after, tested = (
        next(r for r in reversed(results) if not r['checkpoint']),
        results[-2],
        results[-1],
    )
    assert after['metrics'] == during['metrics'] == tested['metrics']
    assert after['checkpoint'].endswith('iter_5.pth')

    resumed = [*base, '--max-iters', 8, '--resume', *options]
    assert call(train, *resumed) == 0
    assert (work / 'iter_8.pth').is_file()
    meta = checkpoint_io.read(str(work / 'iter_8.pth'))['meta']
    assert meta['iter'] == 8


def test_knn_with_the_defaults_of_the_protocol(tmp_path):
    """k, temperature and features may be left out of the config."""
    path = tmp_path / 'weights.pth'
    model = mmmoco.get_model('demo/mocov2_digits')
    torch.save({'state_dict': model.state_dict()}, path)
    config = tmp_path / 'mine.py'
    config.write_text(
        "_base_ = 'mmmoco::demo/mocov2_digits.py'\n"
        'bank = dict(**_base_.knn.bank)\n'
        'knn = dict(_delete_=True, bank=bank, query=_base_.knn.query)\n'
    )
    assert call('knn.py', config, path) == 0
    result = json.loads((tmp_path / 'results.jsonl').read_text())
    assert result['protocol'] == {
        'k': 20,
        'temperature': 0.07,
        'features': 'backbone',
        'bank': 4311,
        'queries': 1080,
    }


@pytest.mark.parametrize('has_units', [True, False])
def test_fast_turns_the_speed_settings_on(monkeypatch, has_units):
    """And mixed precision only where the hardware is made for it."""
    monkeypatch.setattr(adapt, 'cpu_has_bfloat16', lambda: has_units)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    cfg = prepare('mocov2_r50_8xb32', fast=True, max_iters=10)
    dtype = 'bfloat16' if has_units else 'float32'
    assert cfg.optim_wrapper.get('dtype', 'float32') == dtype
    assert cfg.custom_hooks[-1].type == 'mmmoco.KernelSettingsHook'
    assert cfg.model.channels_last is True
    assert cfg.train_cfg.type == 'IterBasedTrainLoop'
    assert cfg.train_dataloader.sampler.infinite is True
    assert cfg.schedule == 'fit'
    assert cfg.log_processor.by_epoch is False
    assert cfg.default_hooks.checkpoint.by_epoch is False
    assert cfg.default_hooks.checkpoint.interval == 10
    assert cfg.work_dir == 'work_dirs/mocov2_r50_8xb32'


@pytest.mark.parametrize('place', ['CPU', 'GPU'])
@pytest.mark.parametrize('has_units', [True, False])
@pytest.mark.parametrize('asked', [None, 'bfloat16', 'float16', 'Amp'])
@pytest.mark.parametrize('amp', [False, True])
@pytest.mark.parametrize('fast', [False, True])
def test_bfloat16_is_taken_where_there_are_units(
    monkeypatch, capfd, place, has_units, asked, amp, fast
):
    """One rule for what a config asks for, and for --fast; --amp wins."""
    monkeypatch.setattr(adapt, 'has_bfloat16_units', lambda: has_units)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: place == 'GPU')
    monkeypatch.setattr(adapt, 'get_device', lambda: 'cpu')
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0')  # for mmengine's log
    given = dict(type='ContrastOptimWrapper', dtype=asked or 'float32')
    if asked == 'Amp':
        given = dict(type='AmpOptimWrapper', loss_scale='dynamic')
    cfg = Config(dict(optim_wrapper=given, model=dict(type='MoCoV2')))
    use_precision(cfg, amp=amp, fast=fast)
    expected = given.get('dtype', 'float16')
    if amp or (fast and has_units):
        expected = 'bfloat16'
    elif expected == 'float16' and place == 'CPU':
        expected = 'bfloat16' if has_units else 'float32'
    elif expected == 'bfloat16' and not has_units:
        expected = 'float32'
    assert cfg.optim_wrapper.get('dtype', 'float16') == expected
    if expected != 'float16':
        assert 'loss_scale' not in cfg.optim_wrapper
    changed = asked and expected == 'float32'
    said = ''.join(capfd.readouterr())
    told = f'This {place} has no bfloat16 units: using float32.' in said
    assert told == bool(changed)


@pytest.mark.parametrize('kind', KINDS)
def test_fast_gives_every_method_its_memory_format(kind, tmp_path):
    cfg = config(kind, tmp_path)
    use_precision(cfg, amp=False, fast=True)
    model = mmmoco.get_model(cfg)
    x = images(kind)
    features = model.extract_feat(x)
    kernels = [p for p in model.parameters() if p.dim() == 4]
    last = dict(memory_format=torch.channels_last)
    assert kernels and all(p.is_contiguous(**last) for p in kernels)
    plain = mmmoco.get_model(config(kind, tmp_path))
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(plain.extract_feat(x), features)


def test_fast_leaves_foreign_models_alone():
    cfg = Config(dict(model=dict(type='ImageClassifier'), optim_wrapper={}))
    use_precision(cfg, amp=False, fast=True)
    assert 'channels_last' not in cfg.model


def test_workers_fit_the_machine_and_may_be_none():
    cfg = load_config('mocov2_r50_8xb32')
    cfg.train_dataloader.num_workers = 999
    cfg.knn.bank.num_workers = 0
    fit_workers(cfg)
    cores = len(os.sched_getaffinity(0))
    assert cfg.train_dataloader.num_workers == cores
    assert cfg.train_dataloader.persistent_workers is True
    assert cfg.knn.bank.persistent_workers is False


def test_the_loaders_of_a_hook_follow_the_cores_too():
    cfg = load_config('mocov2_r50_8xb32')
    assert cfg.knn.bank.num_workers == 'auto'
    hook = dict(type='KNNHook', bank=cfg.knn.bank, query=cfg.knn.query)
    cfg.custom_hooks.append(copy.deepcopy(hook))
    fit_workers(cfg)
    cores = min(32, len(os.sched_getaffinity(0)))
    found = cfg.custom_hooks[-1]
    assert found['bank']['num_workers'] == cores
    assert found['query']['num_workers'] == cores
    wrong = {'custom_hooks.0.bank': dict(num_workers='many')}
    with pytest.raises(ValueError, match=r'custom_hooks\.0\.bank\.num_work'):
        load_config('mocov2_r50_8xb32', wrong)


def test_published_precision_without_fast():
    cfg = prepare('mocov2_r50_8xb32')
    assert 'dtype' not in cfg.optim_wrapper
    assert 'channels_last' not in cfg.model
    assert cfg.train_cfg.max_epochs == 200


class Bomb:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.system, (f'touch {self.path}',)


def test_a_hostile_checkpoint_runs_nothing(tmp_path, capsys):
    marker, bad = tmp_path / 'ran', tmp_path / 'bad.pth'
    torch.save({'state_dict': {}, 'meta': Bomb(marker)}, bad)
    options = ['--cfg-options', *TINY]
    base = ['demo/mocov2_digits', '--work-dir', tmp_path / 'run']
    for argv in (
        [*base, '--resume', bad, *options],
        [*base, '--load-from', bad, *options],
        [
            *base,
            *options,
            'model.backbone.init_cfg.type=Pretrained',
            f'model.backbone.init_cfg.checkpoint={bad}',
        ],
    ):
        assert call(train, *argv) == 2
        assert 'bad.pth' in one_line(capsys)
        assert not marker.exists()
    assert call('knn.py', 'demo/mocov2_digits', bad, *options) == 2
    assert 'bad.pth' in one_line(capsys)
    assert not marker.exists()
    # The bomb is real: plain pickle would have run it.
    torch.load(bad, weights_only=False)
    assert marker.exists()


def test_get_model_by_name_with_weights(tmp_path):
    model = mmmoco.get_model('demo/mocov2_digits')
    path = tmp_path / 'weights.pth'
    torch.save({'state_dict': model.state_dict()}, path)
    again = mmmoco.get_model('demo/mocov2_digits', str(path))
    assert not again.training
    x = torch.randn(2, 1, 16, 16)
    assert torch.equal(model.extract_feat(x), again.extract_feat(x))
    assert model.extract_feat(x).shape == (2, 128)
    assert model.extract_feat(x, 'neck').shape == (2, 64)
    torch.save({'state_dict': model.backbone.state_dict()}, path)
    with pytest.raises(
        RuntimeError,
        match=r'0 of 24 backbone, neck tensors fit; .*begin with stages',
    ):
        mmmoco.get_model('demo/mocov2_digits', str(path))


@pytest.mark.slow
def test_resnet50_trains_on_a_flat_folder(tmp_path):
    """The README's "your own folder", two iterations of it."""
    photos = tmp_path / 'photos'
    photos.mkdir()
    draws = np.random.default_rng(0)
    for i in range(4):
        pixels = draws.integers(0, 255, (70, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f'{i}.jpg')
    code = call(
        train,
        'mocov2_r50_8xb32',
        '--work-dir',
        tmp_path / 'run',
        '--max-iters',
        2,
        '--cfg-options',
        f'train_dataloader.dataset.data_root={photos}',
        'train_dataloader.batch_size=2',
        'train_dataloader.num_workers=1',
    )
    assert code == 0
    state = checkpoint_io.read(str(tmp_path / 'run' / 'iter_2.pth'))
    assert int(state['state_dict']['dictionary.ptr']) == 4


@pytest.mark.slow
@pytest.mark.parametrize('tool', ['train.py', 'test.py', 'knn.py'])
def test_help_of_the_tools(tool):
    out = subprocess.run(
        [sys.executable, str(ROOT / 'tools' / tool), '--help'],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert 'config' in out and '--cfg-options' in out


@pytest.mark.parametrize('cores', [1, 2, 16, 64])
@pytest.mark.parametrize('processes', [1, 4])
def test_workers_follow_the_cores_where_nobody_chose(
    cores, processes, monkeypatch, capfd
):
    from mmmoco.apis import list_configs

    monkeypatch.setattr(os, 'sched_getaffinity', lambda _: set(range(cores)))
    monkeypatch.setenv('LOCAL_WORLD_SIZE', str(processes))
    own = max(1, cores // processes)
    for name in ('mocov2_r50_8xb32', 'mocov2_r18_1xb512_cifar10'):
        assert name in list_configs()
        cfg = load_config(name)
        fit_workers(cfg)
        loaders = [cfg.train_dataloader, cfg.knn.bank, cfg.knn.query]
        assert [x.num_workers for x in loaders] == [min(own, 32)] * 3
    # What a user chose is never raised.
    cfg = load_config(name, {'train_dataloader.num_workers': 3})
    fit_workers(cfg)
    assert cfg.train_dataloader.num_workers == min(3, own)
    # The order of a stream depends on their number.
    cfg = load_config('mocov2_r50_8xb32')
    cfg.train_dataloader.dataset.type = 'TarShards'
    fit_workers(cfg)
    assert cfg.train_dataloader.num_workers == min(own, 8)


@pytest.mark.parametrize('native', [True, False])
def test_bfloat16_only_where_the_gpu_has_it(native, monkeypatch, capfd):
    """A V100 emulates it, and PyTorch says that it supports it."""
    cfg = load_config('mocov2_r50_8xb32')
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0')  # for mmengine's log
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(
        torch.cuda,
        'is_bf16_supported',
        lambda including_emulation=True: native or including_emulation,
    )
    use_precision(cfg, amp=False, fast=True)
    assert cfg.optim_wrapper.get('dtype') == ('bfloat16' if native else None)
