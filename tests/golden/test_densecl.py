"""DenseCL against a transcription of its paper, and mmpretrain's class."""

import copy
from functools import partial

import pytest
import torch
from mmpretrain.models.selfsup import densecl
from torch import nn

from mmmoco.functional import shuffle_plan

from ..comparison import check
from . import ours, plain
from .ours import EXACT, STEPS, C, batches, optim_wrapper, train_step

K, TAU, LAMBDA = 24, 0.2, 0.3
close = partial(ours.close, bound=EXACT)
QUEUE = dict(type='Queue', size=K, feat_dim=C)
NECK = dict(
    type='mmpretrain.DenseCLNeck',
    in_channels=8,
    hid_channels=8,
    out_channels=C,
)


class Encoder(nn.Module):
    """The map of two convolutions, a head for its mean, one for its cells."""

    def __init__(self, grid=None, **options):
        super().__init__()
        self.body = plain.ConvNet(**options)
        self.head = plain.mlp_head(8, C)
        self.dense = nn.Sequential(
            nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, C, 1)
        )
        self.grid = grid

    def forward(self, x):
        """Vector N×C; lists of cells, N×S×C and N×S×D; their mean N×C."""
        body = self.body
        x = body.norm(body.bn1, body.conv1(x)).relu()
        x = body.norm(body.bn2, body.conv2(x)).relu()
        vector = self.head(x.mean((2, 3)))
        if self.grid:
            side = x.shape[2] // self.grid
            x = nn.functional.avg_pool2d(x, side)
        projected = self.dense(x)
        cells = [each.flatten(2).transpose(1, 2) for each in (projected, x)]
        return vector, *cells, projected.mean((2, 3))


class DenseCL(plain.MoCo):
    """Image by image, as the paper's section 3 says it."""

    lam, start = LAMBDA, 0

    def __init__(self, f, sgd, queue, dense_queue, tau):
        super().__init__(f, sgd, queue, tau)
        self.dense_ring = plain.Ring(dense_queue)

    def keys(self, x):
        with torch.no_grad():
            return self.f_k(x)

    def loss(self, x_q, x_k, ids):
        k, k_cells, k_map, k_mean = self.keys(x_k)
        q, q_cells, q_map, _ = self.f(x_q)
        k, k_mean = plain.unit(k), plain.unit(k_mean)
        one = plain.with_queue(plain.unit(q), k, self.ring.keys, self.tau)
        terms = []
        for n in range(len(x_q)):
            # Cosine of every cell of one map with every cell of the other.
            near = nn.functional.cosine_similarity(
                q_map[n][:, None], k_map[n][None], dim=2
            )
            match = plain.unit(k_cells[n, near.argmax(1)])
            cells, queue = plain.unit(q_cells[n]), self.dense_ring.keys
            terms.append(plain.with_queue(cells, match, queue, self.tau))
        lam = self.lam if self.now >= self.start else 0.0
        dense = torch.stack(terms).mean()
        return (1 - lam) * one + lam * dense, k, k_mean

    def store(self, k, k_mean):
        self.ring.enqueue(k)
        self.dense_ring.enqueue(k_mean)


class Permuted(DenseCL):
    """Keys normalised with other companions than their queries."""

    def keys(self, x):
        order = shuffle_plan(len(x), 0, self.now, x.device).take
        back = order.argsort()
        return [each[back] for each in super().keys(x[order])]


def build(**options):
    options = dict(neck=NECK, loss_lambda=LAMBDA) | options
    return ours.build(QUEUE, 'DenseCL', TAU, **options)


def transcribe(model, kind=DenseCL, **options):
    f = plain.take_weights(
        Encoder(**options), ours.weights(model.backbone, model.neck)
    )
    queues = model.dictionary.keys, model.dense_dictionary.keys
    return kind(f, ours.SGD, *queues, TAU)


def check_queues(model, paper):
    dense = model.dense_dictionary
    assert int(dense.ptr) == paper.dense_ring.ptr
    return max(
        ours.check_queue(model, paper.ring),
        close([dense.keys], [paper.dense_ring.keys]),
    )


