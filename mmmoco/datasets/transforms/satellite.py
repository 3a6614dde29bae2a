"""Views of images from above: no direction is up, and seasons pass.

All work on arrays H×W×C, of any number of bands and any type.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmmoco.registry import TRANSFORMS

from .bands import check_bands, to_dtype
from .fast_views import Drawn, FastView, Results
from .pipeline import build_pipeline
from .pixel_ops import AnyImage
from .views import Views


@TRANSFORMS.register_module()
class DiscreteRotation(FastView):
    """Turn by a quarter, a half or three quarters: pixels only move.

    Args:
        angles: Degrees, counter-clockwise; one is drawn.
    """

    def __init__(self, angles: Sequence[int] = (0, 90, 180, 270)) -> None:
        super().__init__(prob=1.0)
        if not angles or any(angle % 90 for angle in angles):
            raise ValueError(
                f'angles={tuple(angles)}: only multiples of 90 degrees need '
                'no interpolation.'
            )
        self.angles = tuple(angles)

    def draw(self, height: int, width: int) -> Drawn:
        """Draw the angle."""
        return dict(angle=self.angles[np.random.randint(len(self.angles))])

    def apply(self, image: AnyImage, **drawn: Any) -> AnyImage:
        """Return the turned image."""
        return np.ascontiguousarray(np.rot90(image, drawn['angle'] // 90))


@TRANSFORMS.register_module()
class GaussianNoise(FastView):
    """Add noise as the sensor does: before scaling and normalisation.

    The type stays; integers are rounded and clipped to their range.

    Args:
        std: Standard deviation in units of the image; one value, or one for
            each band.
        prob: Probability of adding any.
    """

    def __init__(
        self, std: float | Sequence[float] = 5.0, prob: float = 0.5
    ) -> None:
        super().__init__(prob)
        self.std = np.asarray(std, np.float32)
        if self.std.ndim > 1 or (self.std < 0).any():
            raise ValueError(f'std={std} must be at least 0.')

    def draw(self, height: int, width: int) -> Drawn:
        """Draw the seed: numpy's older generator is three times as slow."""
        return dict(seed=np.random.randint(2**31))

    def apply(self, image: AnyImage, **drawn: Any) -> AnyImage:
        """Return the noisy image."""
        check_bands('std', self.std, image)
        draws = np.random.default_rng(drawn['seed'])
        noise = draws.standard_normal(image.shape, np.float32)
        noise *= self.std
        noise += image
        return to_dtype(noise, image.dtype)


@TRANSFORMS.register_module()
class SeasonalViews(Views):
    """Make each view from another acquisition of the same place.

    Takes the samples of :class:`SeasonalPlaces`. A single image counts as a
    place of one acquisition.

    Args:
        load: Configs of what reads an acquisition from ``img_path``.
        views: Name of the view → configs of its transforms.
        distinct: Never draw an acquisition twice for one sample; otherwise
            every view draws from all, as SSL4EO-S12 does.
    """

    def __init__(
        self,
        load: Sequence[dict[str, Any]],
        views: Mapping[str, Sequence[dict[str, Any]]],
        distinct: bool = True,
    ) -> None:
        super().__init__(views)
        self.load = build_pipeline(load)
        self.distinct = distinct

    def transform(self, results: Results) -> Results:
        """Read the drawn acquisitions and make the views.

        Raises:
            ValueError: If there are fewer acquisitions than views.
        """
        paths = results.get('acquisitions', [results['img_path']])
        count = len(self.views)
        if self.distinct and len(paths) < count:
            raise ValueError(
                f'{results["img_path"]!r} has {len(paths)} acquisitions for '
                f'{count} views: set min_acquisitions={count} in the data '
                'set, or distinct=False in SeasonalViews.'
            )
        drawn = np.random.choice(len(paths), count, replace=not self.distinct)
        images = {
            number: self.load({'img_path': paths[number]})['img']
            for number in dict.fromkeys(drawn.tolist())
        }
        return self.pack([images[n] for n in drawn.tolist()], results)
