"""Evaluations of checkpoints: of one, and of all in a folder alike."""

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import init_default_scope

from mmmoco.apis import cli
from mmmoco.apis.config.adapt import fit_workers
from mmmoco.apis.config.files import load_config
from mmmoco.apis.config.from_checkpoint import config_of
from mmmoco.apis.config.image_range import settle_from
from mmmoco.apis.early_checks import NO_IMAGES
from mmmoco.apis.model import get_model
from mmmoco.engine import checkpoint_io
from mmmoco.engine.class_folders import hidden_skipped
from mmmoco.engine.evaluation import (
    Evaluation,
    Measurement,
    Splits,
    build_evaluation,
)
from mmmoco.engine.evaluation.preprocessing import compare_evaluation
from mmmoco.engine.results import (
    config_hash,
    figures_text,
    file_hash,
    read_results,
)
from mmmoco.evaluation.classification import main_metric
from mmmoco.messages import log_info, log_warning
from mmmoco.visualization.checkpoints import plot_checkpoints

from .folders import Folder

Row = dict[str, Any]
NAME = re.compile(r'(epoch|iter)_(\d+)\.(pth|safetensors)')


def read_config(
    config: str | Config | None, checkpoint: str, options: cli.Settings | None
) -> Config:
    """Read a config for the evaluation of a checkpoint.

    Args:
        config: A config; None: what the checkpoint tells about itself.
        checkpoint: File.
        options: Settings to replace.

    Raises:
        FileNotFoundError: If one of them does not exist.
    """
    cfg = load_config(
        config_of(checkpoint) if config is None else config,
        dict(options or {}),
    )
    cli.require_file(checkpoint)
    settle_from(cfg, checkpoint)
    return cfg


def evaluations_of(cfg: Config) -> dict[str, Any]:
    """Return the evaluations that a config has beside its k-NN, by name.

    Raises:
        ValueError: If they have no names.
    """
    found = cfg.get('evaluations') or {}
    if not isinstance(found, Mapping):
        raise ValueError(
            f'evaluations={found!r}: give each a name, as in '
            "dict(svm=dict(type='SVM'))."
        )
    return dict(found)


@checkpoint_io.guarded
@hidden_skipped
def open_evaluation(
    cfg: Config,
    evaluation: str | Mapping[str, Any],
    features: str | None = None,
    folder: Folder | None = None,
) -> tuple[Evaluation, Splits]:
    """Build an evaluation, and the loaders of ``knn = dict(bank=…, …)``.

    Args:
        cfg: Config with ``knn``, unless there is a folder.
        evaluation: Its type, or a dict with the type and arguments.
        features: ``'backbone'`` or ``'neck'``; default: the config's.
        folder: Of images to take instead.

    Raises:
        FileNotFoundError: If data is not there.
        KeyError: If the config has no ``knn``.
        ValueError: If the settings are incomplete or do not fit.
    """
    if folder is not None:
        cfg = folder.applied_to(cfg)
    if 'knn' not in cfg:
        raise KeyError(
            f'The config has no knn=dict(bank=…, query=…). {NO_IMAGES}'
        )
    init_default_scope(cfg.get('default_scope', 'mmmoco'))
    fit_workers(cfg)
    settings = dict(cfg.knn)
    if features is not None:
        settings['features'] = features
    if folder is None:
        return build_evaluation(evaluation, settings, seed=0)
    return folder.build(evaluation, settings)


def measure(
    cfg: Config, checkpoint: str, evaluation: Evaluation, data: Splits
) -> list[Measurement]:
    """Evaluate a file; the data's remarks say what it sees otherwise."""
    data.remarks['eyes'] = compare_evaluation(cfg, checkpoint, data.pipelines)
    model = get_model(cfg, checkpoint).to(get_device())
    return evaluation.measure(model, data)


