"""k-NN evaluation of a checkpoint: the job behind ``tools/knn.py``."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from mmmoco.apis import cli
from mmmoco.apis.config.files import load_config
from mmmoco.apis.config.image_range import settle_from
from mmmoco.apis.training.runner import init_processes
from mmmoco.apis.training.train import LAUNCHERS
from mmmoco.engine.evaluation.features import Features
from mmmoco.engine.results import append_result

from .protocol import (
    add_arguments,
    load_evaluated,
    log_figures,
    open_protocol,
)


def raw_pixel_features(loader: Any, device: str = 'cpu') -> Features:
    """Return the images themselves as features, the floor of any backbone.

    Args:
        loader: A labelled loader, as for ``extract_features``.
        device: Where the features are wanted.
    """
    values, labels = [], []
    for batch in loader:
        values.append(batch['inputs']['image'].flatten(1).float())
        labels.append(batch['labels'])
    return Features(torch.cat(values).to(device), torch.cat(labels).to(device))


def parser() -> argparse.ArgumentParser:
    """Return the command line of ``tools/knn.py``."""
    result = argparse.ArgumentParser(
        prog='knn.py',
        description='Weighted k-NN accuracy of a checkpoint.',
        epilog='Example: python tools/knn.py configs/mocov2_r50_8xb32.py '
        'work_dirs/mocov2_r50_8xb32/epoch_200.pth --k 20 200 --cfg-options '
        'knn.bank.dataset.data_root=/data/imagenet '
        'knn.query.dataset.data_root=/data/imagenet',
    )
    add_arguments(result)
    result.add_argument('--k', type=int, nargs='+', default=[], metavar='K')
    result.add_argument('--temperature', type=float)
    result.add_argument(
        '--leave-one-out',
        action='store_true',
        help='a query that stands in the bank is no neighbour of its own',
    )
    result.add_argument('--launcher', choices=LAUNCHERS, default='none')
    return result


def report_knn(
    cfg: Config,
    checkpoint: str,
    ks: Sequence[int] = (),
    temperature: float | None = None,
    features: str | None = None,
    work_dir: str | None = None,
    leave_one_out: bool | None = None,
) -> None:
    """Evaluate, print the figures, and append them to ``results.jsonl``.

    Args:
        cfg: Config with ``knn = dict(bank=…, query=…, k=…, …)``.
        checkpoint: File to evaluate.
        ks: Numbers of neighbours; default: the config's.
        temperature: τ of the votes; default: the config's.
        features: ``'backbone'`` or ``'neck'``; default: the config's.
        work_dir: Where ``results.jsonl`` is; default: beside the checkpoint.
        leave_one_out: A query that stands in the bank is no neighbour of its
            own; default: the config's.

    Raises:
        KeyError: If the config has no ``knn``.
        ValueError: If the protocol is incomplete or does not fit.
    """
    protocol = open_protocol(cfg, ks, temperature, features, leave_one_out)
    model = load_evaluated(cfg, checkpoint, protocol)
    for k, metrics in protocol.evaluate(model).items():
        log_figures(f'k-NN, k={k}', metrics)
        append_result(
            work_dir or str(Path(checkpoint).parent),
            task='knn',
            protocol=protocol.describe(k),
            metrics=metrics,
            cfg=cfg,
            checkpoint=checkpoint,
            remarks=protocol.remarks,
        )


def evaluate(args: argparse.Namespace) -> None:
    """Evaluate as the command line says."""
    cfg = load_config(args.config, args.cfg_options)
    cli.require_file(args.checkpoint)
    settle_from(cfg, args.checkpoint)
    init_processes(cfg, args.launcher, with_runner=False)
    report_knn(
        cfg,
        args.checkpoint,
        args.k,
        args.temperature,
        args.features,
        args.work_dir,
        args.leave_one_out or None,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``tools/knn.py``."""
    args = parser().parse_args(argv)
    cli.run(lambda: evaluate(args), 'knn.py', args.debug)
