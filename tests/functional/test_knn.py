import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestNeighbors

from mmmoco.evaluation.knn import knn_accuracy, knn_metrics
from mmmoco.functional import nearest, vote
from mmmoco.older_versions import autocasts_to

from ..comparison import Comparison, check
from ..conftest import optional

BACKENDS = ('torch', 'faiss')


def random_features(m=300, n=50, c=16):
    draws = torch.Generator().manual_seed(0)
    return (
        torch.randn(m, c, generator=draws),
        torch.randn(n, c, generator=draws),
        torch.randint(0, 7, (m,), generator=draws),
    )


def of_sklearn(bank, queries, k):
    """Distances and neighbours of unit vectors."""
    unit, asked = (
        x / np.linalg.norm(x, axis=1, keepdims=True)
        for x in (bank.numpy().astype(float), queries.numpy().astype(float))
    )
    theirs = NearestNeighbors(n_neighbors=k, algorithm='brute').fit(unit)
    return theirs.kneighbors(asked)


def test_neighbours_and_votes_equal_those_of_scikit_learn():
    bank, queries, labels = random_features()
    neighbours = nearest(bank, queries, 9)
    votes, found = vote(neighbours, labels, 7), neighbours.indices
    distance, expected = of_sklearn(bank, queries, 9)
    np.testing.assert_array_equal(found.numpy(), expected)

    # Unit vectors: similarity = 1 − distance² / 2.
    weight = np.exp((1 - distance**2 / 2) / 0.07)
    table = np.zeros((50, 7))
    for row in range(50):
        for i, w in zip(expected[row], weight[row], strict=True):
            table[row, labels[i]] += w
    np.testing.assert_array_equal(votes.argmax(1).numpy(), table.argmax(1))
    np.testing.assert_allclose(
        votes / votes.sum(1, keepdim=True),
        table / table.sum(1, keepdims=True),
        rtol=1e-3,
    )


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize(('rows', 'query_rows'), [(64, 7), (300, 50), (1, 1)])
def test_chunks_change_nothing(backend, rows, query_rows):
    if backend == 'faiss':
        optional('faiss')
    bank, queries, _ = random_features()
    found = nearest(
        bank, queries, 20, backend=backend, rows=rows, query_rows=query_rows
    )
    distance, expected = of_sklearn(bank, queries, 20)
    np.testing.assert_array_equal(found.indices.numpy(), expected)
    np.testing.assert_allclose(
        found.similarity, 1 - distance**2 / 2, atol=1e-6
    )


@pytest.mark.parametrize('backend', BACKENDS)
def test_real_features(backend):
    """Pixels of scanned digits: skewed, correlated, with near ties."""
    if backend == 'faiss':
        optional('faiss')
    x = torch.from_numpy(load_digits().data)
    bank, queries = x[:1500], x[1500:]
    found = nearest(bank, queries, 200, backend=backend, rows=400)
    # One more than asked for: the last may tie with the next.
    distance, expected = of_sklearn(bank, queries, 201)
    np.testing.assert_allclose(
        found.similarity, 1 - distance[:, :-1] ** 2 / 2, atol=2e-6
    )
    # Neighbours may only differ where two are equally near.
    unequal = found.indices.numpy() != expected[:, :-1]
    tied = np.diff(distance, axis=1) < 1e-5  # with the next
    tied[:, 1:] |= tied[:, :-1].copy()
    assert not (unequal & ~tied).any()


def test_several_k_of_one_search():
    bank, queries, labels = random_features()
    truth = torch.randint(0, 7, (50,), generator=torch.Generator())
    found = nearest(bank, queries, 100)
    metrics = knn_metrics(found, labels, truth, (10, 20, 100))
    for k in (10, 20, 100):
        alone = knn_accuracy(bank, labels, queries, truth, k=k).metrics
        assert metrics[k] == pytest.approx(alone)
    assert len({m['top5'] for m in metrics.values()}) > 1


def test_half_features_accumulate_in_float32():
    """Sums of 4096 products, which half precision could not hold."""
    optional('faiss')
    draws = torch.Generator().manual_seed(1)
    bank = torch.randn(200, 4096, generator=draws).half() + 1
    queries = torch.randn(30, 4096, generator=draws).half() + 1
    for backend in BACKENDS:
        found = nearest(bank, queries, 10, backend=backend)
        assert found.similarity.dtype == torch.float32
        distance, expected = of_sklearn(bank, queries, 10)
        np.testing.assert_array_equal(found.indices.numpy(), expected)
        np.testing.assert_allclose(
            found.similarity, 1 - distance**2 / 2, atol=1e-6
        )


