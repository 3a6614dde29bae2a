"""Distillation, with small teachers of random weights."""

import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope

from mmmoco import TrainStep
from mmmoco.apis import get_model
from mmmoco.engine import checkpoint_io
from mmmoco.engine.checkpoint_io import CheckpointError
from mmmoco.registry import MODELS

VIEWS = dict(
    type='ViewAugmentor',
    mean=(123.675, 116.28, 103.53),
    std=(58.395, 57.12, 57.375),
)


def vit(width, patch_size, img_size, **kwargs):
    arch = dict(
        embed_dims=width,
        num_layers=2,
        num_heads=2,
        feedforward_channels=2 * width,
    )
    return dict(
        type='mmpretrain.VisionTransformer',
        arch=arch,
        patch_size=patch_size,
        img_size=img_size,
        **kwargs,
    )


def build(student=None, teacher=None, **kwargs):
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type='Distillation',
            backbone=student or vit(16, 16, 96),
            teacher=teacher or vit(24, 14, 84, layer_scale_init_value=1e-5),
            data_preprocessor=copy.deepcopy(VIEWS),
            **kwargs,
        )
    )
    model.init_weights()
    return model.train()


def images(n=4, side=96, seed=1):
    draws = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, side, side, generator=draws)


def test_teacher_never_moves_and_the_loss_falls():
    """It needs no hook: the optimizer wrapper alone trains it."""
    init_default_scope('mmmoco')
    model = build()
    before = copy.deepcopy(model.teacher.state_dict())
    student = copy.deepcopy(model.backbone.state_dict())
    wrapper = build_optim_wrapper(
        model,
        dict(
            type='ContrastOptimWrapper',
            optimizer=dict(type='AdamW', lr=3e-3, weight_decay=0.05),
        ),
    )
    data = {
        'inputs': {'image': torch.randint(0, 256, (8, 3, 96, 96)).byte()},
        'ids': torch.arange(8),
    }
    train_step = TrainStep(model, wrapper, total=30)
    losses = [train_step(data)['loss'].item() for _ in range(30)]
    assert losses[-1] < 0.5 * losses[0]
    for name, value in model.teacher.state_dict().items():
        assert torch.equal(value, before[name]), name
    moved = [
        name
        for name, value in model.backbone.state_dict().items()
        if not torch.equal(value, student[name])
    ]
    # mmpretrain's attention has no unused tensor: everything learns.
    assert len(moved) == len(student)
    assert all(p.grad is None for p in model.teacher.parameters())
    names = {n for n, p in model.named_parameters() if p.requires_grad}
    assert not [n for n in names if n.startswith('teacher.')]


def test_teacher_stays_in_eval_mode_and_gets_no_gradient():
    model = build(teacher=vit(24, 14, 84, drop_rate=0.5, drop_path_rate=0.5))
    model.train()
    assert model.training and model.backbone.training
    assert not any(m.training for m in model.teacher.modules())
    x = images()
    a, b = model.teacher_tokens(x), model.teacher_tokens(x)
    assert torch.equal(a.patches, b.patches) and not a.cls.requires_grad


@pytest.mark.parametrize(
    ('side', 'expected'), [(96, 84), (32, 28), (224, 196)]
)
def test_both_cut_the_view_into_the_same_grid(side, expected):
    model = build()
    x = images(2, side)
    assert model.teacher_view(x).shape == (2, 3, expected, expected)
    own, goal = model.student_tokens(x), model.teacher_tokens(x)
    patches = (side // 16) ** 2
    assert own.patches.shape == (2, patches, 16)
    assert goal.patches.shape == (2, patches, 24)
    assert own.cls.shape == (2, 16) and goal.cls.shape == (2, 24)


def test_tokens_stand_at_the_same_place():
    """A change in one corner moves the teacher's token there the most."""
    model = build(teacher=vit(24, 14, 84))
    x = images(1)
    y = x.clone()
    y[..., :16, 80:] += 3.0  # row 0, column 5
    change = model.teacher_tokens(y).patches - model.teacher_tokens(x).patches
    assert int(change.norm(dim=-1).argmax()) == 5


def test_teacher_of_another_size_is_interpolated():
    """DINOv2 has 37×37 positions; 6×6 of them are asked for."""
    big = build(teacher=vit(24, 14, 518))
    assert big.teacher.pos_embed.shape[1] == 1 + 37 * 37
    assert big.teacher_tokens(images()).patches.shape == (4, 36, 24)


def test_adapter_only_where_the_widths_differ():
    assert not list(build(teacher=vit(16, 14, 84)).adapter.parameters())
    model = build()
    assert model.adapter.weight.shape == (24, 16)
    names = set(model.state_dict())
    assert {'adapter.weight', 'adapter.bias'} <= names
    prefixes = {name.split('.')[0] for name in names}
    assert prefixes == {'backbone', 'teacher', 'adapter'}


def test_loss_is_the_formula():
    model = build(cls_weight=2.0, patch_weight=0.5, patch_distance='smooth_l1')
    x = images()
    log = model.loss({'image': x})
    own, goal = model.student_tokens(x), model.teacher_tokens(x)
    a, b = model.adapter(own.cls), goal.cls
    cosine = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
    torch.testing.assert_close(log['loss_cls'], 2.0 * (1.0 - cosine.mean()))
    gap = (model.adapter(own.patches) - goal.patches).abs()
    smooth = torch.where(gap < 1, 0.5 * gap**2, gap - 0.5)
    torch.testing.assert_close(log['loss_patches'], 0.5 * smooth.mean())
    torch.testing.assert_close(log['sim_cls'], cosine.mean())
    # Several views: their mean.
    y = images(seed=2)
    both = model.loss({'view_1': x, 'view_2': y})
    mean = (log['loss_cls'] + model.loss({'image': y})['loss_cls']) / 2
    torch.testing.assert_close(both['loss_cls'], mean)


def test_a_weight_of_zero_leaves_the_term_out():
    log = build(patch_weight=0).loss({'image': images()})
    assert 'loss_patches' not in log and 'loss_cls' in log


def test_teacher_has_a_normalisation_of_its_own():
    model = build(teacher_mean=(127.5,) * 3, teacher_std=(127.5,) * 3)
    pixels = torch.randint(0, 256, (2, 3, 96, 96)).byte()
    student = model.data_preprocessor.normalise(pixels)
    model.teacher_patch_size = 16  # no resizing in between
    expected = pixels.float() / 127.5 - 1.0
    torch.testing.assert_close(model.teacher_view(student), expected)
    with pytest.raises(ValueError, match='go together'):
        build(teacher_mean=(127.5,) * 3)
    assert 'factor' not in model.state_dict()


@pytest.mark.parametrize(
    ('side', 'words'), [(100, ('100×100', '16', '14')), (40, ('40×40',))]
)
def test_wrong_sides_are_named(side, words):
    with pytest.raises(ValueError, match='multiple') as error:
        build().loss({'image': images(1, side)})
    assert all(word in str(error.value) for word in words)


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match=r"'l3'.*smooth_l1"):
        build(cls_distance='l3')
    with pytest.raises(ValueError, match='both zero'):
        build(cls_weight=0, patch_weight=0)
    model = build(student=vit(16, 16, 96, out_type='cls_token'))
    with pytest.raises(ValueError, match="out_type='raw'"):
        model.loss({'image': images()})


