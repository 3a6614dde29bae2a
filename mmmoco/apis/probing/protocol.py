"""What every evaluation of features shares: from a config to loaders."""

import argparse
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.registry import init_default_scope

from mmmoco.apis import cli
from mmmoco.apis.config.adapt import fit_workers
from mmmoco.apis.model import get_model
from mmmoco.engine import checkpoint_io
from mmmoco.engine.class_folders import hidden_skipped
from mmmoco.engine.evaluation.eyes import (
    Eyes,
    compare,
    eyes_of,
    eyes_of_checkpoint,
    preprocessor_of,
)
from mmmoco.engine.evaluation.knn_protocol import KNNProtocol
from mmmoco.engine.results import figures_text


def add_arguments(
    parser: argparse.ArgumentParser, checkpoint: bool = True
) -> None:
    """Add the arguments that all these tools have.

    Args:
        parser: A tool's command line.
        checkpoint: Whether it takes one checkpoint.
    """
    parser.add_argument('config', help='path, name, or package::path')
    if checkpoint:
        parser.add_argument('checkpoint', help='file of a pre-training run')
    parser.add_argument('--features', choices=('backbone', 'neck'))
    cli.add_work_dir(parser)
    cli.add_cfg_options(parser)
    cli.add_debug(parser)


@checkpoint_io.guarded
@hidden_skipped
def open_protocol(
    cfg: Config,
    ks: Sequence[int] = (),
    temperature: float | None = None,
    features: str | None = None,
    leave_one_out: bool | None = None,
) -> KNNProtocol:
    """Build the loaders of ``knn = dict(bank=…, query=…)``.

    Args:
        cfg: Config with ``knn``.
        ks: Numbers of neighbours; default: the config's.
        temperature: τ of the votes; default: the config's.
        features: ``'backbone'`` or ``'neck'``; default: the config's.
        leave_one_out: Whether a query may be its own neighbour; default: the
            config's.

    Raises:
        FileNotFoundError: If data is not there.
        KeyError: If the config has no ``knn``.
        ValueError: If the protocol is incomplete or does not fit.
    """
    if 'knn' not in cfg:
        raise KeyError(
            'The config has no knn=dict(bank=…, query=…): see '
            'configs/_base_/datasets/image_folder.py.'
        )
    init_default_scope(cfg.get('default_scope', 'mmmoco'))
    fit_workers(cfg)
    given = {
        'temperature': temperature,
        'features': features,
        'leave_one_out': leave_one_out,
    }
    chosen = {k: v for k, v in given.items() if v is not None}
    return KNNProtocol.build({**cfg.knn, **chosen}, seed=0, ks=ks)


def load_evaluated(cfg: Config, checkpoint: str, protocol: KNNProtocol) -> Any:
    """Return a checkpoint's model where it runs; compare what it sees.

    Args:
        cfg: Config of the model, with ``knn``.
        checkpoint: File to evaluate.
        protocol: Its remarks receive what differs.
    """
    pipelines = {
        f'knn.{name}': cfg.knn[name].dataset.get('pipeline')
        for name in ('bank', 'query')
    }
    protocol.remarks['eyes'] = same_eyes(cfg, checkpoint, pipelines)
    return get_model(cfg, checkpoint).to(get_device())


def same_eyes(
    cfg: Config,
    checkpoint: str | None,
    pipelines: Mapping[str, Any] | None = None,
) -> list[str]:
    """Tell where an evaluation sees images otherwise than the training did.

    Mean, std, order of the channels, range of the values, sizes and
    interpolation, as far as checkpoint and config tell them.

    Args:
        cfg: Config of the evaluation.
        checkpoint: File that is evaluated; None: random weights.
        pipelines: Transforms of its data sets, by name; None: whatever the
            tool does, only ``data_preprocessor`` is compared.

    Returns:
        A line for each difference, each of which is logged.
    """
    given = preprocessor_of(cfg)
    places = pipelines or {'the evaluation': None}
    seen = {name: eyes_of(given, steps) for name, steps in places.items()}
    told: Eyes | None = None
    if checkpoint is not None:
        told = eyes_of_checkpoint(checkpoint_io.read_meta(checkpoint))
        if told is None:
            print_log(
                f'{checkpoint!r} does not tell how its images were '
                "normalised; the config's mean and std are taken.",
                logger='current',
            )
    lines = compare(told, seen)
    for line in lines:
        print_log(line, logger='current', level=logging.WARNING)
    return lines


def log_figures(title: str, metrics: dict[str, float]) -> None:
    """Log figures in percent in one line."""
    print_log(f'{title}: {figures_text(metrics)}', logger='current')
