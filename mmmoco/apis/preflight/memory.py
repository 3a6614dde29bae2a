"""Memory of a run: the job behind ``tools/estimate_memory.py``."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import MMLogger

from mmmoco.apis import cli
from mmmoco.apis.cli import UsageError
from mmmoco.apis.config.adapt import use_precision
from mmmoco.apis.config.files import load_config

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


def parser() -> argparse.ArgumentParser:
    """Return the command line of ``tools/estimate_memory.py``."""
    result = argparse.ArgumentParser(
        prog='estimate_memory.py',
        description='Memory of one process of a pre-training run. Neither a '
        'GPU nor the data nor memory for the model is needed.',
        epilog='Not in the sum: what the driver takes, and workspaces inside '
        'the kernels. Example: python tools/estimate_memory.py '
        'mocov2_r50_8xb32 --batch-size 64 --gpus 8',
    )
    result.add_argument('config', help='path, name, or package::path')
    result.add_argument(
        '--batch-size',
        type=int,
        metavar='N',
        help="images per GPU in one forward (the config's)",
    )
    result.add_argument(
        '--gpus',
        type=int,
        default=1,
        metavar='N',
        help='processes of the run; several need a second copy of the '
        'gradients (1)',
    )
    result.add_argument(
        '--measure',
        action='store_true',
        help="also run three real steps in the config's precision, and "
        'compare',
    )
    result.add_argument('--json', metavar='FILE', help='write the figures')
    cli.add_cfg_options(result)
    cli.add_debug(result)
    return result


def report(args: argparse.Namespace) -> None:
    """Estimate, print the table, and measure if asked."""
    for name in ('batch_size', 'gpus'):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UsageError(
                f'--{name.replace("_", "-")} {value}: must be at least 1.'
            )
    MMLogger.get_instance('estimate_memory', log_level='ERROR')
    cfg = load_config(args.config, args.cfg_options)
    check_config(cfg)
    use_precision(cfg, amp=False, fast=False)
    marked = config_dtype(cfg)
    # As on a GPU, except where a CPU process is the yardstick.
    foreach = None if args.measure else True
    estimates = [
        estimate_memory(cfg, args.batch_size, args.gpus, dtype, foreach)
        for dtype in DTYPES
    ]
    chosen = next(e for e in estimates if e.dtype == marked)
    say = sys.stdout.write
    say(
        f'{args.config}: {chosen.batch_size} images per process, by '
        f"{chosen.method}\n(* the config's precision; bfloat16 is mixed, "
        'float16 takes the same)\n\n'
        f'{table(estimates, marked)}\n'
    )
    figures: dict[str, Any] = {
        'config': args.config,
        'dtype': marked,
        'estimates': [
            {**asdict(e), 'total': e.total, 'working': e.working}
            for e in estimates
        ],
    }
    if args.measure:
        figures['measured'] = _compare(cfg, chosen, say)
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=2) + '\n')


def _compare(
    cfg: Config, estimate: Estimate, say: Callable[[str], Any]
) -> dict[str, Any]:
    """Measure, and hold the estimate of one process against it."""
    measured = measure(cfg, estimate.batch_size)
    own, what = estimate.total - estimate.buckets, 'allocated on the GPU'
    if measured.device == 'cpu':
        # Libraries are in the resident memory too: only the growth counts.
        own -= estimate.model
        what = 'resident memory beyond that after building'
    error = own / measured.peak - 1.0
    say(
        f'\nPeak of {what}, {estimate.dtype}:\n'
        f'measured {readable(measured.peak)}, estimated {readable(own)}, '
        f'error {error:+.1%}\n'
    )
    return {
        'device': measured.device,
        'peak': measured.peak,
        'estimated': own,
        'error': error,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``tools/estimate_memory.py``."""
    args = parser().parse_args(argv)
    cli.run(lambda: report(args), 'estimate_memory.py', args.debug)
