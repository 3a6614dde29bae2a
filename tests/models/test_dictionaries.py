import os

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from mmmoco.engine import checkpoint_io
from mmmoco.engine.bare_model import bare_model
from mmmoco.functional import info_nce
from mmmoco.models.dictionaries import InBatch, MemoryBank, Queue


def keys(n, dim=4, seed=0):
    draws = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, dim, generator=draws), dim=1)


def ids(n, start=0):
    return torch.arange(start, start + n)


def test_starts_with_unit_columns():
    queue = Queue(size=16, feat_dim=4)
    torch.testing.assert_close(queue.keys.norm(dim=0), torch.ones(16))
    assert queue.ptr.tolist() == [0] and queue.ptr.dtype == torch.long


@pytest.mark.parametrize('batch', [1, 3, 7, 10])
def test_any_batch_wraps_around_like_a_list(batch):
    queue = Queue(size=10, feat_dim=4)
    expected, pointer = list(queue.keys.T.clone()), 0
    for step in range(12):
        new = keys(batch, seed=step)
        queue.stage(new, ids(batch), slot=step)
        queue.commit()
        for key in new:
            expected[pointer] = key
            pointer = (pointer + 1) % 10
        assert torch.equal(queue.keys.T, torch.stack(expected))
        assert int(queue.ptr) == pointer


def test_commit_writes_micro_batches_in_order_and_only_once():
    queue = Queue(size=8, feat_dim=4)
    first, second = keys(2, seed=1), keys(3, seed=2)
    queue.stage(first, ids(2), slot=0)
    queue.stage(second, ids(3), slot=1)
    before = queue.keys.clone()
    assert int(queue.ptr) == 0
    queue.commit()
    assert torch.equal(queue.keys[:, :5], torch.cat([first, second]).T)
    assert torch.equal(queue.keys[:, 5:], before[:, 5:])
    queue.commit()
    assert int(queue.ptr) == 5


def test_staging_a_micro_batch_again_replaces_it():
    queue = Queue(size=8, feat_dim=4)
    queue.stage(keys(2, seed=1), ids(2), slot=4)
    queue.stage(keys(2, seed=2), ids(2), slot=4)
    queue.commit()
    assert int(queue.ptr) == 2
    assert torch.equal(queue.keys[:, :2], keys(2, seed=2).T)


def test_discard_forgets():
    queue = Queue(size=8, feat_dim=4)
    before = queue.keys.clone()
    queue.stage(keys(2), ids(2), slot=0)
    queue.discard()
    queue.commit()
    assert torch.equal(queue.keys, before) and int(queue.ptr) == 0


def test_staged_keys_carry_no_gradient():
    queue = Queue(size=8, feat_dim=4)
    queue.stage(keys(2).requires_grad_(), ids(2), slot=0)
    queue.commit()
    assert not queue.keys.requires_grad


def test_more_keys_than_slots_say_what_to_change():
    queue = Queue(size=8, feat_dim=4)
    queue.stage(keys(9), ids(9), slot=0)
    with pytest.raises(ValueError, match=r'9 keys.*only 8.*dictionary\.size'):
        queue.commit()
    with pytest.raises(ValueError, match='16 keys'):
        queue.check(effective_batch=16, num_samples=100)


def test_queue_over_the_data_warns_once_with_the_numbers():
    queue = Queue(size=64, feat_dim=4)
    warning = queue.check(effective_batch=8, num_samples=20)
    assert '64' in warning and '20' in warning and 'negatives' in warning
    assert queue.check(effective_batch=8, num_samples=64) is None
    masked = Queue(size=64, feat_dim=4, exclude_same_image=True)
    assert masked.check(effective_batch=8, num_samples=20) is None


def test_exclude_same_image_masks_exactly_the_own_keys():
    queue = Queue(size=6, feat_dim=4, exclude_same_image=True)
    queue.stage(keys(3), torch.tensor([5, 7, -1]), slot=0)
    queue.commit()
    mask = queue.lookup(keys(4), torch.tensor([7, 5, 9, -1])).mask
    expected = torch.zeros(4, 6, dtype=torch.bool)
    expected[0, 1] = expected[1, 0] = True
    assert torch.equal(mask, expected)  # unknown ids (−1) mask nothing
    plain = Queue(size=6, feat_dim=4)
    assert plain.lookup(keys(2), ids(2)).mask is None


def test_state_dict_restores_the_queue():
    queue, other = Queue(8, 4), Queue(8, 4)
    queue.stage(keys(3), ids(3), slot=0)
    queue.commit()
    assert set(queue.state_dict()) == {'keys', 'ptr'}
    other.load_state_dict(queue.state_dict())
    assert torch.equal(other.keys, queue.keys) and int(other.ptr) == 3


