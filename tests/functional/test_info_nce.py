import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from mmmoco.functional import (
    Candidates,
    chunked_look_up,
    info_nce,
    plain_info_nce,
)

from ..conftest import since_torch


def unit(*shape, dim):
    return F.normalize(torch.randn(*shape), dim=dim)


def by_hand(q, positives, negatives, tau):
    """Equation 1 of MoCo v1, in loops."""
    total = 0.0
    for i in range(len(q)):
        pos = torch.exp(q[i] @ positives[i] / tau)
        neg = sum(torch.exp(q[i] @ k / tau) for k in negatives)
        total = total - torch.log(pos / (pos + neg))
    return total / len(q)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


SCORES = pytest.mark.parametrize('score', [info_nce, plain_info_nce])


@SCORES
def test_loss_and_gradient_equal_the_equation(score):
    q = unit(5, 4, dim=1).double().requires_grad_()
    k, queue = unit(5, 4, dim=1), unit(4, 7, dim=0)
    loss, _ = score(q.float(), Candidates(keys=queue, positives=k), 0.2)
    expected = by_hand(q, k.double(), queue.T.double(), 0.2)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)
    (a,) = torch.autograd.grad(loss, q, retain_graph=True)
    (b,) = torch.autograd.grad(expected, q)
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@SCORES
def test_positives_among_the_keys_give_the_same_loss(score):
    q, k = unit(4, 3, dim=1), unit(4, 3, dim=1)
    beside = []
    for i in range(4):
        others = torch.cat([k[:i], k[i + 1 :]]).T
        pair = Candidates(keys=others, positives=k[i : i + 1])
        beside.append(score(q[i : i + 1], pair, 0.5)[0])
    among = Candidates(keys=k.T, positive_index=torch.arange(4))
    loss, _ = score(q, among, 0.5)
    torch.testing.assert_close(loss, torch.stack(beside).mean())


@SCORES
def test_masked_keys_do_not_count(score):
    q, k, queue = unit(2, 3, dim=1), unit(2, 3, dim=1), unit(3, 6, dim=0)
    mask = torch.zeros(2, 6, dtype=torch.bool)
    mask[:, 2:] = True
    masked = Candidates(keys=queue, positives=k, mask=mask)
    short = Candidates(keys=queue[:, :2], positives=k)
    for a, b in zip(
        vars(score(q, masked, 0.1)[1]).values(),
        vars(score(q, short, 0.1)[1]).values(),
        strict=True,
    ):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(
        score(q, masked, 0.1)[0], score(q, short, 0.1)[0]
    )


@SCORES
def test_statistics_of_the_look_up(score):
    q = torch.eye(2)
    k = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    queue = torch.tensor([[0.0, 0.0], [1.0, 0.6]])  # columns are keys
    _, stats = score(q, Candidates(keys=queue, positives=k), 0.2)
    assert stats.positive_similarity == pytest.approx(0.9)
    assert stats.negative_similarity == pytest.approx((0 + 0 + 1 + 0.6) / 4)
    assert stats.top1 == pytest.approx(0.5)  # the second finds key 0 first


PRECISIONS = pytest.mark.parametrize('precision', [None, torch.bfloat16])


@PRECISIONS
@pytest.mark.parametrize('place', ['beside', 'among'])
def test_a_collapsed_look_up_finds_nothing(precision, place):
    """All features are one vector, whichever: every key is as similar."""
    for width in (2, 16, 128, 257):
        vectors = unit(50, width, dim=1)
        for vector in (torch.full((width,), width**-0.5), *vectors):
            same = vector.expand(4, width).contiguous()
            keys = vector.expand(9, width).T.contiguous()
            candidates = Candidates(keys=keys, positives=same)
            if place == 'among':
                index = torch.arange(4)
                candidates = Candidates(keys=keys, positive_index=index)
            with torch.autocast('cpu', precision, enabled=bool(precision)):
                _, stats = info_nce(same, candidates, 0.2)
            assert stats.top1 == 0, (width, vector)


@PRECISIONS
def test_a_perfect_look_up_finds_all(precision):
    """Also where a rival is nearly as similar, as far as rounding allows."""
    q = unit(64, 32, dim=1)
    margin = 0.02 if precision else 1e-5
    rivals = F.normalize(q + 0.4 * unit(64, 32, dim=1), dim=1)
    rivals = rivals[(q * rivals).sum(1) < 1 - margin]
    assert len(rivals) > 30
    with torch.autocast('cpu', precision, enabled=bool(precision)):
        _, stats = info_nce(q, Candidates(keys=rivals.T, positives=q), 0.2)
    assert stats.top1 == 1


@since_torch('2.3')
def test_float16_autocast_changes_nothing():
    """Sums of weights could leave its range."""
    q, k, queue = unit(8, 16, dim=1), unit(8, 16, dim=1), unit(16, 32, dim=0)
    candidates = Candidates(keys=queue, positives=k)
    expected, _ = info_nce(q, candidates, 0.07)
    with torch.autocast('cpu', dtype=torch.float16):
        loss, _ = info_nce(q, candidates, 0.07)
    assert torch.equal(loss, expected)