def compare(batch=8, kind=DenseCL, start=0, encoder=None, **options):
    model = build(warmup_iters=start, **options)
    paper = transcribe(model, kind, **encoder or {})
    paper.start = start
    seen = []
    for apart in ours.follow(model, paper, batch=batch):
        seen += [apart, check_queues(model, paper)]
    what = f'DenseCL{kind is Permuted and ", split BatchNorm" or ""}'
    return ours.comparison(what, 'its paper in plain torch', seen, bound=EXACT)


def compare_split_batch_norm():
    norm = ours.conv_net('mmmoco.SplitBN', num_splits=4)
    return compare(kind=Permuted, encoder=dict(splits=4), backbone=norm)


def test_steps_with_a_batch_that_wraps_around_in_the_queues():
    check([compare(10)])


def test_lambda_steps_from_zero_to_its_value():
    check([compare(start=3)])


def test_cells_on_a_smaller_grid():
    check([compare(neck={**NECK, 'num_grid': 2}, encoder=dict(grid=2))])


def test_split_batch_norm_and_permuted_keys():
    """All four tensors of a key come back to the order of the queries."""
    check([compare_split_batch_norm()])


def test_accumulation_equals_the_larger_batch():
    """BatchNorm sees the micro-batch: the transcription encodes them apart."""
    model = build()
    paper = transcribe(model)
    wrapper = optim_wrapper(model, accumulation=3)
    wrapper.initialize_count_status(model, 0, 3 * STEPS)
    for step, group in enumerate(batches(STEPS, 12).unbind()):
        if step:
            paper.momentum_update(0.9)
        paper.now, losses, keys = step, [], []
        for views in group.split(4, dim=1):
            loss, *both = paper.loss(*map(plain.normalise, views), None)
            losses.append(loss)
            keys.append(both)
        total = torch.stack(losses).mean()
        paper.sgd.step(torch.autograd.grad(total, paper.learnt))
        for both in keys:
            paper.store(*both)
        for i, views in enumerate(group.split(4, dim=1)):
            log = train_step(model, wrapper, views, 3 * step + i)
            close([log['loss']], [losses[i]])
        close(ours.parameters(*ours.query_parts(model)), paper.parameters)
        check_queues(model, paper)


def their_model(model):
    """mmpretrain's; its ``momentum`` is the weight of the new parameters."""
    theirs = densecl.DenseCL(
        backbone=copy.deepcopy(model.backbone),
        neck=copy.deepcopy(model.neck),
        head=dict(
            type='ContrastiveHead',
            loss=dict(type='CrossEntropyLoss'),
            temperature=TAU,
        ),
        queue_len=K,
        feat_dim=C,
        momentum=1 - model.m,
        loss_lambda=LAMBDA,
    )
    theirs.queue.copy_(model.dictionary.keys)
    theirs.queue2.copy_(model.dense_dictionary.keys)
    return theirs


def compare_mmpretrain():
    model = build()
    theirs = their_model(model)
    assert model.m == 0.9 and theirs.encoder_k.momentum == pytest.approx(0.1)
    learnt = [*theirs.backbone.parameters(), *theirs.neck.parameters()]
    sgd, seen = plain.SGD(learnt, **ours.SGD), []
    wrapper = optim_wrapper(model)
    for step, views in enumerate(batches(STEPS, 8)):
        losses = theirs.loss([*map(plain.normalise, views)], [])
        total = losses['loss_single'] + losses['loss_dense']
        log = train_step(model, wrapper, views, step)
        sgd.step(torch.autograd.grad(total, learnt))
        seen.append(close([log['loss']], [total]))
        seen.append(close(ours.parameters(*ours.query_parts(model)), learnt))
        queues = model.dictionary, model.dense_dictionary
        seen.append(
            close([q.keys for q in queues], [theirs.queue, theirs.queue2])
        )
        assert all(q.ptr == theirs.queue2_ptr for q in queues)
    return ours.comparison('DenseCL', "mmpretrain's class", seen, bound=EXACT)


def test_mmpretrains_class_takes_the_same_steps():
    check([compare_mmpretrain()])


def all_comparisons():
    yield compare(10)
    yield compare_split_batch_norm()
    yield compare_mmpretrain()
