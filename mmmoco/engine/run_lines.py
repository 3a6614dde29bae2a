"""What is said of a run before its first iteration: a line for each matter."""

import os
from collections.abc import Iterator, Mapping
from operator import length_hint
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.runner import EpochBasedTrainLoop, Runner

from mmmoco.registry import bare_type, dicts_in, value_at

from .bare_model import bare_model, two_phase_model

#: What watches over a run, by its hook.
_GUARDS = {
    'MonitorHook': 'collapse',
    'DropGuardHook': 'a fall below the start',
    'NonFiniteHook': 'values that are not finite',
    'BadFilesHook': 'unreadable files',
    'PreemptionHook': 'signals to stop',
    'GuardHook': 'batch against data',
    'VerifyPretrainedHook': 'weights that do not fit',
}


def setting_lines(runner: Runner) -> Iterator[str]:
    """Yield the lines about data, model, length and hardware."""
    yield f'Images: {_data(runner)}.'
    yield f'Model: {_model(runner)}.'
    yield f'Run: {_length(runner)}.'
    yield f'Hardware: {_hardware(runner)}.'


def first_lines(runner: Runner) -> Iterator[str]:
    """Yield what is watched, and what the loss means."""
    names = {type(hook).__name__ for hook in runner.hooks}
    watched = [text for name, text in _GUARDS.items() if name in names]
    if watched:
        yield f'Watched: {", ".join(watched)}.'
    chance = chance_of(runner)
    if chance is not None:
        model = two_phase_model(runner)
        filled = model is not None and any(
            d.has_state for d in model.dictionaries
        )
        yield (
            f'Loss: chance is {chance:.2f}, log(K + 1) for K negatives; a '
            'model that learns comes to lie below'
            + (', once the queue is full.' if filled else '.')
        )


def last_lines(runner: Runner) -> Iterator[str]:
    """Yield where the rest stands."""
    place = os.path.join(runner.log_dir, f'{runner.timestamp}.log')
    yield f'Log, with environment and config: {place}'


def chance_of(runner: Runner) -> float | None:
    """Return the loss of a model of ours that tells nothing, if it has one."""
    model, loader = two_phase_model(runner), runner.train_dataloader
    if model is None or loader.batch_size is None:
        return None
    return model.chance(loader.batch_size * runner.world_size)


def _data(runner: Runner) -> str:
    dataset: Any = runner.train_dataloader.dataset
    count = length_hint(dataset)
    text = f'{count:,}' if count else 'a stream'
    cfg = value_at(runner.cfg, 'train_dataloader.dataset') or {}
    roots = [x['data_root'] for x in dicts_in(cfg) if x.get('data_root')]
    kind = type(dataset).__name__
    text += f' of {roots[0]} ({kind})' if roots else f' ({kind})'
    views = [cfg, value_at(runner.cfg, 'model.data_preprocessor')]
    sizes = dict.fromkeys(_sizes(views))
    return f'{text}, crops of {", ".join(sizes)}' if sizes else text


def _sizes(node: Any) -> Iterator[str]:
    """Yield the sizes of all crops, in words."""
    for part in dicts_in(node):
        size = part.get('size')
        if 'ResizedCrop' not in bare_type(part):
            continue
        if isinstance(size, int):
            yield f'{size}×{size}'
        elif isinstance(size, list | tuple):
            yield '×'.join(map(str, size))


def _model(runner: Runner) -> str:
    model = bare_model(runner)
    cfg = runner.cfg.get('model') or {}
    text = bare_type(cfg) or type(model).__name__
    backbone = cfg.get('backbone') or {}
    if isinstance(backbone, Mapping) and backbone:
        said = (
            str(backbone[name])
            for name in ('depth', 'arch', 'model_name')
            if isinstance(backbone.get(name), str | int)
        )
        text += f', {" ".join([bare_type(backbone), *said])}'
    learnt = sum(p.numel() for p in model.parameters() if p.requires_grad)
    text += f', {learnt / 1e6:.2f} M parameters that learn'
    dictionary = getattr(model, 'dictionary', None)
    size = getattr(dictionary, 'size', None)
    if isinstance(size, int):
        text += f', {type(dictionary).__name__} of {size:,} keys'
    return text


def _length(runner: Runner) -> str:
    loop: Any = runner.train_loop
    text = f'{loop.max_iters:,} iterations'
    if isinstance(loop, EpochBasedTrainLoop):
        text += f' in {loop.max_epochs:,} epochs'
    else:
        try:
            epochs = loop.max_iters / max(1, len(loop.dataloader))
            text += f', {epochs:.3g} epochs'
        except TypeError:
            pass  # A stream without end.
    return f'{text}, from {runner.iter:,} on' if runner.iter else text


def _hardware(runner: Runner) -> str:
    parts = []
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    elif get_device() == 'mps':
        parts.append('GPU of Apple')
    else:
        parts.append(f'CPU, {torch.get_num_threads()} thread(s)')
    if runner.world_size > 1:
        parts.append(f'{runner.world_size} processes')
    wrapper: Any = runner.optim_wrapper
    # Ours calls it dtype, mmengine's for mixed precision cast_dtype.
    precision = getattr(wrapper, 'dtype', None)
    precision = precision or getattr(wrapper, 'cast_dtype', None)
    if precision is None and 'Amp' in type(wrapper).__name__:
        precision = torch.float16
    parts.append(str(precision or torch.float32).removeprefix('torch.'))
    loader = runner.train_dataloader
    parts.append(f'{loader.num_workers} data workers')
    if getattr(bare_model(runner), 'channels_last', False):
        parts.append('channels_last')
    return ', '.join(parts)
