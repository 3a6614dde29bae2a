"""What runs left behind, for their report.

Nothing of it is run: configs are read as text.
"""

import json
import math
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmmoco.convert.config_text import read_config_text
from mmmoco.json_lines import read_json_lines
from mmmoco.registry import leaves, value_at
from mmmoco.visualization.embedding import METHODS, embed
from mmmoco.visualization.report import FeatureMap, Picture, RunRecord
from mmmoco.visualization.scalars import (
    Series,
    is_number,
    merge_scalars,
    read_scalars,
)

from .health import judge, verdict

#: Captions of the pictures that our tools save; others show their name.
CAPTIONS = {
    'views.png': 'Views of training images, as the network sees them',
    'neighbours.png': 'Queries and their nearest neighbours (green: same '
    'class)',
    'features_map.png': 'Map of the features',
}

#: Pictures that show what the report draws itself.
REDUNDANT = ('curves.png',)
LARGEST_PICTURE = 8 * 2**20

#: Bytes of a config, or of what is told about the machine.
LARGEST_TEXT = 2**20

#: Samples drawn in a map of features.
MAP_SAMPLES = 1500

PNG = b'\x89PNG\r\n\x1a\n'


def read_run(folder: Path, name: str, method: str = 'pca') -> RunRecord:
    """Collect what a run left in its work dir.

    Args:
        folder: The work dir.
        name: For the report.
        method: How features are mapped.

    Raises:
        FileNotFoundError: If there is no folder, or no trace of a run in it.
        ValueError: If one of the files is broken.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f'Work dir {str(folder)!r} does not exist.')
    logs = _own(folder, '*/vis_data/scalars.json')
    scalars = merge_scalars([read_scalars(path) for path in logs])
    path = folder / 'results.jsonl'
    results = read_json_lines(path) if _is_own(path, folder) else []
    notes = _foreign(folder)
    if not scalars and not results:
        raise FileNotFoundError(
            f'{str(folder)!r} holds neither */vis_data/scalars.json nor '
            'results.jsonl: it is no work dir of a run, or nothing was '
            f'logged yet. {"; ".join(notes)}'.rstrip()
        )
    source = _newest(folder, '*/vis_data/config.py') or _newest(folder, '*.py')
    config = _read_text(source) if source else ''
    pictures = _read_pictures(folder, notes)
    environment = _read_environment(folder)
    cfg = read_settings(config, notes)
    summary = summarise(cfg, notes)
    found = judge(scalars)
    return RunRecord(
        name=name,
        scalars=scalars,
        results=results,
        summary=summary,
        settings=all_settings(cfg) if cfg else {},
        amounts=dict(amounts(scalars, summary, environment)),
        verdict=verdict(found) if scalars else None,
        findings=found,
        config=config,
        environment=environment,
        pictures=pictures,
        feature_map=_map_features(folder / 'features.npz', method, notes),
        notes=notes,
    )


def read_settings(config: str, notes: list[str]) -> dict[str, Any]:
    """Return what the text of a config says; it is not run."""
    try:
        return read_config_text(config)
    except ValueError as error:
        notes.append(f'the config cannot be summed up: {error}')
        return {}


def summarise(cfg: Mapping[str, Any], notes: list[str]) -> dict[str, str]:
    """Return the settings of a config that matter most.

    Args:
        cfg: As its text says.
        notes: Receives a line for what cannot be shown.
    """
    wanted = {
        'algorithm': 'model.type',
        'backbone': 'model.backbone.type',
        'depth or arch': 'model.backbone.depth model.backbone.arch',
        'dictionary': 'model.dictionary.type',
        'keys in the dictionary': 'model.dictionary.size',
        'temperature': 'model.loss.temperature',
        'm': 'model.m',
        'schedule of m': 'model.m_schedule',
        'optimizer': 'optim_wrapper.optimizer.type',
        'learning rate': 'optim_wrapper.optimizer.lr',
        'weight decay': 'optim_wrapper.optimizer.weight_decay',
        'precision': 'optim_wrapper.dtype',
        'accumulation': 'optim_wrapper.accumulative_counts',
        'batch per GPU': 'train_dataloader.batch_size',
        'data set': 'train_dataloader.dataset.type',
        'epochs': 'train_cfg.max_epochs',
        'iterations': 'train_cfg.max_iters',
        'seed': 'randomness.seed',
        'weights from': 'load_from',
    }
    found = {}
    for name, keys in wanted.items():
        values = [value_at(cfg, key) for key in keys.split()]
        known = [value for value in values if value is not None]
        if known:
            try:
                found[name] = str(known[0])
            except ValueError:  # A number of thousands of digits.
                notes.append(f'the config gives no {name} that can be shown')
    return found


def all_settings(cfg: Mapping[str, Any]) -> dict[str, str]:
    """Return every setting of a config by its path, as text."""
    with suppress(ValueError):  # A number of thousands of digits.
        return {place: str(value) for place, value in leaves(cfg)}
    return {}


def amounts(
    scalars: Series, summary: Mapping[str, str], environment: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """Yield how many images there were, and what the training took."""
    images = environment.get('training images')
    if is_number(images) and images:
        yield 'training images', f'{images:,}'
    losses = scalars.get('loss', [])
    batch = summary.get('batch per GPU', '')
    processes = environment.get('processes', 1)
    if losses and is_number(processes) and batch.isdecimal():
        seen = losses[-1][0] * float(batch) * processes
        yield 'images seen', f'{seen:,.0f}'
    # Seconds of an iteration, as they were at each line of the log.
    seconds, before = 0.0, 0.0
    for step, value in scalars.get('time', []):
        if math.isfinite(value):
            seconds += value * (step - before)
        before = step
    if 0 < seconds < math.inf:
        minutes = round(seconds / 60)
        text = f'{seconds:.0f} s'
        if seconds >= 120:
            text = f'{minutes} min'
        if seconds >= 7200:
            text = f'{minutes // 60:,} h {minutes % 60} min'
        yield 'of training, evaluations aside', text


def names_of(folders: Sequence[Path]) -> list[str]:
    """Return the last part of every path, or as many as tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    for count in range(1, max(map(len, parts)) + 1):
        names = ['/'.join(p[-count:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def _own(folder: Path, pattern: str) -> list[Path]:
    """Return the files of a work dir, without links that lead out of it.

    A report is passed on; a link in a foreign work dir would put a file of
    the reader into it.
    """
    return sorted(p for p in folder.glob(pattern) if _is_own(p, folder))


def _is_own(path: Path, folder: Path) -> bool:
    return _is_inside(path, folder) and path.is_file()


def _is_inside(path: Path, folder: Path) -> bool:
    # Path.resolve fails at a link to itself.
    place = Path(os.path.realpath(path))
    return place.is_relative_to(os.path.realpath(folder))


def _foreign(folder: Path) -> list[str]:
    """Say what was left out because it leads out of the work dir."""
    patterns = ('*', '*/*.json', '*/vis_data/*')
    links = sorted(
        str(path.relative_to(folder))
        for pattern in patterns
        for path in folder.glob(pattern)
        if not _is_inside(path, folder)
    )
    if not links:
        return []
    return [f'left out, since they lead out of it: {", ".join(links)}']


def _newest(folder: Path, pattern: str) -> Path | None:
    return max(_own(folder, pattern), default=None)


def _read_text(path: Path) -> str:
    """Read a short text.

    Raises:
        ValueError: If it is long.
    """
    with path.open('rb') as file:
        content = file.read(LARGEST_TEXT + 1)
    if len(content) > LARGEST_TEXT:
        raise ValueError(
            f'{str(path)!r} has more than {LARGEST_TEXT >> 20} MiB, which '
            'nobody would read: remove it, or leave this work dir out.'
        )
    return content.decode('utf-8', 'replace')


def _read_environment(folder: Path) -> dict[str, Any]:
    path = _newest(folder, '*/environment.json')
    if path is None:
        return {}
    try:
        found = json.loads(_read_text(path))
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{str(path)!r}: {error}') from None
    if not isinstance(found, dict):
        raise ValueError(f'{str(path)!r}: no JSON object')
    return found


def _read_pictures(folder: Path, notes: list[str]) -> list[Picture]:
    paths = {path.name: path for path in _own(folder, '*.png')}
    order = [name for name in CAPTIONS if name in paths]
    order += [name for name in paths if name not in (*CAPTIONS, *REDUNDANT)]
    pictures = []
    for name in order:
        size = paths[name].stat().st_size
        if size > LARGEST_PICTURE:
            notes.append(f'{name} is left out: {size / 2**20:.0f} MiB')
            continue
        png = paths[name].read_bytes()
        if not png.startswith(PNG):
            notes.append(f'{name} is left out: it is no PNG')
            continue
        pictures.append(Picture(CAPTIONS.get(name, name), png))
    return pictures


def _map_features(
    path: Path, method: str, notes: list[str]
) -> FeatureMap | None:
    """Map a seeded sample of the saved features to the plane."""
    if not _is_own(path, path.parent):
        return None
    try:
        features, labels = _read_features(path)
        total = len(features)
        if total > MAP_SAMPLES:
            draws = np.random.default_rng(0)
            chosen = draws.choice(total, MAP_SAMPLES, replace=False)
            features, labels = features[chosen], labels[chosen]
        points = embed(features, method)
    except (
        *(EOFError, KeyError, MemoryError, OSError, ValueError),
        zipfile.BadZipFile,
        NotImplementedError,
    ) as error:
        text = error.args[0] if error.args else error
        notes.append(f'features.npz is left out: {text}')
        return None
    part = f'{len(features)} of ' if len(features) < total else ''
    images = f'{part}{total} images'
    caption = f'{METHODS[method]} of the features of {images}, by label'
    return FeatureMap(caption, points, [str(label) for label in labels])


def _read_features(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    # Without pickle, an array cannot run code.
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type for entry in archive.infolist()):
            # A few bytes could unfold to more than there is memory.
            raise ValueError('its arrays are compressed; use numpy.savez')
    with np.load(path, allow_pickle=False) as file:
        features = file['features']
        if features.ndim != 2 or features.dtype.kind not in 'fiu':
            raise ValueError('its features are no N×D numbers')
        count = len(features)
        labels = file['labels'] if 'labels' in file else np.zeros(count, int)
    if labels.shape != (count,):
        raise ValueError(f'{count} features but labels {labels.shape}')
    return features, labels
