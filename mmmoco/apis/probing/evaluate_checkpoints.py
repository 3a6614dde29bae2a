"""One evaluation of many checkpoints: ``tools/evaluate_checkpoints.py``."""

import argparse
import csv
import io
import json
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from mmmoco.apis import cli
from mmmoco.apis.config.files import load_config
from mmmoco.apis.config.image_range import settle_from
from mmmoco.engine import checkpoint_io
from mmmoco.engine.results import (
    append_result,
    config_hash,
    file_hash,
    read_results,
)
from mmmoco.evaluation import Metrics, main_metric
from mmmoco.visualization import plot_checkpoints

from .linear_probe import (
    add_settings,
    describe,
    probe_checkpoint,
    settings_of,
)
from .protocol import (
    add_arguments,
    load_evaluated,
    log_figures,
    open_protocol,
)

Row = dict[str, Any]
NAME = re.compile(r'(epoch|iter)_(\d+)\.(pth|safetensors)')


def parser() -> argparse.ArgumentParser:
    """Return the command line of ``tools/evaluate_checkpoints.py``."""
    result = argparse.ArgumentParser(
        prog='evaluate_checkpoints.py',
        description='Evaluate the checkpoints of a folder (epoch_N, iter_N) '
        'alike; write a table and a curve. What stands in results.jsonl for '
        'the same file, data and protocol is not evaluated again.',
        epilog='Example: python tools/evaluate_checkpoints.py '
        'demo/mocov2_digits --checkpoint-dir work_dirs/mocov2_digits '
        '--epochs 10 50 100 --protocol knn',
    )
    add_arguments(result, checkpoint=False)
    result.add_argument('--checkpoint-dir', required=True, metavar='DIR')
    result.add_argument(
        '--epochs',
        type=int,
        nargs='+',
        metavar='N',
        help='which ones (epochs, or iterations of iter_N); default: all',
    )
    result.add_argument('--protocol', choices=('knn', 'linear'), default='knn')
    result.add_argument('--k', type=int, metavar='K')
    result.add_argument('--temperature', type=float)
    add_settings(result, epochs='--probe-epochs')
    return result


def find_checkpoints(
    folder: str, epochs: Iterable[int] | None = None
) -> dict[int, Path]:
    """Return the checkpoints of a folder by number, in order.

    Epochs and iterations do not share a curve: where there are both, those
    of epochs count, unless all that is wanted is a number of iterations.

    Args:
        folder: Where they lie.
        epochs: Numbers that are wanted; None: all.

    Raises:
        FileNotFoundError: If there is none, or a wanted one is missing.
    """
    kinds: dict[str, dict[int, Path]] = {}
    # Of a number's .pth and .safetensors, the former.
    for path in sorted(Path(folder).glob('*'), reverse=True):
        match = NAME.fullmatch(path.name)
        if match:
            kinds.setdefault(match[1], {})[int(match[2])] = path
    wanted = set(epochs or ())
    found = kinds.get('epoch') or kinds.get('iter') or {}
    if len(kinds) > 1:
        if wanted and wanted <= kinds['iter'].keys() - found.keys():
            found = kinds['iter']
        left = next(k for k in kinds.values() if k is not found)
        names = ', '.join(path.name for _, path in sorted(left.items())[:3])
        print_log(
            f'{len(left)} checkpoint(s) with the other unit are left out '
            f'({names}): epochs and iterations do not share a curve.',
            logger='current',
            level=logging.WARNING,
        )
    missing = set(epochs or ()) - found.keys()
    if not found or missing:
        have = ', '.join(map(str, sorted(found))) or 'none'
        raise FileNotFoundError(
            f'{folder!r} has no checkpoint epoch_N or iter_N'
            + (f' for {sorted(missing)}' if missing else '')
            + f'; it has {have}.'
        )
    return {n: found[n] for n in sorted(epochs or found)}


