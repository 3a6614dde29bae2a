"""Batch, data set and SplitBN held against each other."""

from typing import Any

from torch import nn
from torch.utils.data import DataLoader


def check_loader(
    loader: DataLoader[Any], processes: int, accumulation: int = 1
) -> str | None:
    """Hold a loader's data set against the batch, if both are known.

    The runner asks too, before it builds the schedules.

    Args:
        loader: Of the training.
        processes: Of the run.
        accumulation: Micro-batches of one optimizer step.

    Returns:
        A warning for the log, or None.

    Raises:
        ValueError: If an epoch would have no iteration.
    """
    if loader.batch_size is None:
        return None  # A batch sampler of its own.
    endless = getattr(loader.sampler, 'infinite', False)
    _check_shards(loader, processes, loader.drop_last or endless)
    try:
        samples = len(loader.dataset)  # type: ignore[arg-type]
    except TypeError:
        return None  # A stream; its length is unknown.
    return check_samples(
        samples,
        loader.batch_size,
        processes,
        accumulation,
        drop_last=loader.drop_last and not endless,
    )


def _check_shards(
    loader: DataLoader[Any], processes: int, whole_batches: bool
) -> None:
    """See that every lane of a stream has a shard, and whole batches.

    Args:
        loader: Of the training.
        processes: Of the run.
        whole_batches: Whether all batches are of one size.

    Raises:
        ValueError: Naming the numbers.
    """
    dataset: Any = loader.dataset
    if not getattr(dataset, 'is_stream', False):
        return
    lanes = dataset.lanes or max(1, loader.num_workers)
    if dataset.num_shards < processes * lanes:
        most = dataset.num_shards // processes
        mend = (
            f'Lower train_dataloader.num_workers (or dataset.lanes) to at '
            f'most {most}'
            if most
            else f'Use at most {dataset.num_shards} processes'
        )
        raise ValueError(
            f'The data set has {dataset.num_shards} shards, less than '
            f'{processes * lanes} = {processes} process(es) x {lanes} '
            'workers (lanes): some would have nothing to read. '
            f'{mend}, or write more shards (mmmoco shards '
            '--samples-per-shard).'
        )
    if not whole_batches:
        raise ValueError(
            f'{type(dataset).__name__} needs train_dataloader.drop_last='
            'True: its order is counted in whole batches.'
        )


def check_samples(
    samples: int,
    batch: int,
    processes: int,
    accumulation: int,
    drop_last: bool,
) -> str | None:
    """Hold the length of the data set against the effective batch.

    Args:
        samples: Length of the data set.
        batch: Per process.
        processes: Of the run.
        accumulation: Micro-batches of one optimizer step.
        drop_last: Whether an incomplete batch is left out.

    Returns:
        A warning for the log, or None.

    Raises:
        ValueError: If an epoch would have no iteration.
    """
    share = -(-samples // processes)
    if drop_last and share < batch:
        raise ValueError(
            f'The data set has {samples} images, {share} for each of '
            f'{processes} process(es), less than one batch of {batch}: with '
            'drop_last an epoch has no iteration. Lower '
            f'train_dataloader.batch_size to at most {share}, or add images.'
        )
    effective = batch * processes * accumulation
    if samples < effective:
        return (
            f'The data set has {samples} images, less than one effective '
            f'batch of {effective} ({batch} per process x {processes} '
            f'processes x {accumulation} accumulation): images occur '
            'repeatedly in one optimizer step, and are then counted as '
            'negatives of themselves.'
        )
    return None


def check_splits(model: nn.Module, batch: int) -> None:
    """See that every SplitBN can split a batch.

    Args:
        model: Any module.
        batch: Per process.

    Raises:
        ValueError: Naming both numbers.
    """
    for name, module in model.named_modules():
        splits = getattr(module, 'num_splits', 1)
        if batch % splits:
            raise ValueError(
                f'{name} is a SplitBN with num_splits={splits}, which does '
                f'not divide the batch of {batch} per process. Set '
                'train_dataloader.batch_size to a multiple of '
                f'{splits}, or num_splits to a divisor of {batch}.'
            )
