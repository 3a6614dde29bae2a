"""Loading into downstream models, and frozen backbones."""

import copy
import gc
import tempfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.model import BaseModule
from PIL import Image
from torch import nn

from mmmoco.apis import get_model, load_config
from mmmoco.engine import checkpoint_io
from mmmoco.engine.checkpoint_io import CheckpointError
from mmmoco.engine.hooks import VerifyPretrainedHook

pytestmark = pytest.mark.slow

BACKBONE = dict(
    type='mmmoco.PlainConvNet', channels=(4, 8), strides=(1, 2), in_channels=3
)
PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=16),
    dict(type='PackInputs'),
]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Eight images each of two classes."""
    root = tmp_path_factory.mktemp('images')
    draws = np.random.default_rng(0)
    for name in ('a', 'b'):
        (root / name).mkdir()
        for i in range(8):
            pixels = draws.integers(0, 256, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f'{i}.png')
    return root


@pytest.fixture
def weights(tmp_path, small_config):
    """A pre-training checkpoint with BatchNorm statistics of its own."""
    cfg = small_config()
    cfg.model.backbone = dict(copy.deepcopy(BACKBONE), out_indices=(1,))
    cfg.model.data_preprocessor.mean = (127.5,) * 3
    cfg.model.data_preprocessor.std = (64.0,) * 3
    model = get_model(cfg)
    for name, buffer in model.named_buffers():
        if 'running' in name:
            buffer.uniform_(0.5, 2)
    path = tmp_path / 'pretrained.pth'
    torch.save({'state_dict': model.state_dict()}, path)
    return path


def classifier(base, folder, tmp_path, backbone, width=8):
    """A shipped config on small images, with a small backbone."""
    cfg = load_config(f'benchmarks/classification/{base}')
    data = dict(type='CustomDataset', data_root=str(folder), pipeline=PIPELINE)
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        cfg[name].dataset = dict(copy.deepcopy(data))
        cfg[name].num_workers = 0
        cfg[name].persistent_workers = False
        cfg[name].batch_size = 8
    cfg.model.backbone = backbone
    cfg.model.head.num_classes = 2
    cfg.model.head.in_channels = width
    cfg.val_evaluator = cfg.test_evaluator = dict(type='Accuracy', topk=(1,))
    cfg.data_preprocessor.num_classes = 2
    cfg.train_cfg.max_epochs = 2
    cfg.visualizer = dict(type='Visualizer')
    cfg.work_dir = str(tmp_path / 'run')
    return cfg


def pretrained(path, **changes):
    init = dict(type='Pretrained', checkpoint=str(path), prefix='backbone.')
    return dict(
        copy.deepcopy(BACKBONE), out_indices=(1,), init_cfg=init, **changes
    )


def test_not_one_number_of_a_frozen_backbone_moves(
    folder, tmp_path, weights, runner_of
):
    backbone = pretrained(weights, frozen_stages=1)
    cfg = classifier(
        'linear/mocov2_r50_8xb32_100e', folder, tmp_path, backbone
    )
    assert cfg.optim_wrapper.optimizer.lr == 30
    runner = runner_of(cfg)
    runner.train()
    expected = torch.load(weights)['state_dict']
    state = runner.model.state_dict()
    names = [n for n in state if n.startswith('backbone.')]
    assert sum('running' in n for n in names) == 4
    for name in names:
        assert torch.equal(state[name], expected[name]), name
    assert runner.model.head.fc.bias.abs().max() > 0  # it starts at 0


def test_an_unfrozen_backbone_does_move(folder, tmp_path, weights, runner_of):
    """The test above can fail: parameters and statistics."""
    cfg = classifier(
        'fine_tune/mocov2_r50_8xb32_30e',
        folder,
        tmp_path,
        pretrained(weights),
    )
    runner = runner_of(cfg)
    runner.train()
    expected = torch.load(weights)['state_dict']
    state = runner.model.state_dict()
    for name in ('stages.0.conv.weight', 'stages.1.bn.running_mean'):
        full = f'backbone.{name}'
        assert not torch.equal(state[full], expected[full])


@pytest.mark.parametrize('resume', [False, True])
def test_partly_loaded_weights_stop_the_run(
    folder, tmp_path, weights, runner_of, resume
):
    """Also when asked to resume, with nothing to resume from."""
    backbone = pretrained(weights)
    backbone.update(channels=(4, 6, 8), strides=(1, 2, 1), out_indices=(2,))
    cfg = classifier(
        'linear/mocov2_r50_8xb32_100e', folder, tmp_path, backbone
    )
    cfg.resume = resume
    with pytest.raises(CheckpointError) as caught:
        runner_of(cfg).train()
    text = str(caught.value)
    assert 'missing in the file: stages.2.conv.weight' in text
    assert 'of another shape: stages.1.conv.weight' in text


def test_weights_below_another_prefix_are_found_out(
    folder, tmp_path, weights, runner_of
):
    """Our own encoder's keys would be left out without a word."""
    state = torch.load(weights)['state_dict']
    state['backbone.extra'] = torch.zeros(1)
    state['backbone.stages.0.bn.running_var'] += 0  # others are as they were
    torch.save({'state_dict': state}, weights)
    cfg = classifier(
        'linear/mocov2_r50_8xb32_100e', folder, tmp_path, pretrained(weights)
    )
    with pytest.raises(CheckpointError, match='unknown to the model: extra'):
        runner_of(cfg).train()
    cfg.custom_hooks[0].allow_unexpected = ['extra']
    runner_of(cfg).train()