def test_multi_label_votes_are_weighted_shares():
    bank = torch.eye(3)
    labels = torch.tensor([[1, 1, 0], [0, 1, 0], [0, 0, 1]])
    query = torch.tensor([[1.0, 0.5, 0.0]])
    found = nearest(bank, query, 2)
    near, far = found.similarity[0].tolist()
    weight = np.exp((far - near) / 0.5)
    expected = [1 / (1 + weight), 1.0, 0.0]
    np.testing.assert_allclose(
        vote(found, labels, 3, 0.5)[0], expected, rtol=1e-5
    )


def test_accuracy_counts_top1_and_top5():
    bank = torch.eye(6)
    labels = torch.arange(6)
    queries = torch.eye(6)[:4] + 0.1 * torch.eye(6)[[1, 2, 3, 4]]
    truth = torch.tensor([0, 1, 3, 5])  # 3 is second choice, 5 is never
    result = knn_accuracy(bank, labels, queries, truth, k=2)
    assert result.metrics['top1'] == pytest.approx(50.0)
    assert result.predictions.tolist() == [0, 1, 2, 3]
    assert result.neighbours[:, 0].tolist() == [0, 1, 2, 3]
    assert result.metrics['top5'] >= 75.0


def transcribed(bank, labels, queries, truth, k, temperature):
    """Votes of k neighbours, query by query, in double precision.

    A class that no neighbour has is no answer; of equal votes, the class
    with the lower number comes first.
    """
    unit = bank / bank.norm(dim=1, keepdim=True)
    top1 = top5 = 0
    for query, right in zip(queries, truth.tolist(), strict=True):
        cosine = unit @ (query / query.norm())
        near = cosine.argsort(descending=True)[:k]
        votes = {}
        for i in near.tolist():
            weight = float(((cosine[i] - cosine[near[0]]) / temperature).exp())
            name = int(labels[i])
            votes[name] = votes.get(name, 0.0) + weight
        ranked = sorted(votes, key=lambda name: (-votes[name], name))
        top1 += ranked[0] == right
        top5 += right in ranked[:5]
    return {'top1': 100 * top1 / len(truth), 'top5': 100 * top5 / len(truth)}


def compare_figures(backend, temperature):
    """Many classes and few neighbours: most classes get no vote."""
    draws = torch.Generator().manual_seed(3)
    bank = torch.randn(120, 6, generator=draws, dtype=torch.double)
    queries = torch.randn(60, 6, generator=draws, dtype=torch.double)
    ks, worst = (1, 2, 3, 5, 40), {'top1': 0.0, 'top5': 0.0}
    for classes in (3, 12, 90):
        labels = torch.randint(0, classes, (120,), generator=draws)
        truth = torch.randint(0, classes, (60,), generator=draws)
        for rows in (120, 17):
            found = nearest(
                bank.float(), queries.float(), 40, backend=backend, rows=rows
            )
            metrics = knn_metrics(found, labels, truth, ks, temperature)
            for k in ks:
                expected = transcribed(
                    bank, labels, queries, truth, k, temperature
                )
                assert metrics[k].keys() == expected.keys()
                for name, value in expected.items():
                    apart = abs(metrics[k][name] - value)
                    worst[name] = max(worst[name], apart)
    for name, apart in worst.items():
        yield Comparison(
            f'k-NN, {name[:3]}-{name[3:]}, {backend}, T={temperature}',
            'a transcription in double precision',
            apart,
            1e-4,
            'points',
            f'k = {", ".join(map(str, ks))}; 3, 12, 90 classes',
        )


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('temperature', [0.07, 1.0, 0.02])
def test_figures_equal_their_transcription(backend, temperature):
    if backend == 'faiss':
        optional('faiss')
    check(compare_figures(backend, temperature))


def all_comparisons():
    for backend in BACKENDS:
        for temperature in (0.07, 1.0):
            yield from compare_figures(backend, temperature)


def test_one_neighbour_gives_one_answer():
    bank, queries, _ = random_features()
    labels = torch.arange(300) % 10
    truth = torch.arange(50) % 10
    metrics = knn_accuracy(bank, labels, queries, truth, k=1).metrics
    assert metrics['top1'] == metrics['top5'] < 50


@pytest.mark.parametrize('temperature', [0.07, 1e-4])
def test_equal_votes_and_votes_of_nothing(temperature):
    """Ties go to the lower number; the weakest vote is still one."""
    bank = torch.tensor([[1.0, 0], [1, 0], [1, 0], [-1, 0]])
    labels = torch.tensor([5, 2, 7, 0])
    queries = torch.tensor([[1.0, 0]]).expand(9, 2)
    truth = torch.arange(9)
    found = nearest(bank, queries, 4, backend='torch')
    votes = vote(found, labels, 9, temperature)
    assert votes.gt(0).nonzero()[:, 1].unique().tolist() == [0, 2, 5, 7]
    assert votes.argmax(1).unique().tolist() == [2]
    metrics = knn_metrics(found, labels, truth, [4], temperature)[4]
    assert metrics['top1'] == pytest.approx(100 / 9)
    assert metrics['top5'] == pytest.approx(400 / 9)