def test_a_bfloat16_queue_rounds_the_keys_and_nothing_else():
    torch.manual_seed(0)
    half = Queue(size=64, feat_dim=32, dtype='bfloat16')
    new, q = keys(64, dim=32), keys(16, dim=32, seed=1)
    half.write(new, ids(64))
    assert half.keys.dtype == torch.bfloat16
    assert torch.equal(half.keys.T, new.bfloat16())
    full = Queue(size=64, feat_dim=32)
    full.write(new.bfloat16().float(), ids(64))
    losses = [
        info_nce(q, queue.lookup(q, ids(16)), 0.2)[0] for queue in (half, full)
    ]
    assert torch.equal(*losses)
    with pytest.raises(ValueError, match='float16'):
        Queue(size=8, feat_dim=4, dtype='float16')


def test_bad_sizes():
    with pytest.raises(ValueError, match='positive'):
        Queue(size=0, feat_dim=4)


def bank(**options):
    cfg = dict(size=12, feat_dim=4, num_negatives=6, momentum=0.25)
    return MemoryBank(**(cfg | options))


def test_bank_answers_with_entries_and_never_with_the_own_one_twice():
    made = bank(num_negatives=12)
    asked = torch.tensor([3, 0, 11])
    hits = 0
    for step in range(20):
        made.set_address(seed=1, step=step)
        found = made.lookup(keys(3), asked)
        assert torch.equal(found.positives, made.features[asked])
        # Every negative is an entry; masked exactly where it is the own one.
        same = (found.keys.T[:, None] == made.features[None]).all(-1)
        drawn = same.float().argmax(1)
        assert same.any(1).all()
        assert torch.equal(found.mask, asked[:, None] == drawn[None])
        hits += int(found.mask.sum())
    assert hits > 20


def test_bank_draws_depend_on_the_address_alone():
    made, other = bank(), bank()
    other.load_state_dict(made.state_dict())
    made.lookup(keys(2), ids(2))
    for each in (made, other):
        each.set_address(seed=4, step=9)
    first, again = (m.lookup(keys(2), ids(2)).keys for m in (made, other))
    assert torch.equal(first, again)
    other.set_address(seed=4, step=10)
    assert not torch.equal(other.lookup(keys(2), ids(2)).keys, first)


def test_bank_moves_by_its_momentum_after_the_step():
    made = bank()
    before = made.features.clone()
    made.stage(keys(2), torch.tensor([7, 2]), slot=0)
    assert torch.equal(made.features, before)
    made.commit()
    mixed = 0.25 * before[[7, 2]] + 0.75 * keys(2)
    expected = mixed / mixed.norm(dim=1, keepdim=True)
    torch.testing.assert_close(made.features[[7, 2]], expected)
    rest = [i for i in range(12) if i not in (2, 7)]
    assert torch.equal(made.features[rest], before[rest])


def test_of_an_image_seen_twice_the_last_query_counts():
    made, alone = bank(), bank()
    alone.load_state_dict(made.state_dict())
    made.stage(keys(2, seed=1), torch.tensor([5, 5]), slot=0)
    made.stage(keys(1, seed=2), torch.tensor([5]), slot=1)
    alone.stage(keys(1, seed=2), torch.tensor([5]), slot=0)
    made.commit()
    alone.commit()
    assert torch.equal(made.features, alone.features)


@pytest.mark.parametrize('wrong', [-1, 12])
def test_bank_names_ids_that_it_does_not_have(wrong):
    made = bank()
    made.check(effective_batch=4, num_samples=11)
    with pytest.raises(ValueError, match=rf'size=12 .*{wrong}.*data set: 11'):
        made.lookup(keys(2), torch.tensor([3, wrong]))


def test_bank_against_the_data_set():
    assert bank().check(effective_batch=4, num_samples=12) is None
    assert bank().check(effective_batch=4, num_samples=0) is None
    warning = bank().check(effective_batch=4, num_samples=10)
    assert '12 entries' in warning and 'only 10 images' in warning
    with pytest.raises(ValueError, match='12 entries.*13 images.*size=13'):
        bank().check(effective_batch=4, num_samples=13)


@pytest.mark.parametrize(
    ('options', 'named'),
    [
        (dict(size=1), 'at least 2'),
        (dict(num_negatives=13), 'within 1 and size=12'),
        (dict(num_negatives=0), 'within 1 and size=12'),
        (dict(momentum=1.0), r'momentum=1\.0'),
    ],
)
def test_bank_options_out_of_range(options, named):
    with pytest.raises(ValueError, match=named):
        bank(**options)


