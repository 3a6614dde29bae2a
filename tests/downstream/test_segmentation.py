"""The segmentation configs: built, loaded, trained and tested for real."""

from pathlib import Path

import pytest
import torch

from mmmoco.apis import cli, get_model, list_configs, load_config
from mmmoco.apis.training import jobs, train, transfer
from mmmoco.apis.training.runner import build_runner
from mmmoco.engine import checkpoint_io
from mmmoco.json_lines import read_json_lines

from . import segmentation_data as data

pytestmark = [pytest.mark.downstream, pytest.mark.slow]

NAMES = list_configs('^benchmarks/mmsegmentation/(?!demo)')
DEMO = 'benchmarks/mmsegmentation/demo_digits/fcn_1xb16_500i'
STARTS = ('ours', 'supervised', 'random')


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """Random weights in our layout, and in that of supervised ones."""
    from mmengine.registry import MODELS
    from torchvision.models import resnet50

    folder = tmp_path_factory.mktemp('weights')
    torch.manual_seed(0)
    vit = dict(type='mmpretrain.VisionTransformer', arch='base', img_size=224)
    small = dict(embed_dims=384, num_layers=12, num_heads=12)
    kinds = {
        'r50': dict(type='mmpretrain.ResNet', depth=50),
        'vit-b': vit,
        'vit-s': dict(vit, arch=dict(small, feedforward_channels=1536)),
    }
    found = {}
    for kind, backbone in kinds.items():
        ours = MODELS.build(backbone).state_dict()
        ours = {f'backbone.{k}': v for k, v in ours.items()}
        if kind == 'r50':
            supervised = resnet50().state_dict()
        else:  # torchvision's ViT has other names: as mmpretrain saves it
            supervised = {k: torch.randn_like(v) for k, v in ours.items()}
            supervised['head.layers.head.weight'] = torch.zeros(1000, 1)
        for start, state in (('ours', ours), ('supervised', supervised)):
            path = folder / f'{kind}_{start}.pth'
            torch.save({'state_dict': state}, path)
            found[kind, start] = str(path)
        found[kind, 'random'] = 'random'
    return found


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    return data.write_scenes(tmp_path_factory.mktemp('scenes'))


@pytest.mark.parametrize('name', NAMES)
def test_builds_and_loads_in_all_three_initialisations(name, files):
    from mmengine.registry import MODELS, init_default_scope

    loaded = {}
    for start in STARTS:
        kind = name.split('_')[-3].removesuffix('-d8')
        file = files[kind, start]
        cfg = train.prepare(name, init=file)
        init_default_scope('mmseg')
        backbone = MODELS.build(cfg.model).backbone
        backbone.init_weights()
        loaded[start] = backbone.state_dict()
        hooks = [hook.type for hook in cfg.custom_hooks]
        assert ('mmmoco.VerifyPretrainedHook' in hooks) == (start != 'random')
        if start == 'random':
            continue
        content = checkpoint_io.read(file)['state_dict']
        theirs = {k.removeprefix('backbone.'): v for k, v in content.items()}
        assert len(loaded[start]) in (148, 318)
        for key, value in loaded[start].items():
            if key == 'pos_embed':  # 14×14 positions become 32×32
                assert value.shape == (1, 1 + 32 * 32, theirs[key].shape[2])
                assert torch.equal(value[:, 0], theirs[key][:, 0])
            else:
                assert torch.equal(value, theirs[key]), key
    for key, value in loaded['random'].items():
        if key.endswith(('conv2.weight', 'qkv.weight')):
            assert not torch.equal(value, loaded['ours'][key]), key
            assert not torch.equal(loaded['supervised'][key], value), key


@pytest.mark.parametrize('name', NAMES)
def test_what_moco_asks_of_a_downstream_run(name):
    cfg = load_config(name)
    assert cfg.default_scope == 'mmseg'
    backbone, head = cfg.model.backbone, cfg.model.decode_head
    assert head.norm_cfg.type == 'SyncBN'
    preprocessor = cfg.model.data_preprocessor
    assert preprocessor.mean == [123.675, 116.28, 103.53]
    assert preprocessor.std == [58.395, 57.12, 57.375]
    assert preprocessor.bgr_to_rgb
    assert cfg.model.get('pretrained') is None
    if backbone.type == 'ResNet':
        assert backbone.norm_cfg.type == 'SyncBN' and not backbone.norm_eval
        assert backbone.frozen_stages == -1 and backbone.style == 'pytorch'


def test_mmsegs_own_tools_read_them_too():
    """Without our ``load_config``: a plain mmengine."""
    import subprocess
    import sys

    root = Path(__file__).parents[2]
    paths = [str(root / 'configs' / f'{name}.py') for name in (*NAMES, DEMO)]
    code = (
        'import sys\nfrom mmengine.config import Config\n'
        'for path in sys.argv[1:]:\n'
        '    cfg = Config.fromfile(path)\n'
        '    print(cfg.default_scope, cfg.custom_imports.imports)\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', code, *paths],
        env=data.environment(root),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = [x for x in done.stdout.splitlines() if x.startswith('mmseg ')]
    assert len(lines) == len(paths) >= 6


