"""MoCo v1, v2 and the paper's other mechanisms against transcriptions."""

import pytest
import torch

from mmmoco.functional import generator, shuffle_plan

from ..comparison import check
from . import ours, plain

K, TAU = 24, 0.07
QUEUE = dict(type='Queue', size=K, feat_dim=ours.C)


def transcribe(kind, model, tau, *head, **options):
    f = ours.encoder(model, *head, **options)
    return kind(f, ours.SGD, model.dictionary.keys, tau)


class Symmetric(plain.MoCo):
    """Both views query; the keys of the second view are stored first."""

    def loss(self, x_1, x_2, ids):
        q1, q2 = plain.unit(self.f(x_1)), plain.unit(self.f(x_2))
        k2, k1 = self.key(x_2), self.key(x_1)
        first = plain.with_queue(q1, k2, self.ring.keys, self.tau)
        second = plain.with_queue(q2, k1, self.ring.keys, self.tau)
        return first + second, k2, k1


def side_by_side(model, paper, **options):
    """Yield the differences, the queue's among them."""
    for seen in ours.follow(model, paper, **options):
        yield seen
        yield ours.check_queue(model, paper.ring)


PAPER = 'Algorithm 1 of MoCo in plain torch'


def compare_v1(batch):
    model = ours.build(QUEUE, 'MoCoV1', TAU, ours.LINEAR)
    paper = transcribe(plain.MoCo, model, TAU, plain.linear_head)
    seen = side_by_side(model, paper, batch=batch)
    return ours.comparison('MoCo v1', PAPER, seen)


def compare_v2(batch):
    model = ours.build(QUEUE)
    paper = transcribe(plain.MoCo, model, 0.2)
    seen = side_by_side(model, paper, batch=batch)
    return ours.comparison('MoCo v2', PAPER, seen)


def compare_symmetric(batch):
    model = ours.build(QUEUE, symmetric=True)
    paper = transcribe(Symmetric, model, 0.2)
    seen = []
    for step, apart in enumerate(ours.follow(model, paper, batch=batch)):
        seen += [apart, ours.check_queue(model, paper.ring)]
        assert int(model.dictionary.ptr) == (step + 1) * 2 * batch % K
    return ours.comparison('MoCo v2, symmetric', PAPER, seen)


@pytest.mark.parametrize('batch', [8, 10])  # 10 wraps around inside K = 24
@pytest.mark.parametrize(
    'compare', [compare_v1, compare_v2, compare_symmetric]
)
def test_moco(compare, batch):
    check([compare(batch)])


class Permuted(plain.MoCo):
    """Keys normalised with other companions than their queries."""

    def key(self, x):
        order = shuffle_plan(len(x), 0, self.now, x.device).take
        k = torch.empty(len(x), ours.C)
        k[order] = super().key(x[order])
        return k


def compare_split_batch_norm():
    model = ours.build(
        QUEUE, backbone=ours.conv_net('mmmoco.SplitBN', num_splits=4)
    )
    paper = transcribe(Permuted, model, 0.2, splits=4)
    seen = list(side_by_side(model, paper))
    assert paper.now == ours.STEPS - 1
    return ours.comparison('MoCo v2, split BatchNorm', PAPER, seen)


def test_v2_with_split_batch_norm_and_permuted_keys():
    check([compare_split_batch_norm()])


SIZE = 20


class Bank(plain.Run):
    """Positive and negatives are entries; the query moves its own."""

    def __init__(self, model, f):
        super().__init__(f, ours.SGD, key_encoder=False)
        self.bank = model.dictionary.features.clone()

    def loss(self, x_q, _, ids):
        q = plain.unit(self.f(x_q))
        draws = generator(0, self.now, 'negatives')
        drawn = torch.randint(SIZE, (K - 8,), generator=draws).tolist()
        losses = []
        for i, image in enumerate(ids.tolist()):
            others = [j for j in drawn if j != image]
            keys = self.bank[[image, *others]]
            losses.append(-(keys @ q[i] / TAU).log_softmax(0)[0])
        return torch.stack(losses).mean(), q.detach(), ids

    def store(self, q, ids):
        for image, feature in zip(ids.tolist(), q, strict=True):
            entry = 0.4 * self.bank[image] + 0.6 * feature
            self.bank[image] = entry / entry.norm()


def compare_memory_bank():
    model = ours.build(
        dict(
            type='MemoryBank',
            size=SIZE,
            feat_dim=ours.C,
            num_negatives=K - 8,
            momentum=0.4,
        ),
        tau=TAU,
    )
    paper = Bank(model, ours.encoder(model))
    draws = torch.Generator().manual_seed(3)
    ids = [
        torch.randperm(SIZE, generator=draws)[:8] for _ in range(ours.STEPS)
    ]
    before = paper.bank.clone()
    seen = []
    for apart in ours.follow(model, paper, ids):
        bank = ours.close([model.dictionary.features], [paper.bank])
        seen += [apart, bank]
    untouched = list(set(range(SIZE)) - set(torch.cat(ids).tolist()))
    assert torch.equal(paper.bank[untouched], before[untouched])
    assert not any('key_encoder' in n for n in model.state_dict())
    return ours.comparison('memory bank', 'its formulas, entry by entry', seen)


def test_memory_bank():
    check([compare_memory_bank()])


class EndToEnd(plain.Run):
    """One encoder for both views; the gradient flows into the keys."""

    def __init__(self, f):
        super().__init__(f, ours.SGD, key_encoder=False)

    def loss(self, x_q, x_k, ids):
        q, k = plain.unit(self.f(x_q)), plain.unit(self.f(x_k))
        return (plain.in_batch(q, k, TAU),)


def compare_end_to_end():
    model = ours.build(dict(type='InBatch', key_grad=True), tau=TAU)
    paper = EndToEnd(ours.encoder(model))
    seen = list(ours.follow(model, paper))
    assert not any('key_encoder' in n for n in model.state_dict())
    assert model.needs == frozenset()
    return ours.comparison('end to end', PAPER, seen)


def test_end_to_end():
    check([compare_end_to_end()])


def all_comparisons():
    yield from (compare_v1(10), compare_v2(10), compare_symmetric(10))
    yield compare_split_batch_norm()
    yield compare_memory_bank()
    yield compare_end_to_end()
