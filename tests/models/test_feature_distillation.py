"""Students and teachers of every kind, small and of random weights."""

import copy
import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config

from mmmoco.apis import get_model
from mmmoco.apis.exchange.jobs import export_backbone, import_checkpoint
from mmmoco.engine import checkpoint_io
from mmmoco.engine.runner import ContrastRunner
from mmmoco.registry import MODELS

from ..convert import teacher_layouts
from .test_distillation import VIEWS, images, vit

CONVNEXT = dict(
    type='mmpretrain.ConvNeXt',
    arch=dict(depths=[1, 1, 1, 1], channels=[8, 8, 16, 24]),
    gap_before_final_norm=False,
)
RESNET = dict(
    type='mmpretrain.ResNet', depth=18, base_channels=4, stem_channels=4
)
DINOV3 = dict(
    type='TimmBackbone',
    model_name='vit_small_patch16_dinov3',
    embed_dim=16,
    depth=1,
    num_heads=2,
)
#: Their width and the grid that they make of 64 pixels.
STUDENTS = {
    'ViT': (vit(16, 16, 64), 16, 4),
    'ResNet': (RESNET, 32, 2),
    'ConvNeXt': (CONVNEXT, 24, 2),
    'PlainConvNet': (dict(type='PlainConvNet', channels=(4,) * 4), 4, 8),
    'timm ResNet': (
        dict(type='TimmBackbone', model_name='test_resnet'),
        96,
        2,
    ),
    'timm ViT with registers': (DINOV3, 16, 4),
}
MEAN, STD = (127.5,) * 3, (63.75,) * 3


def teacher(backbone=None, **more):
    backbone = backbone or vit(24, 14, 56)
    known = dict(mean=MEAN, std=STD, random=True)
    return dict(type='Teacher', backbone=backbone) | known | more


def build(student=None, teachers=None, seed=0, **more):
    torch.manual_seed(seed)
    cfg = dict(
        type='FeatureDistillation',
        backbone=student or RESNET,
        teacher=teacher() if teachers is None else teachers,
        data_preprocessor=VIEWS,
    )
    model = MODELS.build(copy.deepcopy(cfg | more))
    model.init_weights()
    return model.train()


def losses(log):
    return sum(value for name, value in log.items() if 'loss' in name)


@pytest.mark.parametrize('kind', ['cosine', 'smooth_l1'])
@pytest.mark.parametrize('name', STUDENTS)
def test_every_student_learns(name, kind):
    """Gradient in student and adapters, all of them, and nowhere else."""
    student, width, _ = STUDENTS[name]
    model = build(student, cls_distance=kind, patch_distance=kind)
    before = copy.deepcopy(model.teacher.state_dict())
    learnt = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert {n.split('.')[0] for n in learnt} == {'backbone', 'adapter'}
    optimizer = torch.optim.Adam(learnt.values(), 1e-2)
    x, seen = images(4, 64), []
    for _ in range(8):
        optimizer.zero_grad()
        loss = losses(model.loss({'view': x}))
        loss.backward()
        optimizer.step()
        seen.append(loss.item())
    assert seen[-1] < 0.9 * seen[0]
    assert not [n for n, p in learnt.items() if p.grad is None]
    for key, value in model.teacher.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert not any(m.training for m in model.teacher.modules())
    assert model.queries.shape == (4, 24) and not model.queries.requires_grad
    assert model.extract_feat(x).shape == (4, width)
    assert model.extract_feat(x, 'neck').shape == (4, 24)
    assert model.extract_feat(x, 'teacher').shape == (4, 24)


@pytest.mark.parametrize('name', STUDENTS)
def test_of_its_own_teacher_a_student_has_nothing_to_learn(name):
    """The same network, weights and pixels: no adapter, and no loss."""
    student, *_ = STUDENTS[name]
    same = teacher(student, mean=VIEWS['mean'], std=VIEWS['std'])
    kinds = dict.fromkeys(('cls_distance', 'patch_distance'), 'smooth_l1')
    model = build(student, same, **kinds).eval()
    model.teacher.backbone.load_state_dict(model.backbone.state_dict())
    assert not list(model.adapter.parameters())
    assert losses(model.loss({'view': images(2, 64)})) == 0


