"""Stopped and killed runs equal uninterrupted ones, bit for bit."""

import numpy as np
import pytest
import scenarios
import torch
from PIL import Image
from runs import Faults

ITERATIONS = dict(iterations=True)
COSINE = dict(model__m_schedule='cosine')
ACCUMULATION = dict(optim_wrapper__accumulative_counts=2)
BF16 = dict(optim_wrapper__dtype='bfloat16')
WORKERS = dict(train_dataloader__num_workers=2)
NO_SEED = dict(randomness__seed='None')

KINDS = {
    'epochs': dict(),
    'epochs without a seed': NO_SEED,
    'epochs, workers, accumulation': WORKERS | ACCUMULATION | COSINE,
    'iterations, bfloat16': ITERATIONS | BF16 | COSINE,
    'iterations, workers, accumulation': ITERATIONS | WORKERS | ACCUMULATION,
    'two processes, epochs': dict(processes=2, knn=True)
    | dict(train_cfg__max_epochs=6)
    | ACCUMULATION,
    'two processes, iterations': dict(processes=2)
    | ITERATIONS
    | BF16
    | WORKERS
    | COSINE,
}


def stop(run, iteration, *arguments):
    """Start, and let SIGTERM end it cleanly in an iteration from 0 on."""
    run.start(*arguments, faults=Faults(signal_at=(iteration, 'SIGTERM')))
    assert run.wait() == [0] * run.processes, run.log()[-3000:]
    assert run.marker().is_file()


def interrupted(folder, reference):
    """Stopped in the second epoch, killed in the third."""
    run = scenarios.like(reference, folder)
    stop(run, 5)
    run.start(faults=Faults(signal_at=(8, 'SIGKILL')))
    assert -9 in run.wait(), run.log()[-3000:]
    return run.finish('--resume')


@pytest.mark.slow
@pytest.mark.parametrize(
    'kind',
    [
        pytest.param(k, marks=pytest.mark.dist if 'processes' in v else ())
        for k, v in KINDS.items()
    ],
)
def test_interrupted_equals_uninterrupted(tmp_path, uninterrupted, kind):
    if kind == 'epochs without a seed':
        # Each draws a seed of its own: the first start decides.
        reference = None
        run = scenarios.like(uninterrupted(**NO_SEED), tmp_path / 'run')
        stop(run, 5)
        seed = checkpoint_seed(run)
        run.finish()
        reference = uninterrupted(randomness__seed=seed)
    else:
        reference = uninterrupted(**KINDS[kind])
        run = interrupted(tmp_path / 'run', reference)
        assert run.lost() == [0, 2]  # One save every three iterations.
    assert run.starts > 1 and run.differences(reference) == []
    if run.knn:
        results = [
            (r.work_dir / 'results.jsonl').read_text().split('"metrics"')[1]
            for r in (run, reference)
        ]
        metrics = [text.split('}')[0] for text in results]
        assert metrics[0] == metrics[1]
        # It took the statistics that the checkpoint has, on all processes.
        first, second = (run.states(rank) for rank in range(2))
        for name, value in first.items():
            assert torch.equal(value, second[name]), name


def checkpoint_seed(run):
    from mmmoco.engine import checkpoint_io

    return checkpoint_io.read(run.checkpoints()[0])['meta']['seed']


@pytest.mark.slow
def test_views_of_files_made_by_workers(tmp_path, uninterrupted):
    images = tmp_path / 'images'
    images.mkdir()
    draws = np.random.default_rng(0)
    for i in range(64):
        pixels = draws.integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f'{i:02}.png')
    reference = uninterrupted(images=images, **WORKERS)
    run = interrupted(tmp_path / 'run', reference)
    assert run.differences(reference) == []
    # Without workers the views are the same.
    alone = scenarios.like(reference, tmp_path / 'alone')
    alone.options = {}
    assert alone.finish().differences(reference) == []


@pytest.mark.slow
def test_stopped_at_the_last_iteration_of_an_epoch(tmp_path, uninterrupted):
    """The hooks of the epoch's end come after the resume, once."""
    reference = uninterrupted()
    run = scenarios.like(reference, tmp_path)
    stop(run, 3)
    assert run.done() == 4
    run.finish()
    assert run.differences(reference) == []
    assert 'Continuing epoch 1 after 4 of 4 batches' in run.log()


def test_the_comparison_can_fail(tmp_path, uninterrupted):
    reference = uninterrupted()
    other = scenarios.like(reference, tmp_path)
    other.options = {'randomness.seed': 1}
    found = other.finish().differences(reference)
    assert 'data order or losses of rank 0' in found
    assert 'dictionary.keys of rank 0' in found
    assert 'logged curves' in found
