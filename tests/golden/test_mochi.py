"""Hard negatives against a transcription of MoCHi, query by query."""

import pytest
import torch

from mmmoco.functional import generator

from ..comparison import check
from . import ours, plain

K, N, S, S2 = 24, 9, 7, 5


def synthetic_keys(q, hardest, draws):
    """Equations 5 and 6: those of one query, one after the other."""
    first, second, third, share, own = draws.split([S, S, S2, S, S2])

    def at(x):
        return hardest[int(x * len(hardest))]

    mixed = [
        a * at(i) + (1 - a) * at(j)
        for i, j, a in zip(first, second, share, strict=True)
    ]
    mixed += [
        b / 2 * q + (1 - b / 2) * at(j)
        for j, b in zip(third, own, strict=True)
    ]
    return torch.stack([h / h.norm() for h in mixed])


class MoCHi(plain.MoCo):
    """MoCo with further logits; ``mask`` names keys that are none."""

    mask = None

    def loss(self, x_q, x_k, ids):
        q, k = plain.unit(self.f(x_q)), self.key(x_k)
        return self.score(q, k), k

    def score(self, q, k, look_up=0):
        numbers = 3 * S + 2 * S2
        draws = torch.rand(
            (len(q), numbers),
            generator=generator(0, self.now, 'hard negatives', look_up),
        )
        losses = []
        for i, query in enumerate(q):
            keys = self.ring.keys.T
            if self.mask is not None:
                keys = keys[~self.mask[i]]
            order = (keys @ query.detach()).argsort(descending=True)
            made = synthetic_keys(query.detach(), keys[order[:N]], draws[i])
            all_keys = torch.cat([k[i][None], keys, made])
            logits = all_keys @ query / self.tau
            losses.append(-logits.log_softmax(0)[0])
        return torch.stack(losses).mean()


class Symmetric(MoCHi):
    def loss(self, x_1, x_2, ids):
        q1, q2 = plain.unit(self.f(x_1)), plain.unit(self.f(x_2))
        k2, k1 = self.key(x_2), self.key(x_1)
        return self.score(q1, k2) + self.score(q2, k1, 1), k2, k1


def pair(kind=MoCHi, **options):
    """Our model, and its transcription."""
    hard = dict(type='HardNegatives', n=N, s=S, s2=S2)
    model = ours.build(
        dict(type='Queue', size=K, feat_dim=ours.C),
        loss=dict(type='InfoNCE', temperature=0.2, hard_negatives=hard),
        **options,
    )
    keys = model.dictionary.keys
    return model, kind(ours.encoder(model), ours.SGD, keys, 0.2)


def compare(kind=MoCHi, batch=10, **options):
    model, paper = pair(kind, **options)
    seen = []
    for apart in ours.follow(model, paper, batch=batch):
        seen += [apart, ours.check_queue(model, paper.ring)]
    return ours.comparison(
        'MoCHi, symmetric' if options else 'MoCHi',
        'its two mixtures, query by query',
        seen,
        bound=ours.EXACT,
    )


@pytest.mark.parametrize('pairs', [16, 10**6])  # of queries or numbers
def test_mochi(monkeypatch, pairs):
    from mmmoco.functional import chunked_look_up

    monkeypatch.setitem(chunked_look_up.PAIRS_AT_A_TIME, 'cpu', pairs)
    check([compare(), compare(Symmetric, symmetric=True)])


def test_accumulation_equals_the_larger_batch():
    """Three micro-batches, each with draws of its own, then one step."""
    model, paper = pair()
    wrapper = ours.optim_wrapper(model, accumulation=3)
    wrapper.initialize_count_status(model, 0, 15)
    for step, group in enumerate(ours.batches(5, 12).unbind()):
        if step:
            paper.momentum_update(0.9)
        losses, keys = [], []
        for i, views in enumerate(group.split(4, dim=1)):
            paper.now = 3 * step + i
            loss, k = paper.loss(*map(plain.normalise, views), None)
            log = ours.train_step(model, wrapper, views, paper.now)
            ours.close([log['loss']], [loss], ours.EXACT)
            losses.append(loss)
            keys.append(k)
        total = torch.stack(losses).mean()
        paper.sgd.step(torch.autograd.grad(total, paper.learnt))
        paper.store(*keys)
        learnt = ours.parameters(*ours.query_parts(model))
        ours.close(learnt, paper.parameters, ours.EXACT)
        ours.check_queue(model, paper.ring)


def all_comparisons():
    yield compare()
    yield compare(Symmetric, symmetric=True)