def test_loss_is_the_formula():
    """Of two views, two teachers and two stages; the grid is theirs."""
    student = RESNET | dict(out_indices=(2, 3))
    teachers = [
        teacher(vit(24, 14, 56, out_indices=(0, 1))),
        teacher(CONVNEXT | dict(out_indices=(1, 3)), mean=(100.0,) * 3),
    ]
    settings = dict(cls_weight=2.0, patch_weight=0.5)
    model = build(student, teachers, patch_distance='smooth_l1', **settings)
    model.eval()
    views = {'view_1': images(2, 64), 'view_2': images(2, 64, seed=2)}
    cls, patches = [], []
    mean, std = (
        torch.tensor(VIEWS[k]).view(1, 3, 1, 1) for k in VIEWS if k != 'type'
    )
    for x in views.values():
        pixels = x * std + mean
        maps = model.backbone(x)
        for i, level in enumerate((127.5, 100.0)):
            seen = (pixels - level) / 63.75
            if i == 0:
                seen = torch.nn.functional.interpolate(
                    seen, (70, 70), mode='bicubic', antialias=True
                )
            goals = model.teacher[i].backbone(seen)
            for own, goal, adapter in zip(
                maps, goals, model.adapter[i], strict=True
            ):
                if goal.dim() == 3:
                    token = goal[:, 0]
                    goal = goal[:, 1:].mT.unflatten(2, (5, 5))
                else:
                    token = goal.mean((2, 3))
                a = adapter['cls'](own.mean((2, 3)))
                cls.append(1 - torch.cosine_similarity(a, token).mean())
                b = adapter['patches'](own.permute(0, 2, 3, 1))
                b = torch.nn.functional.interpolate(
                    b.permute(0, 3, 1, 2),
                    goal.shape[2:],
                    mode='bilinear',
                    antialias=True,
                )
                gap = (b - goal).abs()
                smooth = torch.where(gap < 1, 0.5 * gap**2, gap - 0.5)
                patches.append(smooth.mean())
    log = model.loss(views)
    assert len(cls) == 8
    torch.testing.assert_close(log['loss_cls'], 2 * sum(cls) / 8)
    torch.testing.assert_close(log['loss_patches'], 0.5 * sum(patches) / 8)


@torch.no_grad()
def test_teachers_of_timm_give_what_timm_gives():
    """Without registers; the last norm of a ConvNeXt is its classifier's."""
    x = images(2, 64)
    zero, one = torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1)
    convnext = dict(type='TimmBackbone', model_name='test_convnext')
    for net in (DINOV3, convnext):
        model = build(RESNET, teacher(net, mean=(0,) * 3, std=(1,) * 3))
        timm_model = model.teacher.backbone.timm_model
        (stage,) = model.teacher(x, zero, one)
        features = timm_model.forward_features(x)
        if net is DINOV3:
            cls, patches = features[:, 0], features[:, 5:].mT
        else:
            cls = timm_model(x)
            patches = timm_model.head.norm(features).flatten(2)
        torch.testing.assert_close(stage.cls, cls)
        torch.testing.assert_close(stage.patches.flatten(2), patches)


def test_no_gradient_is_waited_for_that_never_comes():
    """The head of a ConvNeXt of timm holds a norm, which maps do not pass."""
    model = build(dict(type='TimmBackbone', model_name='test_convnext'))
    losses(model.loss({'view': images(2, 64)})).backward()
    learnt = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in learnt)


