"""``range='auto'`` of a config: measured once, the same wherever it is used.

What takes its place stands in the config as ``input_range``, and so in the
config file of the work dir and in every checkpoint.
"""

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import DefaultScope

from mmmoco.convert.config_text import read_config_text
from mmmoco.datasets.value_range import measure_range
from mmmoco.engine import checkpoint_io
from mmmoco.registry import DATASETS

KEY = 'input_range'

Range = tuple[float, float] | None


def settle_from(cfg: Config, checkpoint: str) -> None:
    """Take the range that a checkpoint was trained with.

    Args:
        cfg: Config to change, if it has ``range='auto'``.
        checkpoint: Of the run.

    Raises:
        ValueError: If it does not say.
    """
    if not any(_open(cfg._cfg_dict)):
        return
    stored = _stored(checkpoint)
    if not stored:
        raise ValueError(
            f"The config has LoadRGB(range='auto'), but {checkpoint!r} does "
            'not say with which range it was trained: give the two numbers '
            'in the config.'
        )
    _settle(cfg, stored[0], f'as {checkpoint} was trained')


def settle_for_training(cfg: Config) -> None:
    """Measure the training images; a resumed run keeps what it began with.

    Args:
        cfg: Complete config of a run, to change if it has ``range='auto'``.

    Raises:
        ValueError: If there is no range.
    """
    if not any(_open(cfg._cfg_dict)):
        return
    if cfg.get('resume'):
        path = cfg.get('load_from') or checkpoint_io.find_latest(cfg.work_dir)
        stored = _stored(path) if path else []
        if stored:
            _settle(cfg, stored[0], f'as {path} was trained')
            return
    settings = cfg.train_dataloader.dataset.to_dict()
    settings['pipeline'] = []
    with DefaultScope.overwrite_default_scope('mmmoco'):
        dataset = DATASETS.build(settings)
    _settle(cfg, measure_range(dataset), 'measured on the training images')


def _settle(cfg: Config, found: Range, origin: str) -> None:
    """Put a range wherever ``'auto'`` stands."""
    value = None if found is None else list(found)
    for load in _open(cfg._cfg_dict):
        load['range'] = value
    cfg[KEY] = value
    print_log(f"range='auto' is {value}, {origin}.", logger='current')


def _open(node: Any) -> Iterator[dict[str, Any]]:
    """Yield the loads of a config whose range is open."""
    if isinstance(node, dict):
        kind = str(node.get('type')).rpartition('.')[2]
        if kind == 'LoadRGB' and node.get('range') == 'auto':
            yield node
        for value in node.values():
            yield from _open(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _open(value)


def _stored(checkpoint: str) -> list[Range]:
    """Return the range that a checkpoint tells, if it tells one."""
    meta = checkpoint_io.read(checkpoint).get('meta') or {}
    if KEY not in meta and isinstance(meta.get('cfg'), str):
        meta = read_config_text(meta['cfg'])
    if KEY not in meta:
        return []
    value = meta[KEY]
    return [None if value is None else (float(value[0]), float(value[1]))]
