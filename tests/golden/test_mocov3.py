"""MoCo v3 and its hybrid with a queue against plain transcriptions."""

import pytest
import torch

from ..comparison import check
from . import ours, plain

K, TAU, HIDDEN = 24, 0.2, 16
NAMES = ('view_1', 'view_2')


def mlp(width, out, layers, last_bn, pool=False):
    return dict(
        type='mmpretrain.NonLinearNeck',
        in_channels=width,
        hid_channels=HIDDEN,
        out_channels=out,
        num_layers=layers,
        with_bias=False,
        with_last_bias=False,
        with_last_bn=last_bn,
        with_last_bn_affine=False,
        with_avg_pool=pool,
        norm_cfg=dict(type='BN1d'),
    )


VIT = dict(
    type='MoCoV3ViT',
    arch=dict(
        embed_dims=16, num_layers=2, num_heads=4, feedforward_channels=32
    ),
    img_size=8,
    patch_size=4,
)


def build(arch, dictionary, **options):
    vit = arch == 'vit'
    model = ours.build(
        dictionary,
        type='MoCoV3',
        backbone=VIT if vit else ours.conv_net(),
        neck=mlp(16 if vit else 8, ours.C, 3 if vit else 2, True, not vit),
        predictor=mlp(ours.C, ours.C, 2, vit),
        loss=dict(type='InfoNCE', temperature=TAU, scale_by_2tau=True),
        **options,
    )
    if vit:
        # The published N(0, 1e-6) stands before a LayerNorm, whose gradient
        # would multiply the rounding errors by a thousand.
        torch.nn.init.normal_(model.backbone.cls_token, std=0.5)
        model.reset_key_encoder()
    return model


class V3(plain.Run):
    """Algorithm 1 of MoCo v3."""

    def __init__(self, model, arch):
        vit = arch == 'vit'
        body = plain.Transformer() if vit else plain.ConvNet()
        width, layers = (16, 3) if vit else (8, 2)
        head = plain.v3_mlp(width, HIDDEN, ours.C, layers, True)
        predictor = plain.v3_mlp(ours.C, HIDDEN, ours.C, 2, vit)
        super().__init__(
            plain.take_weights(
                torch.nn.Sequential(body, head),
                ours.weights(model.backbone, model.neck),
            ),
            ours.SGD | dict(lr=0.003 if vit else 0.03),
            plain.take_weights(predictor, ours.weights(model.predictor)),
        )

    def query(self, x):
        return plain.unit(self.predictor(self.f(x)))

    def loss(self, x_1, x_2, ids):
        q1, q2 = self.query(x_1), self.query(x_2)
        k1, k2 = self.key(x_1), self.key(x_2)
        return (self.ctr(q1, k2) + self.ctr(q2, k1),)

    def ctr(self, q, k):
        return 2 * TAU * plain.in_batch(q, k, TAU)


class Hybrid(V3):
    """Negatives from a queue of the second view's keys."""

    def __init__(self, model, arch):
        super().__init__(model, arch)
        self.ring = plain.Ring(model.dictionary.keys)

    def loss(self, x_1, x_2, ids):
        q1, q2 = self.query(x_1), self.query(x_2)
        k1, k2 = self.key(x_1), self.key(x_2)
        first = plain.with_queue(q1, k2, self.ring.keys, TAU)
        second = plain.with_queue(q2, k1, self.ring.keys, TAU)
        return 2 * TAU * (first + second), k2

    def store(self, k2):
        self.ring.enqueue(k2)


PAPER = 'Algorithm 1 of MoCo v3 in plain torch'


def compare_v3(arch, schedule):
    model = build(arch, dict(type='InBatch'), m_schedule=schedule)
    paper = V3(model, arch)

    def m(step):
        if schedule == 'constant':
            return 0.9
        return plain.cosine_m(0.9, step, ours.STEPS)

    seen = list(ours.follow(model, paper, batch=16, m=m, names=NAMES))
    assert not model.dictionary.state_dict()
    return ours.comparison(f'MoCo v3, {arch}, {schedule} m', PAPER, seen)


@pytest.mark.parametrize('arch', ['resnet', 'vit'])
@pytest.mark.parametrize('schedule', ['constant', 'cosine'])
def test_v3(arch, schedule):
    check([compare_v3(arch, schedule)])


def compare_hybrid(arch, batch):
    queue = dict(type='Queue', size=K, feat_dim=ours.C)
    model = build(arch, queue, m_schedule='constant')
    paper = Hybrid(model, arch)
    seen = []
    steps = ours.follow(model, paper, batch=batch, names=NAMES)
    for step, apart in enumerate(steps):
        seen += [apart, ours.check_queue(model, paper.ring)]
        assert paper.ring.ptr == (step + 1) * batch % K
    return ours.comparison(f'hybrid of v3 and a queue, {arch}', PAPER, seen)


@pytest.mark.parametrize('arch', ['resnet', 'vit'])
@pytest.mark.parametrize('batch', [12, 16])  # 16 wraps around inside K = 24
def test_hybrid_stores_the_second_view_once_a_step(arch, batch):
    check([compare_hybrid(arch, batch)])


def all_comparisons():
    for arch in ('resnet', 'vit'):
        yield compare_v3(arch, 'cosine')
        yield compare_hybrid(arch, 16)


def test_hybrid_with_accumulation_stores_at_the_step():
    queue = dict(type='Queue', size=K, feat_dim=ours.C)
    model = build('resnet', queue)
    wrapper = ours.optim_wrapper(model, accumulation=2)
    filled = []
    for step, views in enumerate(ours.batches(4, 4)):
        ours.train_step(model, wrapper, views, step, names=NAMES)
        filled.append(int(model.dictionary.ptr))
    assert filled == [0, 8, 8, 16]


def test_the_predictor_is_the_query_sides_own():
    model = build('resnet', dict(type='InBatch'))
    names = set(model.state_dict())
    assert any(n.startswith('predictor.') for n in names)
    assert not any('key_encoder.predictor' in n for n in names)
    x = plain.normalise(ours.batches(1, 4)[0, 0])
    projected = model.extract_feat(x, 'neck')
    assert projected.shape == (4, ours.C)
    assert not torch.equal(projected, model.encode_query(x))


@pytest.mark.parametrize(
    'dictionary',
    [
        dict(type='InBatch', key_grad=True),
        dict(type='MemoryBank', size=8, feat_dim=8, num_negatives=4),
    ],
)
def test_a_dictionary_without_a_key_encoder_is_refused(dictionary):
    with pytest.raises(ValueError, match='InBatch or Queue'):
        build('resnet', dictionary)