def test_patches_stand_at_the_same_place():
    """On a grid finer than the student's, or coarser."""
    for side in (32, 128):
        model = build(STUDENTS['PlainConvNet'][0], patch_weight=1)
        x = images(1, side)
        y = x.clone()
        y[..., : side // 4, -side // 4 :] += 4.0
        mean, std = model.data_preprocessor.mean, model.data_preprocessor.std
        a, b = (model.teacher(z, mean, std)[-1].patches for z in (x, y))
        change = (a - b).norm(dim=1)[0]
        row, column = divmod(int(change.argmax()), change.shape[1])
        assert row < change.shape[0] / 4 + 1
        assert column >= 0.75 * change.shape[1] - 1


def test_size_of_the_teachers_images():
    """The nearest multiple of its patches, or as it says."""
    seen = []
    model = build()
    model.teacher.backbone.register_forward_pre_hook(
        lambda _, given: seen.append(tuple(given[0].shape[2:]))
    )
    model.loss({'a': images(1, 64), 'b': images(1, 100)})
    model.teacher.size = [28, 42]
    model.loss({'a': images(1, 64)})
    assert seen == [(70, 70), (98, 98), (28, 42)]


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
def test_a_teacher_that_is_not_finite_is_named(tmp_path, value):
    """Every step would be skipped, and the images blamed."""
    net = dict(STUDENTS['PlainConvNet'][0])
    state = MODELS.build(net).state_dict()
    name = [k for k, x in state.items() if x.is_floating_point()][-1]
    state[name].view(-1)[-1] = value
    path = str(tmp_path / 'teacher.pth')
    torch.save(dict(state_dict=state), path)
    net['init_cfg'] = dict(type='Pretrained', checkpoint=path)
    with pytest.raises(ValueError, match=rf'{name}.*not finite'):
        build(teachers=teacher(net, random=False))


def test_fixed_positions_of_timm_fix_the_size():
    """Whatever the student's images are, square or not."""
    net = dict(DINOV3, model_name='vit_small_patch14_reg4_dinov2', img_size=56)
    model = build(teachers=teacher(net))
    own = model.data_preprocessor
    for sides in ((56, 56), (64, 64), (32, 96)):
        (stage,) = model.teacher(torch.randn(1, 3, *sides), own.mean, own.std)
        assert stage.patches.shape[2:] == (4, 4)


@pytest.mark.parametrize(
    'licences', itertools.product((None, 'mit', 'dinov3-license'), repeat=2)
)
def test_no_licence_of_two_teachers_is_lost(licences):
    """Though their networks have one name."""
    model = build(teachers=[teacher(license=x) for x in licences])
    told = ContrastRunner._method(SimpleNamespace(model=model, cfg={}))
    (text,) = told['teachers'].values()
    if any(licences):
        assert text.split(', ') == [
            x or 'unknown' for x in dict.fromkeys(licences)
        ]
    else:
        assert text is None


@pytest.mark.parametrize(
    ('given', 'words'),
    [
        (dict(teachers=teacher(random=False)), r'random.*init_cfg.*random=T'),
        (dict(teachers=teacher(mean=None, std=None)), 'neither.*normalised'),
        (dict(teachers=teacher(mean=(1.0,))), 'one value per channel'),
        (dict(cls_weight=0, patch_weight=0), 'both zero'),
        (dict(patch_distance='l3'), 'smooth_l1'),
        (dict(teachers=teacher(vit(8, 14, 56, in_channels=1))), '1 channel'),
        (
            dict(student=CONVNEXT | dict(gap_before_final_norm=True)),
            'gap_before_final_norm=False',
        ),
        (dict(student=RESNET | dict(out_indices=(2, 3))), '2 stage.*1'),
        (dict(data_preprocessor=None), 'data_preprocessor'),
        (dict(teachers=(vit(8, 14, 56),)), "type='Teacher'"),
        (dict(teachers=()), 'empty'),
        (dict(student=DINOV3 | dict(out_indices=(0, 1))), 'last stage only'),
        *(
            (dict(teachers=teacher(**{name: (bad,) * 3})), 'above 0')
            for name in ('mean', 'std')
            for bad in (math.nan, math.inf, -math.inf, 'a', None)
        ),
        *((dict(teachers=teacher(std=(x,) * 3)), 'above 0') for x in (0, -1)),
        (dict(teachers=teacher(mean=127.5)), 'above 0'),
        (
            dict(teachers=teacher(mean=(0.485,) * 3, std=(0.229,) * 3)),
            'times 255',
        ),
        *(
            (dict(teachers=teacher(size=x)), 'teacher.size')
            for x in (0, -14, '56', (14, 14, 14), (14.0, 14))
        ),
        *((dict(teachers=teacher(license=x)), 'one text') for x in (3, ['a'])),
        *(
            (dict([(name, x)]), 'must be finite')
            for name in ('cls_weight', 'patch_weight')
            for x in (math.nan, math.inf, -1)
        ),
    ],
)
def test_wrong_settings_are_named(given, words):
    with pytest.raises(ValueError, match=words):
        build(**given)


def test_wrong_sides_of_a_student_are_named():
    with pytest.raises(ValueError, match='40×40.*16'):
        build(STUDENTS['ViT'][0]).loss({'image': images(1, 40)})


def test_file_of_the_teacher_tells_pixels_and_licence(tmp_path, caplog):
    """Its mean, std and licence; both are known without the file then."""
    source = MODELS.build(vit(24, 14, 56))
    source.init_weights()
    state = {f'backbone.{k}': v for k, v in source.state_dict().items()}
    seen = dict(mean=[0.5] * 3, std=[0.25] * 3, value_range=1.0)
    meta = dict(preprocessing=seen, license='dinov3-license')
    path = str(tmp_path / 'teacher.pth')
    torch.save(dict(state_dict=state, meta=meta), path)
    init = dict(type='Pretrained', checkpoint=path, prefix='backbone.')
    net = vit(24, 14, 56, init_cfg=init)

    def model_of(**more):
        model = dict(
            type='FeatureDistillation',
            backbone=RESNET,
            teacher=dict(type='Teacher', backbone=net) | more,
            data_preprocessor=VIEWS,
        )
        return get_model(Config(dict(model=copy.deepcopy(model))))

    model = model_of()
    assert model.teacher.license == 'dinov3-license'
    torch.testing.assert_close(
        model.teacher.mean.flatten(), torch.tensor(MEAN)
    )
    torch.testing.assert_close(model.teacher.std.flatten(), torch.tensor(STD))
    other = build()
    checkpoint_io.load_into(other, model.state_dict())
    x = images(2, 64)
    a, b = model.eval().loss({'x': x}), other.eval().loss({'x': x})
    assert all(torch.equal(a[name], b[name]) for name in a)
    # What the config says counts.
    told = model_of(mean=(0.0,) * 3, std=STD, license='mine')
    assert told.teacher.mean.sum() == 0 and told.teacher.license == 'mine'

    meta['preprocessing']['channel_order'] = 'bgr'
    torch.save(dict(state_dict=state, meta=meta), path)
    with pytest.raises(ValueError, match=r'teacher.pth.*bgr'):
        model_of()
    init['checkpoint'] = f'{path}.gone'
    with pytest.raises(FileNotFoundError, match=r'gone.*mmmoco import'):
        model_of()
    init['checkpoint'] = path
    del state['backbone.layers.1.attn.qkv.weight']
    torch.save(dict(state_dict=state), path)
    missing = r'model\.teacher\.backbone.*1 missing.*layers\.1\.attn'
    with pytest.raises(checkpoint_io.CheckpointError, match=missing):
        model_of(mean=MEAN, std=STD)


@pytest.mark.slow
def test_a_run_goes_on_exactly_and_its_export_names_the_licence(
    small_config, runner_of, tmp_path
):
    """Of the file of a teacher of ours; the student is exported as ever."""
    net = dict(type='PlainConvNet', in_channels=1, channels=(8,) * 4)
    source = MODELS.build(net)
    source.init_weights()
    state = {f'backbone.{k}': v for k, v in source.state_dict().items()}
    path = str(tmp_path / 'teacher.pth')
    eyes = dict(mean=[100.0], std=[50.0])
    # Itself distilled from another one.
    meta = dict(preprocessing=eyes, teachers=dict(other='dinov3-license'))
    torch.save(dict(state_dict=state, meta=meta), path)
    init = dict(type='Pretrained', checkpoint=path, prefix='backbone.')
    small = small_config()
    small.model = dict(
        type='FeatureDistillation',
        backbone=dict(type='PlainConvNet', in_channels=1),
        teacher=dict(type='Teacher', backbone=net | dict(init_cfg=init)),
        data_preprocessor=small.model.data_preprocessor,
    )
    small.train_cfg.max_epochs = 2
    states = []
    for name in ('whole', 'resumed'):
        cfg = copy.deepcopy(small)
        cfg.work_dir = str(tmp_path / name)
        if name == 'resumed':
            cfg.resume = True
            cfg.load_from = str(tmp_path / 'whole' / 'epoch_1.pth')
        runner = runner_of(cfg)
        runner.train()
        assert runner.iter == 8
        states.append(checkpoint_io.read(tmp_path / name / 'epoch_2.pth'))
    first, second = (each['state_dict'] for each in states)
    assert all(torch.equal(first[n], second[n]) for n in first)
    assert first['teacher.mean'].item() == 100.0
    assert states[0]['meta']['teachers'] == {'PlainConvNet': 'dinov3-license'}

    student = str(tmp_path / 'whole' / 'epoch_2.pth')
    features = get_model(None, student).extract_feat(images(2, 16)[:, :1])
    assert features.shape == (2, 128)
    done = export_backbone(student, str(tmp_path / 'card'))
    assert any('dinov3-license' in note for note in done.notes)
    card = (tmp_path / 'card' / 'README.md').read_text()
    assert 'licence is `dinov3-license`: these weights may fall' in card
    done = export_backbone(student, str(tmp_path / 'x'), to='mmpretrain')
    assert 'dinov3-license' in str(done)
    taken = import_checkpoint(
        student, str(tmp_path / 'taken.pth'), config=small
    )
    assert 'Distilled from PlainConvNet, licence dinov3-lic' in str(taken)
    for path in (done.path, taken.path):
        told = checkpoint_io.read_meta(str(path))
        assert told['teachers'] == {'PlainConvNet': 'dinov3-license'}


@pytest.mark.slow
def test_a_file_of_dinov3_becomes_a_teacher(tmp_path):
    """As its authors write it: all its tensors, its pixels, its licence."""
    source = teacher_layouts.network(
        'vit_small_patch16_dinov3_qkvb', **teacher_layouts.SMALL_VIT
    )
    state = teacher_layouts.file_of(source.state_dict(), 'original')
    torch.save(state, tmp_path / 'theirs.pth')
    path = str(tmp_path / 'ours.pth')
    import_checkpoint(str(tmp_path / 'theirs.pth'), path, num_heads=2)
    net = dict(
        type='TimmBackbone',
        model_name='vit_small_patch16_dinov3_qkvb',
        init_cfg=dict(type='Pretrained', checkpoint=path, prefix='backbone.'),
        **teacher_layouts.SMALL_VIT,
    )
    model = dict(
        type='FeatureDistillation',
        backbone=RESNET,
        teacher=dict(type='Teacher', backbone=net),
        data_preprocessor=VIEWS,
    )
    model = get_model(Config(dict(model=model)))
    assert model.teacher.license == 'dinov3-license'
    x = images(2, 64)
    found = model.extract_feat(x, 'teacher')
    torch.testing.assert_close(found, source.forward_features(x)[:, 0])
