"""Memory of a run: estimates side by side."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from mmengine.config import Config
from mmengine.logging import MMLogger

from mmmoco.apis.config.adapt import use_precision

from .memory_estimate import (
    DTYPES,
    Estimate,
    check_config,
    config_dtype,
    estimate_memory,
)

MIB = 2**20

#: Figures of an estimate, and what the table calls them.
SUM = (
    ('trained', 'parameters that learn'),
    ('frozen', 'parameters that do not'),
    ('dictionary', 'dictionary'),
    ('buffers', 'other buffers'),
    ('optimizer', 'optimizer state'),
    ('buckets', 'buckets of the distributed wrapper'),
    ('working', 'activations, gradients, temporaries'),
    ('total', 'TOTAL per process'),
)
BESIDE = (
    ('kept', 'activations kept for backward'),
    ('gradients', 'gradients, all of them'),
)


def table(estimates: Sequence[Estimate], marked: str) -> str:
    """Return the estimates side by side, aligned.

    Args:
        estimates: One for each precision.
        marked: The precision that the config trains in.
    """
    figures = [e.figures() for e in estimates]
    rows = [(label, [f[name] for f in figures]) for name, label in SUM]
    rows.append(('', []))
    rows += [(label, [f[name] for f in figures]) for name, label in BESIDE]
    for phase in dict.fromkeys(p for e in estimates for p in e.peaks):
        peaks = [e.peaks.get(phase, 0) + e.buckets for e in estimates]
        rows.append((f'all, highest in: {phase}', peaks))
    width = max(len(name) for name, _ in rows)
    names = [e.dtype + (' *' if e.dtype == marked else '') for e in estimates]
    lines = [' ' * width + ''.join(f'{name:>14}' for name in names)]
    lines += [
        f'{name:{width}}' + ''.join(f'{readable(n):>14}' for n in values)
        for name, values in rows
    ]
    return '\n'.join(line.rstrip() for line in lines)


def readable(size: int) -> str:
    """Return bytes as MiB or GiB."""
    if size < 1024 * MIB:
        return f'{size / MIB:.1f} MiB'
    return f'{size / MIB / 1024:.2f} GiB'


@dataclass(frozen=True)
class Memory:
    """What a config needs.

    Attributes:
        config: Its name.
        estimates: One for each precision.
        dtype: The precision that the config trains in.
    """

    config: str
    estimates: list[Estimate]
    dtype: str

    @property
    def own(self) -> Estimate:
        """The estimate for the config's precision."""
        return next(e for e in self.estimates if e.dtype == self.dtype)

    def as_json(self) -> str:
        """Return all figures, in bytes."""
        figures = {
            'config': self.config,
            'dtype': self.dtype,
            'estimates': [e.figures() for e in self.estimates],
        }
        return json.dumps(figures, indent=2) + '\n'

    def __str__(self) -> str:
        return (
            f'{self.config}: {self.own.batch_size} images per process, by '
            f"{self.own.method}\n(* the config's precision; bfloat16 is "
            'mixed, float16 takes the same)\n\n'
            f'{table(self.estimates, self.dtype)}'
        )


def estimate(
    config: str, cfg: Config, batch_size: int | None, gpus: int
) -> Memory:
    """Estimate in every precision.

    Args:
        config: Its name.
        cfg: Config of a pre-training.
        batch_size: Per process; default: the config's.
        gpus: Processes of the run.
    """
    check_config(cfg)
    MMLogger.get_instance('estimate_memory', log_level='ERROR')
    use_precision(cfg, amp=False, fast=False)
    estimates = [
        # As on a GPU.
        estimate_memory(cfg, batch_size, gpus, dtype, foreach=True)
        for dtype in DTYPES
    ]
    return Memory(config, estimates, config_dtype(cfg))