def test_other_values_are_found_out(folder, tmp_path, weights, runner_of):
    cfg = classifier(
        'linear/mocov2_r50_8xb32_100e', folder, tmp_path, pretrained(weights)
    )
    runner = runner_of(cfg)
    (hook,) = [
        h for h in runner.hooks if type(h).__name__ == 'VerifyPretrainedHook'
    ]
    backbone = runner.model.backbone
    backbone.init_weights()
    init = cfg.model.backbone.init_cfg
    assert hook.verify('backbone', backbone, init) == 12
    backbone.stages[1].bn.running_var[3] += 1e-3
    with pytest.raises(CheckpointError, match=r'other values: stages\.1\.bn'):
        hook.verify('backbone', backbone, init)


def test_no_file_is_an_error_before_the_run(folder, tmp_path, runner_of):
    cfg = classifier(
        'linear/mocov2_r50_8xb32_100e', folder, tmp_path, pretrained('')
    )
    with pytest.raises(ValueError, match='init_cfg.checkpoint is empty'):
        runner_of(cfg).train()
    cfg.model.backbone.pop('init_cfg')
    with pytest.raises(ValueError, match='no module'):
        runner_of(cfg).train()


TINY_VIT = dict(
    type='mmmoco.MoCoV3ViT',
    arch=dict(
        embed_dims=24, num_layers=2, num_heads=2, feedforward_channels=48
    ),
    img_size=16,
    patch_size=8,
    stop_grad_conv1=False,
)


@pytest.mark.slow
@pytest.mark.parametrize('case', ['linear', 'fine_tune'])
def test_vit(case, folder, tmp_path, runner_of):
    import mmmoco.models  # noqa: F401
    from mmmoco.registry import MODELS

    source = MODELS.build(copy.deepcopy(TINY_VIT))
    source.init_weights()
    path = tmp_path / 'vit.pth'
    state = {f'backbone.{k}': v for k, v in source.state_dict().items()}
    torch.save({'state_dict': state}, path)
    init = dict(type='Pretrained', checkpoint=str(path), prefix='backbone.')
    backbone = dict(copy.deepcopy(TINY_VIT), init_cfg=init)
    base = 'fine_tune/mocov3_vit-s_8xb64_150e'
    if case == 'linear':
        base = 'linear/mocov3_vit-s_8xb128_90e'
        backbone['frozen_stages'] = 2
    cfg = classifier(base, folder, tmp_path, backbone, width=24)
    cfg.param_scheduler = []  # the run ends before the warm-up would
    runner = runner_of(cfg)
    runner.train()
    found = runner.model.state_dict()
    moved = {n for n, v in state.items() if not torch.equal(v, found[n])}
    if case == 'linear':
        assert not moved
        return
    assert moved == state.keys() - {'backbone.pos_embed'}
    scale = {
        group['param_name']: group['lr_scale']
        for group in runner.optim_wrapper.optimizer.param_groups
    }
    # Embedding, two blocks, head: a factor 0.75 from each to the next.
    assert scale['head.fc.weight'] == 1
    assert scale['backbone.layers.1.ffn.layers.1.weight'] == 0.75
    assert scale['backbone.layers.0.ffn.layers.1.weight'] == 0.75**2
    assert scale['backbone.patch_embed.projection.weight'] == 0.75**3
    assert scale['backbone.cls_token'] == 0.75**3


