import pytest
import torch
import torch.nn.functional as F

from mmmoco.models.dictionaries import Queue


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


def test_bad_sizes():
    with pytest.raises(ValueError, match='positive'):
        Queue(size=0, feat_dim=4)