def test_products_are_exact_whatever_was_chosen(monkeypatch):
    """TF32 and autocast are for the training, not for neighbours."""
    seen = []
    original = torch.mm

    def mm(*args, **kwargs):
        seen.append(
            (
                torch.get_float32_matmul_precision(),
                torch.backends.cuda.matmul.allow_tf32,
                autocasts_to(torch.bfloat16, 'cpu'),
            )
        )
        return original(*args, **kwargs)

    monkeypatch.setattr(torch, 'mm', mm)
    bank, queries, _ = random_features()
    plain = nearest(bank, queries, 3, backend='torch')
    torch.set_float32_matmul_precision('high')
    try:
        with torch.autocast('cpu', torch.bfloat16):
            found = nearest(bank, queries, 3, backend='torch')
        assert torch.get_float32_matmul_precision() == 'high'
    finally:
        torch.set_float32_matmul_precision('highest')
    assert set(seen) == {('highest', False, False)}
    assert torch.equal(found.similarity, plain.similarity)


def test_no_overflow_at_a_small_temperature():
    bank = torch.eye(4)
    votes = vote(nearest(bank, bank, 4), torch.arange(4), 4, 1e-3)
    assert torch.isfinite(votes).all()
    assert votes.argmax(1).tolist() == [0, 1, 2, 3]


def test_bad_input_names_values():
    eye, labels = torch.eye(4), torch.arange(4)
    with pytest.raises(ValueError, match='between 1 and 4'):
        nearest(eye, eye, 5)
    with pytest.raises(ValueError, match='labels'):
        knn_accuracy(eye, labels[:3], eye, labels, k=1)
    with pytest.raises(ValueError, match='4 numbers, the queries of 3'):
        nearest(eye, eye[:, :3], 1)
    with pytest.raises(ValueError, match="'annoy'"):
        nearest(eye, eye, 1, backend='annoy')


MAPPED = """
import resource, sys, ctypes
import numpy as np, torch
from mmmoco.functional import nearest
path, rows = sys.argv[1], int(sys.argv[2])
bank = torch.from_numpy(np.memmap(path, np.float32, 'r+', shape=(rows, 256)))
torch.manual_seed(0)
queries = bank[:: rows // 40][:40].clone()
nearest(bank[:64], queries, 1, backend='torch')
def private():
    # Pages of the file can be dropped at any time; these cannot.
    rows = open('/proc/self/status').read().splitlines()
    return int(next(r for r in rows if r.startswith('RssAnon')).split()[1])
import threading, time
peak, stop = [private()], threading.Event()
start = peak[0]
def watch():
    while not stop.is_set():
        peak.append(private()); time.sleep(0.001)
thread = threading.Thread(target=watch); thread.start()
found = nearest(bank, queries, 3, backend='torch', rows=2048)
stop.set(); thread.join()
expected = torch.arange(0, rows, rows // 40)[:40]
assert torch.equal(found.indices[:, 0], expected), found.indices[:5]
print((max(peak) - start) / 1024)
"""


@pytest.mark.slow
def test_memory_mapped_bank_is_not_copied(tmp_path):
    """256 MiB on disk; the peak beside it is a few chunks of 2 MiB."""
    rows = 2**18
    path = tmp_path / 'bank.npy'
    bank = np.memmap(path, np.float32, 'w+', shape=(rows, 256))
    draws = np.random.default_rng(0)
    for start in range(0, rows, 2**15):
        block = draws.standard_normal((2**15, 256), dtype=np.float32)
        bank[start : start + 2**15] = block
    bank.flush()
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, '-c', MAPPED, str(path), str(rows)],
        capture_output=True,
        text=True,
        env=os.environ | {'OMP_NUM_THREADS': '1', 'PYTHONPATH': root},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    grown = float(done.stdout.split()[-1])
    assert 0 < grown < 32, grown


def test_memory_mapped_bank_is_not_changed(tmp_path):
    bank, queries, _ = random_features()
    path = tmp_path / 'bank.npy'
    np.save(path, bank.numpy())
    mapped = torch.from_numpy(np.load(path, mmap_mode='r+'))
    found = nearest(mapped, queries, 5, rows=32)
    assert torch.equal(found.indices, nearest(bank, queries, 5).indices)
    np.testing.assert_array_equal(np.load(path), bank.numpy())