@pytest.mark.parametrize('part', ['voc12aug', 'cityscapes'])
def test_fcn_16s_is_that_of_the_paper(part):
    """Appendix A.5 of MoCo v1."""
    from mmmoco.engine.without_memory import build_without_memory

    (name,) = (n for n in NAMES if f'{part}/fcn16s' in n)
    cfg = load_config(name)
    model = build_without_memory(cfg)
    for block in model.backbone.layer4:
        assert block.conv2.dilation == (2, 2)
        assert block.conv2.stride == (1, 1)
    for block in model.backbone.layer3:
        assert block.conv2.dilation == (1, 1)
    shapes = [tuple(m.conv.weight.shape) for m in model.decode_head.convs]
    assert shapes == [(256, 2048, 3, 3), (256, 256, 3, 3)]
    assert {m.conv.dilation for m in model.decode_head.convs} == {(6, 6)}
    assert model.decode_head.conv_seg.kernel_size == (1, 1)
    assert not model.with_auxiliary_head
    iterations, lr, crop = {
        'voc12aug': (30000, 0.003, (513, 513)),
        'cityscapes': (90000, 0.01, (769, 769)),
    }[part]
    assert cfg.train_cfg.max_iters == iterations
    (steps,) = cfg.param_scheduler
    shares = [m / iterations for m in steps.milestones]
    assert shares == pytest.approx([0.7, 0.9])
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.lr, optimizer.weight_decay) == (lr, 1e-4)
    dataset = cfg.train_dataloader.dataset
    assert cfg.train_dataloader.batch_size * 8 == 16
    for each in dataset.get('datasets', [dataset]):
        _, _, scale, cropped, flip, _ = each.pipeline
        assert scale.ratio_range == (0.5, 2.0) and scale.keep_ratio
        assert cropped.crop_size == crop == model.data_preprocessor.size
        assert flip.type == 'RandomFlip'
    kinds = [step.type for step in cfg.test_dataloader.dataset.pipeline]
    assert 'Resize' not in kinds and cfg.model.test_cfg.mode == 'whole'


def test_rates_of_the_vit_fall_from_layer_to_layer():
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import init_default_scope

    from mmmoco.engine.without_memory import build_without_memory

    (name,) = (n for n in NAMES if 'vit-b' in n)
    cfg = load_config(name)
    model = build_without_memory(cfg)
    init_default_scope('mmseg')
    wrapper = build_optim_wrapper(
        model, {**cfg.optim_wrapper, 'type': 'OptimWrapper'}
    )
    names = {id(p): n for n, p in model.named_parameters()}
    groups = wrapper.optimizer.param_groups
    seen = {names[id(p)]: g for g in groups for p in g['params']}
    assert set(seen) == set(names.values())
    for name, group in seen.items():
        depth = 13  # heads and neck
        if name.startswith('backbone.layers.'):
            depth = int(name.split('.')[2]) + 1
        elif name.startswith('backbone.'):
            depth = 0
        assert group['lr'] == pytest.approx(1e-4 * 0.65 ** (13 - depth)), name
        (parameter,) = group['params']
        plain = parameter.ndim == 1 or name.endswith(
            ('cls_token', 'pos_embed')
        )
        assert group['weight_decay'] == (0.0 if plain else 0.05), name


def test_a_run_of_mmselfsups_variant(files, scenes, tmp_path):
    name = next(n for n in NAMES if 'voc12aug/fcn_r50' in n)
    options = data.small_options(load_config(name))
    given, _ = cli.arguments(
        jobs.train,
        [name, '--init', files['r50', 'ours'], '--max-iters', '1']
        + ['--work-dir', str(tmp_path), *options]
    )  # fmt: skip
    cfg = train.prepare(**given)
    transfer.move_data(cfg, str(scenes / 'VOC2012'))
    runner = build_runner(cfg)
    runner.train()
    metrics = runner.test()
    assert runner.iter == 1 and 0 <= metrics['mIoU'] <= 100


def call_transfer(argv):
    cli.main(jobs.transfer, argv, 'transfer.sh')


@pytest.mark.parametrize('task', ['voc-seg', 'cityscapes-seg', 'ade-seg'])
def test_a_task_trains_tests_and_records(task, files, scenes, tmp_path):
    name = transfer.read_tasks()[task].config
    cfg = load_config(name)
    call_transfer(
        [
            files[name.split('_')[-3], 'ours'], task,
            '--data-root', str(scenes / data.DATA[name.split('/')[2]]),
            '--work-dir', str(tmp_path), '--max-iters', '1', '--debug',
            *data.small_options(cfg),
        ]
    )  # fmt: skip
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert 'backbone: all ' in log  # VerifyPretrainedHook compared them
    (line,) = read_json_lines(tmp_path / 'results.jsonl')
    assert line['task'] == task
    assert set(line['metrics']) == {'aAcc', 'mIoU', 'mAcc'}
    assert all(0 <= figure < 100 for figure in line['metrics'].values())
    assert line['checkpoint'].endswith('iter_1.pth')


@pytest.mark.parametrize('start', ['ours', 'random'])
def test_the_demo(start, scenes, tmp_path):
    """Two iterations, from a checkpoint of demo/mocov2_digits or not."""
    file = 'random'
    if start == 'ours':
        pretraining = get_model('demo/mocov2_digits')
        file = str(tmp_path / 'epoch_100.pth')
        torch.save({'state_dict': pretraining.state_dict()}, file)
    call_transfer(
        [
            file, 'digits-seg', '--data-root', str(scenes / 'cityscapes'),
            '--work-dir', str(tmp_path / 'run'), '--max-iters', '2',
            '--debug', '--cfg-options',
            f'model.data_preprocessor.size=({data.SIDE}, {data.SIDE})',
            'train_dataloader.batch_size=2', 'val_dataloader.batch_size=2',
        ]
    )  # fmt: skip
    log = next((tmp_path / 'run').glob('*/*.log')).read_text()
    assert ('all 24 tensors equal those of' in log) == (start == 'ours')
    (line,) = read_json_lines(tmp_path / 'run' / 'results.jsonl')
    assert line['published'] is None and 0 <= line['metrics']['mIoU'] < 100
