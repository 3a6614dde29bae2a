"""Which values of 16-bit images become 0 and 255: once, for all of a run.

Training, its k-NN and later evaluations must see the same. So what takes the
place of ``range='auto'``, or is given for the training images, stands in the
config as ``input_range``, and so in the work dir and in every checkpoint.
"""

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmmoco.datasets.transforms.loading import checked_range
from mmmoco.datasets.value_range import measure_range
from mmmoco.engine import checkpoint_io
from mmmoco.messages import log_info
from mmmoco.registry import DATASETS, bare_type, dicts_in

from .adapt import out_dir_of

KEY = 'input_range'

Range = tuple[float, float] | None


def settle_from(cfg: Config, checkpoint: str) -> None:
    """Take the range that a checkpoint was trained with.

    Args:
        cfg: Config to change, if it has ``range='auto'``, or gives a range
            for the training images.
        checkpoint: Of the run.

    Raises:
        ValueError: If it is wanted, and nothing says it.
    """
    given = _given(cfg)
    if not any(_open(cfg)) and not given:
        return
    found = _stored(checkpoint) or given
    if not found:
        raise ValueError(
            f"The config has LoadRGB(range='auto'), but {checkpoint!r} does "
            'not say with which range it was trained: give the two numbers '
            'in the config.'
        )
    _settle(cfg, found[0], f'as {checkpoint} was trained')


def settle_for_training(cfg: Config) -> None:
    """Measure the training images; a resumed run keeps what it began with.

    Args:
        cfg: Complete config of a run, to change if it has ``range='auto'``,
            or gives a range for the training images.

    Raises:
        ValueError: If there is no range.
    """
    if not any(_open(cfg)):
        for value in _given(cfg):
            _settle(cfg, value, 'as for the training images')
        return
    if cfg.get('resume'):
        path = cfg.get('load_from') or checkpoint_io.find_latest(
            cfg.work_dir, out_dir_of(cfg)
        )
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
    """Put a range wherever ``'auto'`` stands, and in k-NN where none does."""
    value = None if found is None else list(found)
    unsaid = [x for x in _loads(cfg.get('knn')) if 'range' not in x]
    for load in (*_open(cfg), *unsaid):
        load['range'] = value
    cfg[KEY] = value
    log_info(f'LoadRGB: range={value}, {origin}.')


def _open(cfg: Config) -> Iterator[dict[str, Any]]:
    """Yield the loads whose range is open."""
    for load in _loads(list(cfg.values())):
        if load.get('range') == 'auto':
            yield load


def _given(cfg: Config) -> list[Range]:
    """Return the range of the training images, if the config gives one."""
    for load in _loads(cfg.get('train_dataloader')):
        value = load.get('range')
        if isinstance(value, list | tuple) and len(value) == 2:
            return [(float(value[0]), float(value[1]))]
    return []


def _loads(node: Any) -> Iterator[dict[str, Any]]:
    """Yield what loads images in a config."""
    return (part for part in dicts_in(node) if bare_type(part) == 'LoadRGB')


def _stored(checkpoint: str) -> list[Range]:
    """Return the range that a checkpoint tells, if it tells one."""
    meta = checkpoint_io.read_meta(checkpoint)
    told = meta if KEY in meta else checkpoint_io.config_in(meta) or {}
    return [checked_range(told[KEY])] if KEY in told else []
