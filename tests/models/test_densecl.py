"""DenseCL's parts; its steps stand in ``golden/test_densecl.py``."""

import math

import pytest
import torch

from mmmoco.models.algorithms.densecl import Projections, most_similar
from mmmoco.registry import MODELS, in_scope_of

TINY = dict(embed_dims=8, num_layers=1, num_heads=2, feedforward_channels=8)


def theirs(kind, **options):
    return dict(type=f'mmpretrain.{kind}', **options)


def build(backbone=None, size=16, **options):
    cfg = dict(
        type='DenseCL',
        backbone=backbone or dict(type='PlainConvNet', in_channels=3),
        neck=theirs(
            'DenseCLNeck', in_channels=None, hid_channels=8, out_channels=8
        ),
        dictionary=dict(type='Queue', size=size, feat_dim=8),
        loss=dict(type='InfoNCE', temperature=0.2),
        m=0.9,
    )
    with in_scope_of({}):
        model = MODELS.build(cfg | options)
    model.train()
    model.announce(*model.needs)
    return model


def step(model, images=4, side=32, **marks):
    views = torch.randn(2, images, 3, side, side)
    model.set_address(seed=0, step=model.step, rank=0)
    return model(dict(view_q=views[0], view_k=views[1]), mode='loss', **marks)


BACKBONES = {
    'ResNet': theirs('ResNet', depth=18, stem_channels=8, base_channels=8),
    'ConvNeXt': theirs(
        'ConvNeXt',
        arch=dict(depths=[1] * 4, channels=[8] * 4),
        gap_before_final_norm=False,
    ),
    'PlainConvNet': dict(type='PlainConvNet', in_channels=3),
    'several maps': dict(
        type='PlainConvNet', in_channels=3, out_indices=(2, 3)
    ),
    'ViT': dict(
        type='MoCoV3ViT',
        arch=TINY,
        img_size=32,
        patch_size=8,
        out_type='featmap',
    ),
    'timm': dict(type='TimmBackbone', model_name='resnet10t'),
}


@pytest.mark.parametrize('name', BACKBONES)
def test_any_backbone_with_a_map_learns_by_its_cells(name):
    model = build(BACKBONES[name])
    log = step(model)
    assert {'loss_global', 'loss_dense', 'top1', 'dense_top1'} <= log.keys()
    log['loss_dense'].backward()
    for part in (model.backbone, model.neck.mlp2):
        grads = [p.grad for p in part.parameters() if p.requires_grad]
        assert any(g is not None and g.abs().sum() for g in grads)
    assert all(p.grad is None for p in model.neck.mlp.parameters())
    features = model.extract_feat(torch.randn(2, 3, 32, 32))
    assert features.dim() == 2
    assert model.extract_feat(torch.randn(2, 3, 32, 32), 'neck').shape[1] == 8


@pytest.mark.parametrize(
    ('backbone', 'words'),
    [
        (theirs('VisionTransformer', arch=TINY, img_size=32), 'ViT'),
        (
            theirs(
                'VisionTransformer', arch=TINY, img_size=32, out_type='raw'
            ),
            'ViT',
        ),
        (
            theirs('ConvNeXt', arch=dict(depths=[1] * 4, channels=[8] * 4)),
            'gap_before_final_norm=False',
        ),
    ],
    ids=['class token', 'tokens', 'pooled'],
)
def test_a_backbone_without_a_map_is_refused_in_one_line(backbone, words):
    with pytest.raises(ValueError, match=words) as caught:
        build(backbone)
    said = str(caught.value)
    assert "out_type='featmap'" in said and '\n' not in said


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (dict(loss_lambda=1.5), 'loss_lambda=1.5'),
        (dict(warmup_iters=-1), 'warmup_iters=-1'),
        (dict(dictionary=dict(type='InBatch')), 'InBatch stores none'),
        (
            dict(
                dense_dictionary=dict(
                    type='MemoryBank', size=8, feat_dim=8, num_negatives=2
                )
            ),
            'MemoryBank stores none',
        ),
        (
            dict(dense_dictionary=dict(type='Queue', size=8, feat_dim=4)),
            'dense_dictionary.feat_dim=4',
        ),
    ],
)
def test_what_cannot_be_dense_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        build(**options)


def test_the_cell_with_the_most_similar_features_answers():
    """Whatever its dense projection is, and wherever it lies."""
    features = torch.nn.functional.normalize(torch.randn(2, 6, 5), dim=1)
    order = torch.tensor([3, 0, 4, 2, 1])
    cells = torch.randn(2, 8, 5)
    q = Projections(cells[:, :, 0], cells, cells[:, :, 0], features)
    k = q._replace(features=features[:, :, order])
    expected = cells[:, :, order.argsort()]
    torch.testing.assert_close(most_similar(q, k), expected)


def test_chance_weighs_both_look_ups():
    model = build(
        loss_lambda=0.25,
        warmup_iters=2,
        dense_dictionary=dict(type='Queue', size=4, feat_dim=8),
    )
    both = 0.75 * math.log(17) + 0.25 * math.log(5)
    for at, expected in ((0, math.log(17)), (1, math.log(17)), (2, both)):
        model.set_address(seed=0, step=at, rank=0)
        assert model.chance(4) == pytest.approx(expected)
        model.step = at
        log = step(model)
        assert bool(log['loss_dense'] > 0) == (at == 2)


def test_both_queues_keep_one_key_an_image_and_forget_together():
    model = build()
    before = [d.keys.clone() for d in model.dictionaries]
    step(model)
    model.discard_keys()
    model.commit_keys()
    for kept, d in zip(before, model.dictionaries, strict=True):
        assert torch.equal(kept, d.keys) and int(d.ptr) == 0
    step(model)
    model.commit_keys()
    for kept, d in zip(before, model.dictionaries, strict=True):
        assert int(d.ptr) == 4 and not torch.equal(kept, d.keys)
        torch.testing.assert_close(d.keys.norm(dim=0), torch.ones(16))


def test_queues_larger_than_the_data_are_told_of_once_each_size():
    assert len(build().check_keys(4, 8)) == 1
    other = dict(type='Queue', size=12, feat_dim=8)
    assert len(build(dense_dictionary=other).check_keys(4, 8)) == 2


@pytest.mark.parametrize('what', ['image', 'group'])
def test_cells_know_whose_they_are(what):
    """Where all stored keys are excluded, only the positive is left."""
    queue = dict(type='Queue', size=4, feat_dim=8, exclude=what)
    model = build(dictionary=queue)
    marks = dict(ids=torch.full((4,), 7))
    if what == 'group':
        marks = dict(ids=torch.arange(4), groups=torch.full((4,), 7))
    first = step(model, **marks)
    model.commit_keys()
    second = step(model, **marks)
    for name in ('loss_global', 'loss_dense'):
        assert second[name].abs() < 1e-6 < 1e-4 < first[name]
