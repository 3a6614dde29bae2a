"""Memory of a run: estimates side by side, and a measurement."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from mmengine.config import Config
from mmengine.logging import MMLogger

from mmmoco.apis.config.adapt import use_precision

from .measured_memory import measure
from .memory_estimate import (
    DTYPES,
    Estimate,
    check_config,
    config_dtype,
    estimate_memory,
)

MIB = 2**20


def table(estimates: Sequence[Estimate], marked: str) -> str:
    """Return the estimates side by side, aligned.

    Args:
        estimates: One for each precision.
        marked: The precision that the config trains in.
    """
    rows = [
        ('parameters that learn', [e.trained for e in estimates]),
        ('parameters that do not', [e.frozen for e in estimates]),
        ('dictionary', [e.dictionary for e in estimates]),
        ('other buffers', [e.buffers for e in estimates]),
        ('optimizer state', [e.optimizer for e in estimates]),
        ('buckets of the distributed wrapper', [e.buckets for e in estimates]),
        (
            'activations, gradients, temporaries',
            [e.working for e in estimates],
        ),
        ('TOTAL per process', [e.total for e in estimates]),
        ('', []),
        ('activations kept for backward', [e.kept for e in estimates]),
        ('gradients, all of them', [e.gradients for e in estimates]),
    ]
    phases = dict.fromkeys(p for e in estimates for p in e.peaks)
    for phase in phases:
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
        measured: Device, peak, estimate for it and its error; None if
            nothing was measured.
    """

    config: str
    estimates: list[Estimate]
    dtype: str
    measured: dict[str, Any] | None = None

    @property
    def own(self) -> Estimate:
        """The estimate for the config's precision."""
        return next(e for e in self.estimates if e.dtype == self.dtype)

    def as_json(self) -> str:
        """Return all figures, in bytes."""
        figures: dict[str, Any] = {
            'config': self.config,
            'dtype': self.dtype,
            'estimates': [
                {**asdict(e), 'total': e.total, 'working': e.working}
                for e in self.estimates
            ],
        }
        if self.measured:
            figures['measured'] = self.measured
        return json.dumps(figures, indent=2) + '\n'

    def __str__(self) -> str:
        text = (
            f'{self.config}: {self.own.batch_size} images per process, by '
            f"{self.own.method}\n(* the config's precision; bfloat16 is "
            'mixed, float16 takes the same)\n\n'
            f'{table(self.estimates, self.dtype)}'
        )
        if self.measured:
            what = 'allocated on the GPU'
            if self.measured['device'] == 'cpu':
                what = 'resident memory beyond that after building'
            text += (
                f'\n\nPeak of {what}, {self.dtype}:\n'
                f'measured {readable(self.measured["peak"])}, estimated '
                f'{readable(self.measured["estimated"])}, error '
                f'{self.measured["error"]:+.1%}'
            )
        return text


def estimate(
    config: str,
    cfg: Config,
    batch_size: int | None,
    gpus: int,
    with_measurement: bool,
) -> Memory:
    """Estimate in every precision, and measure if asked.

    Args:
        config: Its name.
        cfg: Config of a pre-training.
        batch_size: Per process; default: the config's.
        gpus: Processes of the run.
        with_measurement: Run three real steps, and compare.
    """
    check_config(cfg)
    MMLogger.get_instance('estimate_memory', log_level='ERROR')
    use_precision(cfg, amp=False, fast=False)
    # As on a GPU, except where a CPU process is the yardstick.
    foreach = None if with_measurement else True
    estimates = [
        estimate_memory(cfg, batch_size, gpus, dtype, foreach)
        for dtype in DTYPES
    ]
    memory = Memory(config, estimates, config_dtype(cfg))
    if with_measurement:
        memory = replace(memory, measured=_compare(cfg, memory.own))
    return memory


def _compare(cfg: Config, estimate: Estimate) -> dict[str, Any]:
    """Measure, and hold the estimate of one process against it."""
    measured = measure(cfg, estimate.batch_size)
    own = estimate.total - estimate.buckets
    if measured.device == 'cpu':
        # Libraries are in the resident memory too: only the growth counts.
        own -= estimate.model
    return {
        'device': measured.device,
        'peak': measured.peak,
        'estimated': own,
        'error': own / measured.peak - 1.0,
    }