def test_bad_shapes_name_the_mend():
    candidates = Candidates(
        keys=unit(4, 6, dim=0), positives=unit(2, 4, dim=1)
    )
    with pytest.raises(ValueError, match='feat_dim'):
        info_nce(unit(2, 5, dim=1), candidates, 0.2)
    with pytest.raises(ValueError, match='positive'):
        Candidates(keys=unit(4, 6, dim=0))


def exact(q, candidates, tau):
    """The definition in float64."""
    keys, positives, index, mask = vars(candidates).values()
    positives = None if positives is None else positives.double()
    doubles = Candidates(keys.double(), positives, index, mask)
    return plain_info_nce(q.double(), doubles, tau)


def look_up(kind):
    """Candidates of eight queries, and what has a gradient, queries first."""
    q = unit(8, 16, dim=1).requires_grad_()
    k = unit(8, 16, dim=1).requires_grad_()
    keys = unit(16, 37, dim=0).requires_grad_()
    if kind == 'among':
        index = torch.tensor([3, 36, 0, 5, 3, 9, 18, 20])
        return Candidates(keys=keys, positive_index=index), [q, keys]
    mask = torch.rand(8, 37) < 0.3 if kind == 'masked' else None
    return Candidates(keys=keys, positives=k, mask=mask), [q, k, keys]


KINDS = pytest.mark.parametrize('kind', ['beside', 'among', 'masked'])


@pytest.mark.parametrize('tau', [0.01, 0.2, 1.0])
@pytest.mark.parametrize('pairs', [8, 60, 10**6])
@KINDS
def test_chunks_change_neither_loss_nor_gradients(
    monkeypatch, tau, pairs, kind
):
    """One key at a time, some, and all: float64's values to 1e-5."""
    monkeypatch.setitem(chunked_look_up.PAIRS_AT_A_TIME, 'cpu', pairs)
    candidates, leaves = look_up(kind)
    loss, _ = info_nce(leaves[0], candidates, tau)
    expected, _ = exact(leaves[0], candidates, tau)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)
    ours = torch.autograd.grad(3 * loss, leaves)
    theirs = torch.autograd.grad(3 * expected, leaves)
    for a, b in zip(ours, theirs, strict=True):
        # Gradients are of the size of 1 / τ.
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6 / tau)


@pytest.mark.parametrize('tau', [0.07, 0.2])
@KINDS
def test_bfloat16_autocast_rounds_the_factors(tau, kind):
    """Eight bits of mantissa: 2^-9 of a similarity, over τ, in a logit."""
    candidates, leaves = look_up(kind)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss, stats = info_nce(leaves[0], candidates, tau)
    exact, its_stats = info_nce(leaves[0], candidates, tau)
    assert loss.dtype == torch.float32
    assert loss != exact
    assert abs(loss - exact) < 2**-8 / tau
    for a, b in zip(
        vars(stats).values(), vars(its_stats).values(), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=2**-8)
    ours = torch.autograd.grad(loss, leaves)
    theirs = torch.autograd.grad(exact, leaves)
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).norm() < 0.01 * b.norm()


@pytest.mark.parametrize('pairs', [8, 10**6])
def test_chunks_change_no_statistics(monkeypatch, pairs):
    monkeypatch.setitem(chunked_look_up.PAIRS_AT_A_TIME, 'cpu', pairs)
    q, keys = unit(8, 16, dim=1), unit(16, 40, dim=0)
    index = (q @ keys).argmax(1)
    index[2:] = torch.arange(6)  # two found, six at most by chance
    _, stats = info_nce(q, Candidates(keys=keys, positive_index=index), 0.2)
    similarity = q @ keys
    own = similarity[torch.arange(8), index]
    others = similarity.clone()
    others[torch.arange(8), index] = torch.nan
    torch.testing.assert_close(stats.positive_similarity, own.mean())
    torch.testing.assert_close(stats.negative_similarity, others.nanmean())
    found = (others.nan_to_num(-2.0).amax(1) < own).float().mean()
    assert stats.top1 == found >= 0.25


def test_a_query_that_is_not_finite_makes_the_loss_not_finite():
    q, k, keys = unit(4, 8, dim=1), unit(4, 8, dim=1), unit(8, 9, dim=0)
    q[1, 2] = torch.nan
    assert info_nce(q, Candidates(keys=keys, positives=k), 0.2)[0].isnan()


def test_the_look_up_holds_only_a_chunk(monkeypatch):
    """Nothing of the size N×K is allocated."""
    monkeypatch.setitem(chunked_look_up.PAIRS_AT_A_TIME, 'cpu', 2**12)
    q = unit(64, 16, dim=1).requires_grad_()
    keys, k = unit(16, 2**12, dim=0), unit(64, 16, dim=1)

    def of_keys(x):
        return x.untyped_storage().data_ptr() == keys.data_ptr()

    class Largest(TorchDispatchMode):
        size = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and not of_keys(out):
                Largest.size = max(Largest.size, out.numel())
            return out

    with Largest():
        info_nce(q, Candidates(keys=keys, positives=k), 0.2)[0].backward()
    assert Largest.size == 2**12
