"""Linear probe on features: the job behind ``tools/linear_probe.py``."""

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.device import get_device

from mmmoco.apis import cli
from mmmoco.apis.config.files import load_config
from mmmoco.apis.config.image_range import settle_from
from mmmoco.engine.evaluation.knn_protocol import KNNProtocol
from mmmoco.engine.results import append_result
from mmmoco.evaluation import ProbeResult, ProbeSettings, linear_probe

from .protocol import (
    add_arguments,
    load_evaluated,
    log_figures,
    open_protocol,
)


def parser() -> argparse.ArgumentParser:
    """Return the command line of ``tools/linear_probe.py``."""
    result = argparse.ArgumentParser(
        prog='linear_probe.py',
        description='Linear classification of frozen features: they are '
        'extracted once, then many learning rates and weight decays are '
        "trained at once. The training split is the config's knn.bank, the "
        'validation split its knn.query; a part of the former chooses.',
        epilog='Example: python tools/linear_probe.py '
        'configs/mocov2_r50_8xb32.py epoch_200.pth --cfg-options '
        'knn.bank.dataset.data_root=/data/imagenet '
        'knn.query.dataset.data_root=/data/imagenet',
    )
    add_arguments(result)
    add_settings(result)
    return result


def add_settings(
    parser: argparse.ArgumentParser, epochs: str = '--epochs'
) -> None:
    """Add an option for every field of the settings.

    Args:
        parser: A tool's command line.
        epochs: Option for the passes over the features.
    """
    default = ProbeSettings()
    parser.add_argument(
        '--lrs', type=float, nargs='+', default=default.lrs, metavar='LR'
    )
    parser.add_argument(
        '--weight-decays',
        type=float,
        nargs='+',
        default=default.weight_decays,
        metavar='WD',
    )
    parser.add_argument(
        epochs, dest='probe_epochs', type=int, default=default.epochs
    )
    parser.add_argument('--batch-size', type=int, default=default.batch_size)
    parser.add_argument(
        '--schedule', choices=('cosine', 'step'), default=default.schedule
    )
    parser.add_argument(
        '--raw',
        action='store_true',
        help='do not standardise the features (with --lrs 30 '
        '--weight-decays 0 --schedule step --epochs 100: the protocol of '
        'MoCo v1 and v2)',
    )
    parser.add_argument('--held-out', type=float, default=default.held_out)
    parser.add_argument('--seed', type=int, default=default.seed)


def settings_of(args: argparse.Namespace) -> ProbeSettings:
    """Return the settings that a command line asks for."""
    return ProbeSettings(
        lrs=tuple(args.lrs),
        weight_decays=tuple(args.weight_decays),
        epochs=args.probe_epochs,
        batch_size=args.batch_size,
        schedule=args.schedule,
        standardise=not args.raw,
        held_out=args.held_out,
        seed=args.seed,
    )


def describe(protocol: KNNProtocol, settings: ProbeSettings) -> dict[str, Any]:
    """Return everything that a figure depends on, for ``results.jsonl``."""
    data = protocol.describe(protocol.ks[0])
    data = {k: v for k, v in data.items() if k not in ('k', 'temperature')}
    return {**data, **asdict(settings)}


def probe_checkpoint(
    cfg: Config,
    checkpoint: str,
    protocol: KNNProtocol,
    settings: ProbeSettings,
) -> ProbeResult:
    """Extract features of both splits and train on them.

    Args:
        cfg: Config of the model.
        checkpoint: File to evaluate.
        protocol: The two splits.
        settings: The grid and the training.
    """
    model = load_evaluated(cfg, checkpoint, protocol)
    bank, query = protocol.extract(model)
    return linear_probe(bank, query, settings, get_device())


def evaluate(args: argparse.Namespace) -> None:
    """Evaluate as the command line says."""
    cfg = load_config(args.config, args.cfg_options)
    cli.require_file(args.checkpoint)
    settle_from(cfg, args.checkpoint)
    settings = settings_of(args)
    protocol = open_protocol(cfg, features=args.features)
    start = time.perf_counter()
    result = probe_checkpoint(cfg, args.checkpoint, protocol, settings)
    best = result.best
    log_figures(
        f'linear probe (lr {best.lr:g}, weight decay {best.weight_decay:g}, '
        f'best of {len(result.candidates)}, '
        f'{time.perf_counter() - start:.0f} s)',
        result.metrics,
    )
    append_result(
        args.work_dir or str(Path(args.checkpoint).parent),
        task='linear',
        protocol={
            **describe(protocol, settings),
            'lr': best.lr,
            'weight_decay': best.weight_decay,
        },
        metrics=result.metrics,
        cfg=cfg,
        checkpoint=args.checkpoint,
        seed=settings.seed,
        remarks=protocol.remarks,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``tools/linear_probe.py``."""
    args = parser().parse_args(argv)
    cli.run(lambda: evaluate(args), 'linear_probe.py', args.debug)