def evaluate(
    cfg: Config,
    checkpoint: str,
    evaluation: str | Mapping[str, Any],
    features: str | None = None,
    work_dir: str | None = None,
    seed: int | None = None,
    folder: Folder | None = None,
) -> list[Measurement]:
    """Evaluate, print the figures, and append them to ``results.jsonl``.

    Args:
        cfg: Config; with ``knn = dict(bank=…, query=…, …)``, unless there is
            a folder.
        checkpoint: File to evaluate.
        evaluation: Its type, or a dict with the type and arguments.
        features: ``'backbone'`` or ``'neck'``; default: the config's.
        work_dir: Where ``results.jsonl`` is; default: beside the checkpoint.
        seed: Of the evaluation, if it has one.
        folder: Of images to take instead of the config's.
    """
    judge, data = open_evaluation(cfg, evaluation, features, folder)
    results = measure(cfg, checkpoint, judge, data)
    place = work_dir or str(Path(checkpoint).parent)
    for found in results:
        title = found.title or judge.title
        of = f'{folder.path}: ' if folder else ''
        log(f'{of}{title}', found.metrics)
        judge.record(found, data, place, cfg, checkpoint=checkpoint, seed=seed)
    return results


def log(title: str, metrics: Mapping[str, float]) -> None:
    """Log figures in one line."""
    log_info(f'{title}: {figures_text(metrics)}')


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
        log_warning(
            f'{len(left)} checkpoint(s) with the other unit are left out '
            f'({names}): epochs and iterations do not share a curve.'
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


def evaluate_series(
    cfg: Config,
    checkpoints: dict[int, Path],
    folder: str,
    evaluation: str | Mapping[str, Any],
    features: str | None = None,
    name: str = 'knn',
    data_folder: Folder | None = None,
) -> list[Row]:
    """Evaluate what is not yet in ``folder/results.jsonl``; write a table.

    Args:
        cfg: Config of model and data.
        checkpoints: Files by number.
        folder: Of ``results.jsonl`` and ``checkpoints_NAME.csv``.
        evaluation: Its type, or a dict with the type and arguments.
        features: ``'backbone'`` or ``'neck'``; default: the config's.
        name: Of the table.
        data_folder: Of images to take instead of the config's.

    Returns:
        A row for each: ``number``, ``checkpoint``, ``error`` and the
        figures. A checkpoint that cannot be read is reported and skipped.

    Raises:
        ValueError: If not one of them could be evaluated.
    """
    judge, data = open_evaluation(cfg, evaluation, features, data_folder)
    # Another image in the place of one is another evaluation.
    setting = {'data': data.identity.data_hash()}
    described = json.loads(json.dumps({**judge.describe(data), **setting}))
    known = {
        result.get('checkpoint_hash'): result['metrics']
        for result in read_results(folder)
        if result['task'] == judge.task
        and result['protocol'] == described
        and result['config_hash'] == config_hash(cfg)
    }
    rows: list[Row] = []
    for number, path in checkpoints.items():
        row: Row = {'number': number, 'checkpoint': path.name, 'error': ''}
        rows.append(row)
        title = f'{path.name} (already evaluated)'
        try:
            metrics = known.get(file_hash(str(path)))
            if metrics is None:
                title = path.name
                metrics = measure(cfg, str(path), judge, data)[0].metrics
                judge.record(
                    Measurement(metrics, setting),
                    data,
                    folder,
                    cfg,
                    checkpoint=str(path),
                    epoch=number if path.name.startswith('epoch') else None,
                )
        except (checkpoint_io.CheckpointError, OSError) as error:
            row['error'] = ' '.join(str(error).split())
            log_warning(f'{path.name} is skipped: {row["error"]}')
            continue
        log(title, metrics)
        row.update(metrics)
    write_table(Path(folder) / f'checkpoints_{name}', rows)
    if all(row['error'] for row in rows):
        raise ValueError(
            f'None of the {len(rows)} checkpoints could be evaluated; '
            f'the first: {rows[0]["error"]}'
        )
    return rows


def write_table(stem: Path, rows: Sequence[Row]) -> None:
    """Write ``.csv``, ``.json`` and ``.png``; print the table.

    Args:
        stem: Path without ending.
        rows: From :func:`evaluate_series`.
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
        log_info(
            f'Best: {best["checkpoint"]}, {name} {best[name]:.2f} %. Table '
            f'and curve: {stem}.csv, .json, .png'
        )
