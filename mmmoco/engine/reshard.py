"""Going on with another number of processes, or another batch."""

from collections.abc import Sequence
from operator import length_hint
from typing import Any

from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner

from mmmoco.private_names import accumulation_of, scale_values, set_iteration


def describe_processes(runner: Runner) -> dict[str, int]:
    """Return how the runner cuts the data into batches."""
    loader = runner.train_dataloader
    return {
        'processes': runner.world_size,
        'batch': loader.batch_size or 0,
        'accumulation': accumulation_of(runner.optim_wrapper),
        'epoch_length': length_hint(loader),  # 0: a stream of unknown length
    }


def fit_sampler(loop: Any) -> None:
    """Let our sampler end where the loop wants it to.

    Raises:
        ValueError: If an epoch-based loop would never end its first epoch.
    """
    sampler = loop.dataloader.sampler
    if not hasattr(sampler, 'infinite'):
        return
    if isinstance(loop, IterBasedTrainLoop):
        # Else the loop begins the loader again and again, and cannot tell
        # where it was when the run is resumed.
        sampler.infinite = True
    elif isinstance(loop, EpochBasedTrainLoop) and sampler.infinite:
        raise ValueError(
            'train_dataloader.sampler.infinite=True has no end, and the '
            'epoch-based loop waits for it: set it to False, or use '
            "train_cfg.type='IterBasedTrainLoop'."
        )


def shown_rates(groups: Sequence[dict[str, Any]]) -> str:
    """Return the learning rates of an optimizer's groups for a message."""
    rates = sorted({group['lr'] for group in groups})
    return ', '.join(f'{rate:g}' for rate in rates)


def reshard(runner: Runner, before: dict[str, int] | None) -> float:
    """Fit a resumed runner to its processes, and say what changes.

    Nothing in a checkpoint belongs to one process: weights, optimizer and
    dictionary are the same on all. What depends on their number is the place
    in the data, and the batch; the schedules follow the place.

    Args:
        runner: Just resumed.
        before: :func:`describe_processes` of the run that saved; None if
            unknown (then nothing is done).

    Returns:
        How many times as large the effective batch is now.
    """
    now = describe_processes(runner)
    if not before or before == now:
        return 1.0
    micro = [d['batch'] * d['processes'] for d in (before, now)]
    effective = [
        size * d['accumulation']
        for size, d in zip(micro, (before, now), strict=True)
    ]
    lines = [
        f'The checkpoint is of {_described(before)}; this run has '
        f'{_described(now)}.',
        f'Effective batch: {effective[0]} before, {effective[1]} now.',
        _learning_rate(runner, *effective),
    ]
    epochs = isinstance(runner.train_loop, EpochBasedTrainLoop)
    if epochs and before['epoch_length'] and now['epoch_length']:
        lines.append(_place(runner, before, now, *micro))
    elif micro[0] != micro[1]:
        lines.append(
            f'The place in the data is that of iteration {runner.iter} of a '
            f'run with the new batch: {runner.iter * micro[1]} samples '
            f'instead of {runner.iter * micro[0]}.'
        )
    lines.append(
        'From here on the run is not the one it would have been: batches are '
        'cut differently, so BatchNorm, ShuffleBN and the draws of each '
        'process differ.'
    )
    runner.logger.warning(' '.join(lines))
    return effective[1] / effective[0]


def _learning_rate(runner: Runner, before: int, now: int) -> str:
    groups = runner.optim_wrapper.optimizer.param_groups
    shown = shown_rates(groups)
    if before == now:
        return f'Learning rate: {shown}, as before.'
    factor = now / before
    scale = runner.auto_scale_lr or {}
    if not scale.get('enable', False):
        return (
            f'Learning rate: stays {shown}, as the checkpoint has it '
            f'(--auto-scale-lr would multiply it by {factor:g}).'
        )
    for group in groups:
        group['lr'] *= factor
        group['initial_lr'] = group.get('initial_lr', 0.0) * factor
    found = runner.param_schedulers
    for scheduler in found if isinstance(found, list) else ():
        if scheduler.param_name == 'lr':
            scale_values(scheduler, factor)
    return f'Learning rate: {shown} multiplied by {factor:g}.'


def _place(
    runner: Runner,
    before: dict[str, int],
    now: dict[str, int],
    old: int,
    new: int,
) -> str:
    """Count the iterations of an epoch-based run in the new unit."""
    loop = runner.train_loop
    lengths = before['epoch_length'], now['epoch_length']
    done = runner.iter - runner.epoch * lengths[0]
    kept = min(done * old // max(new, 1), lengths[1])
    # Not within an accumulation, where no state was saved.
    start = runner.epoch * lengths[1]
    kept = max(kept - (start + kept) % now['accumulation'], 0)
    set_iteration(loop, start + kept)
    text = f'An epoch has {lengths[1]} iterations instead of {lengths[0]}'
    if done:
        text += (
            f'; of this one {done * old} samples were used, and it goes on '
            f'after {kept * new}'
        )
    return f'{text}; iteration {loop.iter} comes next, for the schedules too.'


def _described(facts: dict[str, int]) -> str:
    return (
        f'{facts["processes"]} process(es) x batch {facts["batch"]} x '
        f'accumulation {facts["accumulation"]}'
    )