def test_in_batch_numbers_the_own_keys():
    k = keys(3).requires_grad_()
    for key_grad in (False, True):
        found = InBatch(key_grad=key_grad).lookup(k, ids(3))
        assert torch.equal(found.keys, k.T)
        assert found.positive_index.tolist() == [0, 1, 2]
        assert found.keys.requires_grad == key_grad
    made = InBatch()
    made.stage(k, ids(3), slot=0)
    made.commit()
    assert not made.state_dict() and not made._staged


def test_in_batch_needs_negatives():
    with pytest.raises(ValueError, match='has none.*batch_size'):
        InBatch().check(effective_batch=1, num_samples=9)
    assert InBatch().check(effective_batch=2, num_samples=9) is None


def swap(cfg, **dictionary):
    cfg.model.pop('dictionary')
    cfg.model.dictionary = dictionary
    return cfg


BANK = dict(type='MemoryBank', size=64, feat_dim=64, num_negatives=32)


@pytest.mark.parametrize(
    'dictionary', [BANK, dict(type='InBatch', key_grad=True)]
)
def test_a_run_without_a_key_encoder(small_config, runner_of, dictionary):
    runner = runner_of(swap(small_config(), **dictionary))
    runner.train()
    model = bare_model(runner)
    assert model.key_encoder is None
    assert 'train/m' not in runner.message_hub.log_scalars
    path = os.path.join(runner.work_dir, 'epoch_1.pth')
    names = set(checkpoint_io.read(path)['state_dict'])
    assert not any('key_encoder' in name for name in names)
    assert any(n.startswith('dictionary.') for n in names) == (
        dictionary is BANK
    )


def test_bank_below_the_data_set_is_refused_before_training(
    small_config, runner_of
):
    cfg = swap(small_config(), **(BANK | dict(size=63)))
    runner = runner_of(cfg)
    with pytest.raises(ValueError, match='63 entries.*64 images'):
        runner.train()
    assert runner.iter == 0


def test_symmetric_keys_count_twice_against_the_queue(small_config, runner_of):
    cfg = small_config(
        **{'model.symmetric': True, 'model.dictionary.size': 24}
    )
    runner = runner_of(cfg)
    with pytest.raises(ValueError, match='32 keys.*symmetric=True.*only 24'):
        runner.train()
    with pytest.raises(ValueError, match='answers by itself'):
        runner_of(swap(small_config(**{'model.symmetric': True}), **BANK))


def test_a_key_encoder_that_could_learn_is_refused(small_config, runner_of):
    runner = runner_of(small_config())
    bare_model(runner).key_encoder.requires_grad_(True)
    with pytest.raises(RuntimeError, match=r'key_encoder\.backbone'):
        runner.train()
    assert runner.iter == 0


class NumbersAsked(TorchDispatchMode):
    """Counts the numbers that Python asks of tensors."""

    def __init__(self):
        super().__init__()
        self.asked = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.asked += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_a_queue_asks_for_its_pointer_only_when_it_was_moved():
    """Each question would make the host wait for a GPU."""
    queue = Queue(size=7, feat_dim=2)
    ids = torch.full((3,), -1)

    def write(number):
        with NumbersAsked() as found:
            queue.write(torch.full((3, 2), float(number)), ids)
        return found.asked

    assert [write(i) for i in range(5)] == [0] * 5
    assert queue.ptr.tolist() == [15 % 7]
    five = queue.state_dict() | {'ptr': torch.tensor([5])}
    for start, move in (
        (5, lambda: queue.load_state_dict(five)),
        (6, lambda: queue.ptr.fill_(6)),
        (2, lambda: queue.ptr.detach().copy_(torch.tensor([2]))),  # DDP
        ((2 + 6) % 7, lambda: queue._apply(torch.clone)),  # as .to(device)
    ):
        move()
        assert write(9) == 1 and write(10) == 0
        newest = [(start + i) % 7 for i in range(3, 6)]
        assert (queue.keys[:, newest] == 10).all()
        assert queue.ptr.tolist() == [(start + 6) % 7]


def test_the_bank_keeps_the_last_of_equal_ids():
    """As a loop over the rows of the step would, whatever the batch."""
    draws = torch.Generator().manual_seed(0)
    for _ in range(20):
        bank = MemoryBank(9, 4, num_negatives=3, momentum=0.3)
        ids = torch.randint(9, (12,), generator=draws)
        k = F.normalize(torch.randn(12, 4, generator=draws), dim=1)
        expected = bank.features.clone()
        for row, i in enumerate(ids.tolist()):
            old = bank.features[i]
            expected[i] = F.normalize(0.3 * old + 0.7 * k[row], dim=0)
        bank.write(k, ids)
        torch.testing.assert_close(bank.features, expected)