def test_the_head_learns_faster_with_few_labels(
    folder, tmp_path, weights, runner_of
):
    cfg = classifier(
        'semi_supervised/mocov2_r50_4xb64_1pct',
        folder,
        tmp_path,
        pretrained(weights),
    )
    runner = runner_of(cfg)
    runner.train()
    groups = runner.optim_wrapper.optimizer.param_groups
    rates = sorted({round(group['initial_lr'], 6) for group in groups})
    assert rates == [0.01, 1.0]


def downstream(folder, tmp_path, load_from, **options):
    """A config of another library, that has no hook of ours."""
    backbone = dict(copy.deepcopy(BACKBONE), out_indices=(1,))
    base = 'linear/mocov2_r50_8xb32_100e'
    cfg = classifier(base, folder, tmp_path, backbone)
    cfg.custom_hooks = []
    cfg.train_cfg.max_epochs = 1
    cfg.load_from = str(load_from)
    cfg.work_dir = tempfile.mkdtemp(dir=tmp_path)
    cfg.merge_from_dict(options)
    return cfg


def test_a_run_of_another_library_needs_the_backbone_of_its_file(
    folder, tmp_path, weights, runner_of, capfd
):
    state = torch.load(weights)['state_dict']
    head = {'head.fc.weight': torch.ones(5, 8), 'head.fc.bias': torch.ones(5)}
    torch.save({'state_dict': {**state, **head}}, weights)
    runner_of(downstream(folder, tmp_path, weights)).train()
    out = capfd.readouterr().out
    assert 'pretrained.pth: 10 of 12 tensors fit; as initialised stay ' in out
    assert 'head (2) (head.fc.weight, head.fc.bias); not used are dict' in out

    names = {f'student.{name}': value for name, value in state.items()}
    torch.save({'state_dict': names}, weights)
    with pytest.raises(CheckpointError, match='0 of 10 backbone tensors fit'):
        runner_of(downstream(folder, tmp_path, weights)).train()
    del state['backbone.stages.1.conv.weight']
    torch.save({'state_dict': state}, weights)
    with pytest.raises(CheckpointError, match='9 of 10 backbone tensors fit'):
        runner_of(downstream(folder, tmp_path, weights)).train()
    partial = {'allow_partial': True}
    runner_of(downstream(folder, tmp_path, weights, **partial)).train()
    assert 'backbone (1)' in capfd.readouterr().out


def test_a_test_needs_the_whole_model(folder, tmp_path, weights, runner_of):
    """Else it would give figures of a random head."""
    with pytest.raises(CheckpointError, match='2 missing .*: head.fc.weight'):
        runner_of(downstream(folder, tmp_path, weights)).test()
    state = torch.load(weights)['state_dict']
    head = {'head.fc.weight': torch.ones(2, 8), 'head.fc.bias': torch.ones(2)}
    torch.save({'state_dict': {**state, **head}}, weights)
    runner_of(downstream(folder, tmp_path, weights)).test()


@pytest.mark.parametrize('prefix', [None, 'key_encoder.', 'nowhere.'])
def test_a_wrong_prefix_in_a_config_without_the_hook(
    folder, tmp_path, weights, runner_of, prefix
):
    cfg = downstream(folder, tmp_path, weights)
    cfg.load_from = None
    cfg.model.backbone = pretrained(weights)
    cfg.model.backbone.init_cfg.prefix = prefix
    with pytest.raises(CheckpointError, match='backbone'):
        runner_of(cfg).train()


