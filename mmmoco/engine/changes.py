"""What differs between a run and the checkpoint that it goes on from."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.runner import Runner

from mmmoco.convert.openmmlab_config import RUNNER_FIELDS
from mmmoco.messages import clipped, few
from mmmoco.registry import leaves, value_at

#: What mmengine and mmmoco read of a config; its other names are for itself.
READ = RUNNER_FIELDS | {
    'activation_checkpointing',
    'allow_partial',
    'auto_scale_m',
    'compile',
    'device_views',
    'efficient_conv_bn_eval',
    'evaluations',
    'input_range',
    'knn',
    'multiband',
    'runner_type',
    'schedule',
    'tta_model',
    'tta_pipeline',
    'view_size',
}
#: Settings of a config that do not change what is learnt, or of which others
#: tell: optimizer and seed below, the schedules when they are moved.
_ELSEWHERE = (
    'auto_scale_m',
    'default_hooks.logger',
    'env_cfg',
    'evaluations',
    'experiment_name',
    'initialization',
    'launcher',
    'load_from',
    'log_level',
    'log_processor',
    'optim_wrapper.optimizer',
    'overwrite',
    'param_scheduler',
    'randomness',
    'resume',
    'schedule',
    'train_dataloader.num_workers',
    'train_dataloader.persistent_workers',
    'visualizer',
    'vis_backends',
    'work_dir',
)
#: More names than these are hashed in part: every second, third, ….
_NAMES = 1_000_000
_MOST = 8


def describe_run(runner: Runner) -> dict[str, Any]:
    """Return what a resume compares, as plain data for the checkpoint."""
    return {
        'config': Path(runner.cfg.filename or '').stem,
        'options': _read(
            {p: repr(v)[:200] for p, v in leaves(runner.cfg.to_dict())}
        ),
        'data': describe_data(runner.train_dataloader.dataset),
    }


def describe_data(dataset: Any) -> dict[str, Any]:
    """Return number and hash of the names of a data set's files."""
    try:
        number = len(dataset)
    except TypeError:
        number = None
    paths = getattr(dataset, 'paths', None)
    shards = getattr(dataset, 'num_shards', None)
    return {
        'samples': number,
        'names': hash_of_names(paths) if paths else None,
        'shards': shards if isinstance(shards, int) else None,
    }


def hash_of_names(paths: Sequence[str]) -> str:
    """Hash paths below their common folder, so that it may be moved."""
    ends = [os.path.dirname(path) for path in (min(paths), max(paths))]
    root = 0
    if all(map(os.path.isabs, ends)):
        root = len(os.path.commonpath(ends).rstrip('/'))
    digest = hashlib.blake2b(digest_size=8)
    step = -(-len(paths) // _NAMES)
    for start in range(0, len(paths), step * 4096):
        chunk = paths[start : start + step * 4096 : step]
        text = '\0'.join(path[root:] for path in chunk)
        digest.update(text.encode(errors='surrogateescape'))
    return digest.hexdigest()


def settings_of(groups: Sequence[dict[str, Any]]) -> dict[str, set[Any]]:
    """Return the settings of an optimizer over all its groups."""
    found: dict[str, set[Any]] = {}
    for group in groups:
        for name, value in group.items():
            if f'initial_{name}' in group or name == 'params':
                continue  # A schedule moves it.
            name = name.removeprefix('initial_')
            if isinstance(value, int | float | str | tuple):
                found.setdefault(name, set()).add(value)
    return found


def changes(
    runner: Runner,
    meta: dict[str, Any],
    configured: dict[str, set[Any]],
    now: dict[str, Any],
) -> list[str]:
    """Say what is not as it was when the checkpoint was saved.

    Args:
        runner: Just resumed.
        meta: Of the checkpoint; not trusted.
        configured: :func:`settings_of` the optimizer before it was resumed.
        now: :func:`describe_run` of the runner.

    Returns:
        Sentences that name both values and which of them counts.
    """
    stored = meta.get('run')
    before: dict[str, Any] = stored if isinstance(stored, dict) else {}
    said = []
    if isinstance(before.get('config'), str):
        pair = before['config'][:200], now['config']
        if pair[0] != pair[1]:
            said.append(f'It is of the config {pair[0]!r}, not {pair[1]!r}.')
    loaded = settings_of(runner.optim_wrapper.param_groups)
    settings = [
        f'{name} {_shown(configured[name])} in the config, '
        f'{_shown(loaded[name])} in the checkpoint'
        for name in sorted(configured.keys() & loaded.keys())
        if _shown(configured[name], '.9g') != _shown(loaded[name], '.9g')
    ]
    seed = value_at(runner.cfg, 'randomness.seed')
    if seed is not None and meta.get('seed') not in (None, seed):
        settings.append(
            f'seed {seed} in the config, {str(meta["seed"])[:40]} in the '
            'checkpoint'
        )
    if settings:
        said.append(
            f'{_few(settings)}: those of the checkpoint count (--load-from '
            'would start with those of the config).'
        )
    options = _changed(_read(before.get('options')), now['options'])
    if options:
        said.append(
            f'Changed in the config: {_few(options)}; what it has now counts.'
        )
    data = _changed(before.get('data'), now['data'])
    if data:
        said.append(
            f'The data are others: {_few(data)}; the order of the samples is '
            'another from here on.'
        )
    return said


def _read(options: Any) -> Any:
    """Leave out the names that a config has for itself, and other ones."""
    if not isinstance(options, dict):
        return None
    return {
        name: value
        for name, value in options.items()
        if str(name).split('.')[0] in READ and not _elsewhere(str(name))
    }


def _elsewhere(place: str) -> bool:
    if place.endswith('.in_channels'):
        # The backbone decides the widths behind it, written out or not.
        return place != 'model.backbone.in_channels'
    return any(place == p or place.startswith(f'{p}.') for p in _ELSEWHERE)


def _changed(before: Any, now: dict[str, Any]) -> list[str]:
    if not isinstance(before, dict):
        return []
    names = [*now, *(name for name in before if name not in now)]
    return [
        f'{str(name)[:80]} {clipped(str(old), 60)} before, '
        f'{clipped(str(new), 60)} now'
        for name in names
        if (old := before.get(name, 'absent'))
        != (new := now.get(name, 'absent'))
    ]


def _shown(values: set[Any], form: str = 'g') -> str:
    texts = (f'{v:{form}}' if isinstance(v, float) else str(v) for v in values)
    return ', '.join(sorted(texts))


def _few(items: list[str]) -> str:
    return few(items, _MOST, '; ')
