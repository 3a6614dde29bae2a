"""What ``exclude`` masks, on a grid; and that it travels with a run."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from mmmoco.engine import checkpoint_io
from mmmoco.engine.bare_model import bare_model
from mmmoco.functional import info_nce, plain_info_nce
from mmmoco.models.dictionaries import InBatch, MemoryBank, Queue

from ..golden import ours, plain

K, N, C = 24, 6, 8
KINDS = [
    *itertools.product((Queue, InBatch), (None, 'image', 'group')),
    *itertools.product((MemoryBank,), (None, 'group')),
]


def unit(n, seed):
    draws = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, C, generator=draws), dim=1)


def numbers(n, seed, most):
    draws = torch.Generator().manual_seed(seed)
    return torch.randint(-1, most, (n,), generator=draws)


def filled(kind, exclude, seed):
    """Return a dictionary, and ids and groups of what it holds."""
    if kind is InBatch:
        return InBatch(exclude=exclude), None, None
    ids, groups = numbers(K, seed, 5), numbers(K, seed + 1, 4)
    if kind is MemoryBank:
        ids = torch.arange(K)
        made = MemoryBank(K, C, num_negatives=K // 2, exclude=exclude)
    else:
        made = Queue(K, C, exclude=exclude)
    made.stage(unit(K, seed), ids, slot=0, groups=groups)
    made.commit()
    return made, ids, groups


def negatives(made, found, k, ids, groups, old_ids, old_groups):
    """Yield, for each query, which keys are its negatives, by the words."""
    if isinstance(made, InBatch):
        old_ids, old_groups = ids, groups
    elif isinstance(made, MemoryBank):
        entries = [int((made.features @ key).argmax()) for key in found.keys.T]
        old_ids, old_groups = old_ids[entries], old_groups[entries]
    image = made.exclude == 'image' or isinstance(made, MemoryBank)
    for i in range(len(k)):
        yield [
            j
            for j in range(found.keys.shape[1])
            if not (isinstance(made, InBatch) and i == j)
            and not (image and ids[i] == old_ids[j] >= 0)
            and not (
                made.exclude == 'group' and groups[i] == old_groups[j] >= 0
            )
        ]


@pytest.mark.parametrize('score', [plain_info_nce, info_nce])
@pytest.mark.parametrize(('kind', 'exclude'), KINDS)
def test_masked_is_info_nce_over_the_rest(kind, exclude, score):
    """Loss and gradients of a masked look-up, against one without a mask."""
    left = 0
    for seed in range(6):
        made, old_ids, old_groups = filled(kind, exclude, 10 * seed)
        q, k = unit(N, seed + 50), unit(N, seed + 60)
        ids, groups = numbers(N, seed, 5), numbers(N, seed + 3, 4)
        if kind is MemoryBank:
            ids = ids.clamp(min=0)
        found = made.lookup(k, ids, groups)
        rows = negatives(made, found, k, ids, groups, old_ids, old_groups)
        q.requires_grad_()
        expected = []
        for i, row in enumerate(rows):
            keys = torch.stack([found.positive_keys[i], *found.keys.T[row]])
            expected.append(-(keys @ q[i] / 0.2).log_softmax(0)[0])
            left += found.keys.shape[1] - len(row)
        expected = torch.stack(expected).mean()
        loss, stats = score(q, found, 0.2)
        torch.testing.assert_close(loss, expected)
        gradients = [torch.autograd.grad(x, q)[0] for x in (loss, expected)]
        torch.testing.assert_close(*gradients)
        if score is info_nce:
            assert all(x is None or x.isfinite() for x in vars(stats).values())
    assert left > 6 * N if exclude else left >= 0


@pytest.mark.parametrize('kind', [Queue, InBatch, MemoryBank])
def test_no_negative_at_all_is_zero_and_said(kind):
    made, *_ = filled(kind, 'group', 0)
    one = torch.zeros(N, dtype=torch.long)
    ids = torch.arange(N)
    if kind is not InBatch:
        zeros = torch.zeros(K, dtype=torch.long)
        made.stage(unit(K, 1), torch.arange(K), slot=1, groups=zeros)
        made.commit()
    found = made.lookup(unit(N, 2), ids, one)
    q = unit(N, 3).requires_grad_()
    loss, stats = info_nce(q, found, 0.2)
    loss.backward()
    assert loss == 0 and q.grad.abs().max() < 1e-6
    assert all(x is None or x.isfinite() for x in vars(stats).values())
    shares = found.excluded()
    assert shares['excluded'] == shares['no_negatives'] == 1
    none = made.lookup(unit(N, 2), ids, one - 1).excluded()
    assert none['no_negatives'] == 0
    assert none['excluded'] == 0 or kind is MemoryBank  # Of the own image.


def test_names_of_the_option():
    old = Queue(K, C, exclude_same_image=True)
    assert old.exclude == 'image'
    assert (
        old.state_dict().keys()
        == Queue(K, C, exclude='image').state_dict().keys()
        == {'keys', 'ptr', 'ids'}
    )
    assert set(Queue(K, C, exclude='group').state_dict()) == {
        'keys',
        'ptr',
        'groups',
    }
    with pytest.raises(ValueError, match='exclude_same_image=True'):
        Queue(K, C, exclude_same_image=True, exclude='group')
    for kind in (Queue, InBatch):
        with pytest.raises(ValueError, match="exclude='patient'.*'group'"):
            kind(*([K, C] if kind is Queue else []), exclude='patient')
    with pytest.raises(ValueError, match="the batch has no 'groups'"):
        InBatch(exclude='group').lookup(unit(2, 0), torch.arange(2))


class Grouped(plain.MoCo):
    """Algorithm 1, with the negatives of each query chosen one by one."""

    def __init__(self, *args):
        super().__init__(*args)
        self.stored = [-1] * K
        self.told, self.seen = iter(GROUPS), 0

    def loss(self, x_q, x_k, ids):
        groups = next(self.told).tolist()
        q, k = plain.unit(self.f(x_q)), self.key(x_k)
        losses = []
        for i, group in enumerate(groups):
            rest = [
                j for j in range(K) if self.stored[j] != group or group == -1
            ]
            keys = torch.cat([k[i, None], self.ring.keys.T[rest]])
            losses.append(-(keys @ q[i] / 0.2).log_softmax(0)[0])
            self.seen += K - len(rest)
        self.new = [*getattr(self, 'new', []), *groups]
        return torch.stack(losses).mean(), k

    def store(self, *keys):
        start = self.ring.ptr
        super().store(*keys)
        for j, group in enumerate(self.new):
            self.stored[(start + j) % K] = group
        self.new = []


GROUPS = [numbers(4, seed, 3) for seed in range(3 * ours.STEPS)]


@pytest.mark.parametrize('accumulation', [1, 3])
def test_a_run_against_algorithm_1_with_chosen_negatives(accumulation):
    model = ours.build(dict(type='Queue', size=K, feat_dim=C, exclude='group'))
    paper = Grouped(ours.encoder(model), ours.SGD, model.dictionary.keys, 0.2)
    wrapper = ours.optim_wrapper(model, accumulation=accumulation)
    wrapper.initialize_count_status(model, 0, accumulation * ours.STEPS)
    told = iter(GROUPS)
    views = ours.batches(ours.STEPS, 4 * accumulation)
    for step, group in enumerate(views.unbind()):
        if step:
            paper.momentum_update(0.9)
        keys, losses = [], []
        parts = group.split(4, dim=1)
        for part in parts:
            loss, k = paper.loss(*map(plain.normalise, part), None)
            losses.append(loss)
            keys.append(k)
        total = torch.stack(losses).mean()
        paper.sgd.step(torch.autograd.grad(total, paper.learnt))
        paper.store(*keys)
        for i, (part, loss) in enumerate(zip(parts, losses, strict=True)):
            model.set_address(0, accumulation * step + i, 0)
            data = {
                'inputs': dict(zip(('view_q', 'view_k'), part, strict=True)),
                'ids': torch.arange(4),
                'groups': next(told),
            }
            log = model.train_step(data, wrapper)
            ours.close([log['loss']], [loss])
        assert wrapper.stepped
        model.update_key_encoder(0.9)
        model.commit_keys()
        ours.close(ours.parameters(*ours.query_parts(model)), paper.parameters)
        ours.check_queue(model, paper.ring)
        assert model.dictionary.groups.tolist() == paper.stored
    assert paper.seen > 20


METHODS = [
    ({}, 'groups'),
    ({'model.symmetric': True}, 'groups'),
    (
        {'model.backbone.norm_cfg': dict(type='mmmoco.SplitBN', num_splits=2)},
        'groups',
    ),
]


@pytest.mark.parametrize(('options', 'buffer'), METHODS)
def test_groups_reach_the_queue_and_survive_a_resume(
    small_config, runner_of, options, buffer
):
    options = {
        **options,
        'model.dictionary.exclude': 'group',
        'model.dictionary.size': 128,
        'train_dataloader.dataset.seed': 3,
    }
    cfg = small_config(**options)
    runner = runner_of(cfg)
    runner.train()
    data = runner.train_dataloader.dataset
    model = bare_model(runner)
    stored = model.dictionary.groups
    known = stored[stored >= 0].tolist()
    assert known and set(known) <= set(data.groups.tolist())
    path = f'{cfg.work_dir}/epoch_1.pth'
    kept = checkpoint_io.read(path)['state_dict'][f'dictionary.{buffer}']
    again = small_config(**options, load_from=path, resume=True)
    again.train_cfg.max_epochs = 1
    resumed = runner_of(again)
    resumed.train()
    assert torch.equal(bare_model(resumed).dictionary.groups, kept)
    hub = runner.message_hub.log_scalars
    assert 0 <= hub['train/excluded'].current() < 0.5
    assert hub['train/no_negatives'].current() == 0
