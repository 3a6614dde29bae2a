"""What was measured on a checkpoint, from the results beside it."""

import math
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from mmmoco.engine.results import file_hash, read_results

from .export_backbone import Source

#: What tells evaluations of one kind apart, where there are many settings.
_SHOWN = 'features', 'k', 'config', 'init', 'bank', 'queries'


class Figure(NamedTuple):
    """One evaluation.

    Attributes:
        task: What was evaluated.
        metrics: Figures in percent by name.
        setting: What they depend on, in short.
    """

    task: str
    metrics: dict[str, float]
    setting: dict[str, str]


def figures_of(source: Source) -> list[Figure]:
    """Return the evaluations of a checkpoint, the newest of each kind.

    Those of its file, and those of the training after the same epoch; they
    stand in ``results.jsonl`` of its folder. Of the key encoder none is known.

    Raises:
        ValueError: If that file is damaged.
    """
    if source.meta.get('encoder') == 'key':
        return []
    records = read_results(os.path.dirname(source.path) or '.')
    digest = file_hash(source.path) if records else ''
    newest: dict[tuple[str, str], Figure] = {}
    for record in records:
        if _is_of(record, source.meta, digest):
            protocol: Mapping[str, Any] = record['protocol']
            setting = {
                name: str(protocol[name])
                for name in _SHOWN
                if isinstance(protocol.get(name), str | int | float)
            }
            if record.get('iteration') == 0:
                setting['training'] = 'none yet'
            metrics = {
                str(name): float(value)
                for name, value in record['metrics'].items()
                if isinstance(value, int | float) and math.isfinite(value)
            }
            kind = record['task'], str(sorted(setting.items()))
            newest[kind] = Figure(record['task'], metrics, setting)
    return [figure for figure in newest.values() if figure.metrics]


def _is_of(
    record: Mapping[str, Any], meta: Mapping[str, Any], digest: str
) -> bool:
    if record.get('checkpoint') is not None:
        return bool(record.get('checkpoint_hash') == digest)
    if record['config_hash'] != meta.get('config_hash'):
        return False
    iteration, epoch = record.get('iteration'), record.get('epoch')
    if iteration is None:
        return isinstance(epoch, int) and epoch == meta.get('epochs')
    return iteration in (0, meta.get('iterations'))
