"""Statistics of the images of a folder, or of a config's training."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmmoco.apis import cli
from mmmoco.apis.config.files import load_config
from mmmoco.datasets.bad_files import BadFile, reason_of
from mmmoco.datasets.band_presets import PRESETS, nearest
from mmmoco.datasets.transforms.pipeline import build_pipeline
from mmmoco.progress import track
from mmmoco.registry import DATASETS

from .channel_statistics import ChannelStatistics

PERCENTILES = (1, 50, 99)
_RGB = dict(type='LoadRGB')
BANDS = ('.tif', '.tiff', '.npy')


class Measured(NamedTuple):
    """What was found.

    Attributes:
        statistics: Of the images that could be read.
        bad: The others.
    """

    statistics: ChannelStatistics
    bad: list[BadFile]

    def __str__(self) -> str:
        """Return a table, and lines to paste."""
        s = self.statistics
        rows = [
            ('mean', s.mean),
            ('std', s.std),
            ('min', s.low),
            *((f'{p} %', s.percentile(p)) for p in PERCENTILES),
            ('max', s.high),
        ]
        lines = [
            f'{s.images} images, {s.pixels} pixels, {len(s.mean)} channels'
        ]
        lines.append(f'{"channel":>8}' + ''.join(f'{n:>12}' for n, _ in rows))
        for channel in range(len(s.mean)):
            values = ''.join(f'{float(v[channel]):12.5g}' for _, v in rows)
            lines.append(f'{channel:>8}{values}')
        if s.missing.any():
            share = 100 * s.missing.sum() / (s.pixels * len(s.missing))
            each = ', '.join(map(str, s.missing))
            lines.append(
                f'{s.missing.sum()} values ({share:.3g} %) are missing (NaN, '
                f'infinite, or no data) and were left out; by channel: {each}'
            )
        for name, column in rows[:2]:
            numbers = ', '.join(f'{v:.3f}' for v in column)
            lines.append(f'{name}=({numbers},),')
        known = nearest(s.mean)
        if known:
            lines.append(
                f'The means are near those of the preset {known!r} '
                f'({PRESETS[known]["source"]}).'
            )
        if self.bad:
            lines.append(f'{len(self.bad)} bad files were left out.')
        return '\n'.join(lines)


def measure(
    dataset: Any, load: Sequence[dict[str, Any]], indices: Iterable[int]
) -> Measured:
    """Read images and add them up.

    Args:
        dataset: Has ``sample(index)`` and ``name_of(index)``.
        load: Configs of what turns a sample into ``img``.
        indices: Which samples.
    """
    read = build_pipeline(load)
    statistics = ChannelStatistics()
    bad: list[BadFile] = []
    for index in track(indices, 'Reading images'):
        try:
            sample = dataset.sample(index)
            # All acquisitions of a place.
            paths = sample.get('acquisitions', [sample.get('img_path')])
            found = [read({**sample, 'img_path': p}) for p in paths]
        except OSError as error:
            bad.append(BadFile(dataset.name_of(index), reason_of(error)))
            continue
        for results in found:
            image = np.asarray(results['img'])
            try:
                statistics.add(image, results.get('missing'))
            except ValueError as error:
                raise cli.UsageError(
                    f'{results["img_path"]!r} has {image.shape[2]} channels, '
                    f'the {statistics.images} before it have '
                    f'{len(statistics.mean)}: leave one kind out with '
                    "--exclude PATTERN (such as '*_mask.tif')."
                ) from error
    return Measured(statistics, bad)


def open_source(
    source: str | Config,
    bands: bool,
    options: cli.Settings | None,
    patterns: Mapping[str, Sequence[str]],
    load: Mapping[str, Any],
) -> tuple[Any, list[dict[str, Any]]]:
    """Return the data set of a folder or a config, and what loads images.

    Args:
        source: Folder or config.
        bands: Whether the images of a folder are bands.
        options: Of the config.
        patterns: ``include`` and ``exclude``, of a folder.
        load: Arguments of ``LoadBands``, of a folder.
    """
    if isinstance(source, str) and Path(source).expanduser().is_dir():
        step = dict(type='LoadBands', **load) if bands else _RGB
        return _folder(source, bands, patterns), [step]
    cfg = load_config(source, options)
    settings = cfg.train_dataloader.dataset.to_dict()
    loading = list(loads(settings.get('pipeline', ())))
    with DefaultScope.overwrite_default_scope('mmmoco'):
        dataset = DATASETS.build(settings)
    if not hasattr(dataset, 'sample'):
        raise cli.UsageError(
            f'{settings["type"]} can only be read from front to back: measure '
            'the images that it was made of.'
        )
    return dataset, loading or [_RGB]


def _folder(
    source: str, bands: bool, patterns: Mapping[str, Sequence[str]]
) -> Any:
    """Return the images of a folder; with ``bands`` those of more channels.

    Where there is none of those, the usual kinds have one to four.
    """
    settings: dict[str, Any] = dict(type='ImageFolderDataset')
    settings.update(data_root=source, **patterns)
    if bands:
        try:
            return DATASETS.build({**settings, 'extensions': BANDS})
        except FileNotFoundError:
            pass
    return DATASETS.build(settings)


def loads(pipeline: Iterable[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """Yield the transforms before the views, those inside them too."""
    for transform in pipeline:
        if 'views' in transform:
            yield from transform.get('load', ())
            return
        yield transform
