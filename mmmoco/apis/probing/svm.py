"""Low-shot linear SVM on features: the job behind ``tools/svm.py``."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmmoco.apis import cli
from mmmoco.apis.config.files import load_config
from mmmoco.apis.config.image_range import settle_from
from mmmoco.engine.results import append_result
from mmmoco.evaluation import svm_map
from mmmoco.evaluation.svm import SHOTS

from .protocol import (
    add_arguments,
    load_evaluated,
    log_figures,
    open_protocol,
)


def parser() -> argparse.ArgumentParser:
    """Return the command line of ``tools/svm.py``."""
    result = argparse.ArgumentParser(
        prog='svm.py',
        description='Linear SVM a class on frozen features, with the whole '
        'training split (knn.bank) and with a few images a class; mAP on '
        'knn.query.',
        epilog='Example: python tools/svm.py '
        'configs/benchmarks/classification/voc07/features_mocov2_r50.py '
        'epoch_200.pth',
    )
    add_arguments(result)
    result.add_argument(
        '--shots', type=int, nargs='*', default=SHOTS, metavar='K'
    )
    result.add_argument('--draws', type=int, default=5)
    result.add_argument('--seed', type=int, default=0)
    return result


def evaluate(args: argparse.Namespace) -> None:
    """Evaluate as the command line says."""
    cfg = load_config(args.config, args.cfg_options)
    cli.require_file(args.checkpoint)
    settle_from(cfg, args.checkpoint)
    protocol = open_protocol(cfg, features=args.features)
    model = load_evaluated(cfg, args.checkpoint, protocol)
    bank, query = protocol.extract(model)
    found = svm_map(bank, query, args.shots, args.draws, seed=args.seed)
    metrics = {'mAP': found.whole}
    for k, (mean, spread) in found.low_shot.items():
        metrics |= {f'mAP_{k}_shot': mean, f'mAP_{k}_shot_std': spread}
    log_figures('SVM', metrics)
    append_result(
        args.work_dir or str(Path(args.checkpoint).parent),
        task='svm',
        protocol={
            'features': protocol.features,
            'draws': args.draws,
            'bank': len(bank.values),
            'queries': len(query.values),
        },
        metrics=metrics,
        cfg=cfg,
        checkpoint=args.checkpoint,
        seed=args.seed,
        remarks=protocol.remarks,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``tools/svm.py``."""
    args = parser().parse_args(argv)
    cli.run(lambda: evaluate(args), 'svm.py', args.debug)