def test_features():
    model = build().eval()
    x = images()
    assert model.extract_feat(x).shape == (4, 16)
    neck = model.extract_feat(x, 'neck')
    torch.testing.assert_close(neck.norm(dim=1), torch.ones(4))
    assert model.extract_feat(x, 'teacher').shape == (4, 24)
    assert torch.equal(model({'image': x}), model.extract_feat(x))
    with pytest.raises(ValueError, match='nowhere'):
        model.extract_feat(x, 'nowhere')


def test_checkpoint_round_trip():
    model = build()
    other = build(student=vit(16, 16, 96), teacher=vit(24, 14, 84))
    # Another start, and no layer scale in the second teacher: refused.
    with pytest.raises(RuntimeError, match=r'teacher\.'):
        checkpoint_io.load_into(other, model.state_dict())
    other = build()
    for parameter in other.parameters():
        parameter.data.normal_()
    checkpoint_io.load_into(other, model.state_dict())
    x = images()
    a, b = model.loss({'image': x}), other.loss({'image': x})
    assert all(torch.equal(a[name], b[name]) for name in a)


@checkpoint_io.guarded
def test_teacher_from_a_file(tmp_path):
    """As mmpretrain's DINOv2 files are: prefix, more positions."""
    source = MODELS.build(vit(24, 14, 140))
    source.init_weights()
    state = {f'backbone.{k}': v for k, v in source.state_dict().items()}
    path = tmp_path / 'teacher.pth'
    torch.save({'state_dict': state}, path)
    init = dict(type='Pretrained', checkpoint=str(path), prefix='backbone.')
    model = build(teacher=vit(24, 14, 84, init_cfg=init))
    for name, value in model.teacher.named_parameters():
        if name != 'pos_embed':
            assert torch.equal(value, source.state_dict()[name]), name
    assert model.teacher.pos_embed.shape[1] == 37
    # Interpolating when it is loaded or when it is used is the same.
    late = build(teacher=vit(24, 14, 140, init_cfg=init))
    x = images()
    torch.testing.assert_close(
        late.teacher_tokens(x).patches, model.teacher_tokens(x).patches
    )

    del state['backbone.layers.1.attn.qkv.weight']
    torch.save({'state_dict': state}, path)
    cfg = dict(type='Distillation', backbone=vit(16, 16, 96))
    cfg['teacher'] = vit(24, 14, 84, init_cfg=init)
    missing = r'model\.teacher: .*1 missing.*layers\.1\.attn\.qkv\.weight'
    with pytest.raises(CheckpointError, match=missing):
        get_model(Config(dict(model=cfg)))


def test_a_real_run_with_the_hooks_of_every_run(small_config, runner_of):
    cfg = small_config()
    cfg.model = dict(
        type='Distillation',
        backbone=vit(16, 8, 16, in_channels=1),
        teacher=vit(24, 7, 14, in_channels=1),
        data_preprocessor=cfg.model.data_preprocessor,
    )
    hooks = {hook.type for hook in cfg.custom_hooks}
    assert {'KeyEncoderUpdateHook', 'DictionaryUpdateHook'} <= hooks
    runner = runner_of(cfg)
    runner.train()
    assert runner.iter == 4
    logged = runner.message_hub.log_scalars
    assert logged['train/loss_patches'].current() > 0
    assert 'train/m' not in logged
