"""k-NN evaluation of a checkpoint: the job behind ``tools/knn.py``."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

from mmmoco.engine.features import Features
from mmmoco.engine.knn_protocol import KNNProtocol
from mmmoco.engine.results import append_result

from . import cli
from .config import load_config
from .model import get_model
from .runtime import fit_workers


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
    result.add_argument('config', help='path, name, or package::path')
    result.add_argument('checkpoint', help='file of a pre-training run')
    result.add_argument('--k', type=int, nargs='+', default=[], metavar='K')
    result.add_argument('--temperature', type=float)
    result.add_argument('--features', choices=('backbone', 'neck'))
    result.add_argument(
        '--work-dir', help="where results.jsonl is (the checkpoint's folder)"
    )
    result.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE'
    )
    cli.add_debug(result)
    return result


def report_knn(
    cfg: Config,
    checkpoint: str,
    ks: Sequence[int] = (),
    temperature: float | None = None,
    features: str | None = None,
    work_dir: str | None = None,
) -> None:
    """Evaluate, print the figures, and append them to ``results.jsonl``.

    Args:
        cfg: Config with ``knn = dict(bank=…, query=…, k=…, …)``.
        checkpoint: File to evaluate.
        ks: Numbers of neighbours; default: the config's.
        temperature: τ of the votes; default: the config's.
        features: ``'backbone'`` or ``'neck'``; default: the config's.
        work_dir: Where ``results.jsonl`` is; default: beside the checkpoint.

    Raises:
        KeyError: If the config has no ``knn``.
        ValueError: If the protocol is incomplete or does not fit.
    """
    logger = MMLogger.get_instance('mmmoco', log_level='INFO')
    if 'knn' not in cfg:
        raise KeyError(
            'The config has no knn=dict(bank=…, query=…): see '
            'configs/_base_/datasets/image_folder.py.'
        )
    init_default_scope(cfg.get('default_scope', 'mmmoco'))
    fit_workers(cfg)
    given = {'temperature': temperature, 'features': features}
    settings = {**cfg.knn, **{k: v for k, v in given.items() if v}}
    protocol = KNNProtocol.build(settings, seed=0, ks=ks)
    model = get_model(cfg, checkpoint).to(get_device())
    for k, metrics in protocol.evaluate(model).items():
        logger.info(
            f'k-NN, k={k}: top-1 {metrics["top1"]:.2f} %, '
            f'top-5 {metrics["top5"]:.2f} %'
        )
        append_result(
            work_dir or str(Path(checkpoint).parent),
            task='knn',
            protocol=protocol.describe(k),
            metrics=metrics,
            cfg=cfg,
            checkpoint=checkpoint,
        )


def evaluate(args: argparse.Namespace) -> None:
    """Evaluate as the command line says."""
    cfg = load_config(args.config, args.cfg_options)
    if not Path(args.checkpoint).is_file():
        raise FileNotFoundError(
            f'Checkpoint {args.checkpoint!r} does not exist.'
        )
    report_knn(
        cfg,
        args.checkpoint,
        args.k,
        args.temperature,
        args.features,
        args.work_dir,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``tools/knn.py``."""
    args = parser().parse_args(argv)
    cli.run(lambda: evaluate(args), 'knn.py', args.debug)
