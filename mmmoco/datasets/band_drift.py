"""Whether the bands of a data set are what a config expects."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from mmmoco.messages import few, log_warning, printable

from .band_presets import far_off, nearest
from .transforms.bands import LoadBands, OddBandsError, ScaleBands

#: Standard deviations that one band, and all of them on average, may be off.
_ONE, _AVERAGE = 1.5, 0.6


def check_drift(steps: list[Any], samples: Iterator[Any]) -> None:
    """Hold the means of some images against the range they are scaled by.

    Args:
        steps: Transforms of the data set.
        samples: What reads a sample of it.

    Raises:
        OddBandsError: If all have another number of bands.
    """
    load = next((s for s in steps if isinstance(s, LoadBands)), None)
    scale = next((s for s in steps if isinstance(s, ScaleBands)), None)
    if load is None or scale is None:
        return
    sums, counts, odd = 0.0, 0.0, None
    for sample in samples:
        try:
            results = load(sample())
            image, missing = scale.check(results), results.get('missing')
        except OddBandsError as error:
            odd = error
            continue
        except OSError:
            continue  # A bad file; it is noted when it is met in training.
        there = np.True_ if missing is None else ~missing
        sums += np.where(there, image, 0).sum((0, 1), dtype=np.float64)
        counts += np.broadcast_to(there, image.shape).sum((0, 1))
    if not np.any(counts):
        if odd:
            raise odd
        return
    mean = sums / np.maximum(counts, 1)
    low, high = (np.broadcast_to(x, mean.shape) for x in scale.limits)
    off = np.where(counts > 0, far_off(mean, low, high), 0)
    if off.max() <= _ONE and off.mean() <= _AVERAGE:
        return
    lines = [
        f'band {i}: mean {mean[i]:.4g}, expected {(low[i] + high[i]) / 2:.4g}'
        f' ± {(high[i] - low[i]) / 4:.4g}'
        for i in np.argsort(-off)
    ]
    known = nearest(mean)
    near = f', and near to those of preset {known!r}' if known else ''
    log_warning(
        f'The bands of these images, such as '
        f'{printable(str(results["img_path"]))!r}, lie far from what the '
        f'network was or is to be trained on{near}: '
        f'{few(lines, 3, "; ")}. A training takes their statistics by '
        'multiband (mmmoco stats); an evaluation needs images like those of '
        'the training.'
    )