def evaluate(args: argparse.Namespace) -> None:
    """Evaluate as the command line says."""
    cfg = load_config(args.config, args.cfg_options)
    checkpoints = find_checkpoints(args.checkpoint_dir, args.epochs)
    settle_from(cfg, str(next(iter(checkpoints.values()))))
    ks = [] if args.k is None else [args.k]
    protocol = open_protocol(cfg, ks, args.temperature, args.features)
    if args.protocol == 'knn':
        k = protocol.ks[0]
        described = protocol.describe(k)
    else:
        settings = settings_of(args)
        described = describe(protocol, settings)
    # Another image in the place of one is another evaluation.
    described['data'] = protocol.identity.data_hash()

    def measure(checkpoint: str) -> Metrics:
        if args.protocol == 'linear':
            found = probe_checkpoint(cfg, checkpoint, protocol, settings)
            return found.metrics
        model = load_evaluated(cfg, checkpoint, protocol)
        return protocol.evaluate(model)[k]

    folder = args.work_dir or args.checkpoint_dir
    rows = run(
        cfg,
        checkpoints,
        folder,
        args.protocol,
        described,
        measure,
        protocol.remarks,
    )
    write(Path(folder) / f'checkpoints_{args.protocol}', rows)
    if all(row['error'] for row in rows):
        raise ValueError(
            f'None of the {len(rows)} checkpoints could be evaluated; '
            f'the first: {rows[0]["error"]}'
        )


def run(
    cfg: Config,
    checkpoints: dict[int, Path],
    folder: str,
    task: str,
    described: dict[str, Any],
    measure: Callable[[str], Metrics],
    remarks: dict[str, Any],
) -> list[Row]:
    """Evaluate what is not yet in ``folder/results.jsonl``.

    Args:
        cfg: Config of model and data.
        checkpoints: Files by number.
        folder: Of ``results.jsonl``.
        task: Name of the evaluation.
        described: Everything that its figures depend on.
        measure: Evaluates one file.
        remarks: Filled by each measurement.

    Returns:
        A row for each: ``number``, ``checkpoint``, ``error`` and the
        figures. A checkpoint that cannot be read is reported and skipped.
    """
    described = json.loads(json.dumps(described))
    known: dict[Any, Metrics] = {
        result.get('checkpoint_hash'): result['metrics']
        for result in read_results(folder)
        if result['task'] == task
        and result['protocol'] == described
        and result['config_hash'] == config_hash(cfg)
    }
    rows: list[Row] = []
    for number, path in checkpoints.items():
        row: Row = {'number': number, 'checkpoint': path.name, 'error': ''}
        rows.append(row)
        try:
            metrics = known.get(file_hash(str(path)))
            measured = metrics is None
            if metrics is None:
                metrics = measure(str(path))
        except (checkpoint_io.CheckpointError, OSError) as error:
            row['error'] = ' '.join(str(error).split())
            print_log(
                f'{path.name} is skipped: {row["error"]}',
                logger='current',
                level=logging.WARNING,
            )
            continue
        if measured:
            append_result(
                folder,
                task=task,
                protocol=described,
                metrics=metrics,
                cfg=cfg,
                checkpoint=str(path),
                epoch=number if path.name.startswith('epoch') else None,
                remarks=remarks,
            )
            log_figures(path.name, metrics)
        else:
            log_figures(f'{path.name} (already evaluated)', metrics)
        row.update(metrics)
    return rows


def write(stem: Path, rows: Sequence[Row]) -> None:
    """Write ``.csv``, ``.json`` and ``.png``; print the table.

    Args:
        stem: Path without ending.
        rows: From :func:`run`.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO(newline='')
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    checkpoint_io.write_text(stem.with_suffix('.csv'), text.getvalue())
    checkpoint_io.write_text(
        stem.with_suffix('.json'), json.dumps(list(rows), indent=1) + '\n'
    )
    good = [row for row in rows if not row['error']]
    if good:
        figures = {k: v for k, v in good[0].items() if isinstance(v, float)}
        name = main_metric(figures)
        unit = 'epoch' if 'epoch' in good[0]['checkpoint'] else 'iteration'
        curves = {
            name: [(row['number'], row[name]) for row in good]
            for name in figures
        }
        checkpoint_io.replace(
            stem.with_suffix('.png'),
            lambda file: plot_checkpoints(file, curves, unit),
        )
        best = max(good, key=lambda row: row[name])
        print_log(
            f'Best: {best["checkpoint"]}, {name} {best[name]:.2f} %. Table '
            f'and curve: {stem}.csv, .json, .png',
            logger='current',
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``tools/evaluate_checkpoints.py``."""
    args = parser().parse_args(argv)
    cli.run(lambda: evaluate(args), 'evaluate_checkpoints.py', args.debug)
