"""What MMC keeps apart: student and teacher, losses and heads, views."""

import copy

import pytest
import torch

from mmmoco.engine.endings import building
from mmmoco.registry import MODELS
from tests.golden import test_mmc as golden


def batch(model, step=0, local=0):
    model.set_address(seed=0, step=step, rank=0)
    data = golden.data(step, local)
    return model.data_preprocessor(data, True)


def test_gradients_reach_the_student_only():
    model = golden.build()
    before = copy.deepcopy(model.teacher.state_dict())
    sum(
        v
        for k, v in model(**batch(model), mode='loss').items()
        if k.startswith('loss')
    ).backward()
    for name, parameter in model.named_parameters():
        if name.startswith('teacher.'):
            assert parameter.grad is None and not parameter.requires_grad
        elif parameter.requires_grad:
            assert parameter.grad is not None, name
    for name, value in model.teacher.named_parameters():
        assert torch.equal(value, before[name]), name


def test_the_teacher_moves_by_its_average_alone():
    model = golden.build()
    with torch.no_grad():
        for p in model.backbone.parameters():
            p.add_(1.0)
    before = copy.deepcopy(dict(model.teacher.named_parameters()))
    model.update_key_encoder(0.75)
    for name, new in model.teacher.named_parameters():
        moved = 0.25 if name.startswith('backbone.') else 0.0
        torch.testing.assert_close(new, before[name] + moved)


def test_prefixes_of_the_state_dict():
    names = {n.rsplit('.', 2)[0] for n in golden.build().state_dict()}
    firsts = {n.split('.')[0] for n in names}
    assert firsts == {'backbone', 'heads', 'teacher'}
    pairs = {tuple(n.split('.')[:2]) for n in golden.build().state_dict()}
    assert {('heads', x) for x in ('rec', 'pat', 'cls')} <= pairs
    state = golden.build().state_dict()
    assert any(n.startswith('teacher.heads.pat.') for n in state)
    assert not any(n.startswith('teacher.heads.rec') for n in state)


def test_a_weight_of_zero_leaves_loss_and_head_out():
    model = golden.build(rec_weight=0.0, pat_weight=0.0)
    log = model(**batch(model), mode='loss')
    assert {k for k in log if 'loss' in k} == {'loss_cls'}
    assert list(model.heads) == ['cls']
    alone = golden.build(pat_weight=0.0, cls_weight=0.0)
    log = alone(**batch(alone), mode='loss')
    assert set(log) == {'loss_rec'}
    with pytest.raises(ValueError, match='cls_weight is 0'):
        alone.extract_feat(torch.zeros(1, 3, 8, 8), 'neck')


def test_weights_and_heads_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match='all zero'):
        golden.build(rec_weight=0.0, pat_weight=0.0, cls_weight=0.0)
    with pytest.raises(ValueError, match='negative'):
        golden.build(rec_weight=-1.0)
    heads = {k: v for k, v in golden.HEADS.items() if k != 'pat'}
    with pytest.raises(ValueError, match='heads has'):
        golden.build(heads=heads)


def test_views_without_corrupted_copies_are_refused():
    model = golden.build()
    clean = {f'view_{i}': torch.zeros(2, 3, 8, 8) for i in (1, 2)}
    with pytest.raises(ValueError, match='MaskedViewAugmentor'):
        model(clean, mode='loss')


def test_local_views_pass_the_student_only():
    model = golden.build(rec_weight=0.0, pat_weight=0.0)
    data = batch(model, local=2)
    seen = []
    model.teacher.backbone.register_forward_hook(
        lambda module, args, out: seen.append(tuple(args[0].shape))
    )
    with_local = model(**data, mode='loss')['loss_cls']
    assert seen == [(16, 3, 8, 8)]
    inputs = {k: v for k, v in data['inputs'].items() if 'local' not in k}
    without = model(inputs, data['ids'], mode='loss')['loss_cls']
    assert abs(with_local - without) > 1e-4


def test_without_hook_it_refuses_to_train():
    model = golden.build()
    model._announced.clear()
    with pytest.raises(RuntimeError, match='KeyEncoderUpdateHook'):
        model(**batch(model), mode='loss')


def test_stochastic_depth_is_the_students_alone():
    backbone = dict(
        type='mmpretrain.VisionTransformer',
        arch=dict(
            embed_dims=16, num_layers=2, num_heads=4, feedforward_channels=32
        ),
        img_size=8,
        patch_size=4,
        drop_path_rate=0.9,
    )
    model = golden.build(backbone=backbone)
    model.train()
    x = torch.randn(16, 3, 8, 8)
    first, second = (model.teacher_tokens(x).cls for _ in range(2))
    assert torch.equal(first, second)
    first, second = (model.student_tokens(x).cls for _ in range(2))
    assert not torch.equal(first, second)


def test_features():
    model = golden.build().eval()
    x = torch.randn(3, 3, 8, 8)
    assert model.extract_feat(x).shape == (3, 16)
    neck = model.extract_feat(x, 'neck')
    torch.testing.assert_close(neck.norm(dim=1), torch.ones(3))
    with torch.no_grad():
        for p in model.backbone.parameters():
            p.mul_(1.5)
    student, teacher = model.extract_feat(x), model.extract_feat(x, 'teacher')
    assert not torch.allclose(student, teacher, atol=1e-3)
    with pytest.raises(ValueError, match='stage'):
        model.extract_feat(x, 'head')


def test_options_of_the_patch_loss():
    pat = golden.HEADS['pat']
    torch.manual_seed(0)
    s, t = (
        torch.nn.functional.normalize(torch.randn(2, 4, 8), dim=-1)
        for _ in range(2)
    )
    mask = torch.zeros(2, 1, 8, 8, dtype=torch.bool)
    mask[0, 0, :4, :4] = True  # patch 0 of image 0
    mask[1, 0, :4, 4:6] = True  # half of patch 1 of image 1

    def loss(**options):
        return MODELS.build(pat | options).loss(s, t, mask)['loss']

    own = (s * t).sum(-1)
    expected = (1 - own[0, 0] + 1 - own[1, 1]) / 2
    torch.testing.assert_close(loss(form='cosine'), expected)
    expected = (1 - own[0, 0]) / 2
    torch.testing.assert_close(
        loss(form='cosine', min_corrupted=0.6), expected
    )
    torch.testing.assert_close(
        loss(form='cosine', min_corrupted=0.0), 1 - own.mean()
    )
    plain, scaled = (
        loss(scale_by_2tau=False, temperature=0.1),
        loss(temperature=0.1),
    )
    torch.testing.assert_close(scaled, 0.2 * plain)
    for bad in (
        dict(form='l2'),
        dict(temperature=0.0),
        dict(min_corrupted=1.5),
    ):
        with pytest.raises(ValueError, match='heads.pat'):
            loss(**bad)


def test_an_error_in_the_teacher_names_the_part_of_the_config():
    """There is no model.teacher: the teacher is built from the backbone."""
    model = golden.build()
    with pytest.raises(RuntimeError) as caught, building():
        model.extract_feat(torch.zeros(1, 5, 8, 8), 'teacher')
    assert 'model.backbone.patch_embed' in ' '.join(caught.value.__notes__)
