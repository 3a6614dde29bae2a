"""What every evaluation of features shares: from a config to loaders."""

import argparse
from collections.abc import Sequence

from mmengine.config import Config
from mmengine.logging import MMLogger, print_log
from mmengine.registry import init_default_scope

from mmmoco.datasets.class_folders import skip_hidden
from mmmoco.engine import checkpoint_io
from mmmoco.engine.knn_protocol import KNNProtocol

from . import cli
from .runtime import fit_workers


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
    tool_logger()  # What the protocol has to say is shown from here on.
    if 'knn' not in cfg:
        raise KeyError(
            'The config has no knn=dict(bank=…, query=…): see '
            'configs/_base_/datasets/image_folder.py.'
        )
    checkpoint_io.install()
    skip_hidden()
    init_default_scope(cfg.get('default_scope', 'mmmoco'))
    fit_workers(cfg)
    given = {
        'temperature': temperature,
        'features': features,
        'leave_one_out': leave_one_out,
    }
    chosen = {k: v for k, v in given.items() if v is not None}
    return KNNProtocol.build({**cfg.knn, **chosen}, seed=0, ks=ks)


def log_figures(title: str, metrics: dict[str, float]) -> None:
    """Log figures in percent in one line."""
    words = {'top1': 'top-1', 'top5': 'top-5'}
    figures = ', '.join(
        f'{words.get(name, name)} {value:.2f} %'
        for name, value in metrics.items()
    )
    print_log(f'{title}: {figures}', tool_logger())


def tool_logger() -> MMLogger:
    """Return the logger of the tools, which shows what they found."""
    if MMLogger.check_instance_created('mmmoco'):
        return MMLogger.get_instance('mmmoco')
    return MMLogger.get_instance('mmmoco', log_level='INFO')