def test_layers_that_no_file_has_are_named(
    folder, tmp_path, weights, runner_of, capfd
):
    """Other libraries add them: plug-ins, deformable offsets."""
    state = torch.load(weights)['state_dict']
    del state['backbone.stages.1.conv.weight']
    torch.save({'state_dict': state}, weights)
    cfg = downstream(folder, tmp_path, weights)
    cfg.load_from = None
    cfg.model.backbone = pretrained(weights)
    runner_of(cfg).train()
    out = capfd.readouterr().out
    assert 'stay stages (1) (stages.1.conv.weight)' in out
    assert '9 of 10 tensors fit' in out


class Net(BaseModule):
    def __init__(self, widths, **init):
        super().__init__(dict(type='Pretrained', **init))
        for name, width in widths.items():
            self.add_module(name, nn.BatchNorm2d(width))


def test_two_modules_may_share_a_file(tmp_path, capsys):
    """As the backbone and the RoI head of a C4 detector do."""
    path = str(tmp_path / 'x.pth')
    whole = nn.ModuleDict({f'layer{i}': nn.BatchNorm2d(i) for i in (3, 4)})
    torch.save({'state_dict': whole.state_dict()}, path)
    backbone = Net({'layer3': 3}, checkpoint=path)
    head = Net({'layer4': 4, 'norm': 4}, checkpoint=path)
    model = nn.ModuleDict({'backbone': backbone, 'head': head})
    backbone.init_weights()
    head.init_weights()
    runner = SimpleNamespace(model=model, _has_loaded=False, cfg={})
    hook = VerifyPretrainedHook(allow_missing=['norm.*'])
    hook.before_run(runner)
    hook.before_train(runner)
    log = ''.join(capsys.readouterr())
    assert 'backbone: all 5 tensors equal those of' in log
    assert 'head: all 5 tensors' in log
    assert '; new: norm.weight, norm.bias' in log
    # A layer that no module takes is one that was forgotten.
    whole['layer2'] = nn.BatchNorm2d(2)
    torch.save({'state_dict': whole.state_dict()}, path)
    with pytest.raises(CheckpointError, match=r'unknown .*: layer2\.weight'):
        hook.before_train(runner)
    # With another prefix or file, nothing is shared.
    head.init_cfg['prefix'] = 'layer4.'
    with pytest.raises(CheckpointError, match=r'unknown .*layer4\.weight'):
        hook.before_train(runner)


def test_a_foreign_run_that_fails_leaves_nothing(tmp_path):
    import mmengine.runner.checkpoint as theirs

    net = Net({'bn': 3}, checkpoint='https://nowhere.invalid/a.pth')
    gc.collect()
    own = theirs.save_checkpoint
    hook, runner = VerifyPretrainedHook(), SimpleNamespace(model=net)
    hook.before_run(runner)
    assert theirs.save_checkpoint is not own
    hook.after_run(runner)
    assert theirs.save_checkpoint is own
    hook.before_run(runner)
    del hook  # As when its run fails: nobody calls it.
    gc.collect()
    assert theirs.save_checkpoint is own


def test_a_file_behind_a_url_is_compared_too(tmp_path, monkeypatch):
    """An old one of torchvision: a classifier, and no counted batches."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    cache = tmp_path / 'hub' / 'checkpoints'
    cache.mkdir(parents=True)
    source = nn.ModuleDict({'bn': nn.BatchNorm2d(3), 'fc': nn.Linear(2, 2)})
    state = dict(source.state_dict())
    del state['bn.num_batches_tracked']
    state['bn.weight'] = torch.rand(3)
    torch.save(state, cache / 'net-0123abcd.pth')
    url = 'https://nowhere.invalid/net-0123abcd.pth'
    net = Net({'bn': 3}, checkpoint=url)
    with checkpoint_io.guarded:
        net.init_weights()
    hook = VerifyPretrainedHook()
    assert hook.verify('backbone', net, net.init_cfg) == 4
    net.bn.bias.data += 1
    with pytest.raises(CheckpointError, match=r'other values: bn\.bias'):
        hook.verify('backbone', net, net.init_cfg)
