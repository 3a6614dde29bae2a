"""Draws scenes with scikit-learn's handwritten digits.

scikit-learn ships 1,797 real digits of 8×8 pixels. A scene places one or more
of them at a random position, scale, slant and brightness on a noisy grey
canvas. Photographs as canvas would not do: two views of a scene share it, and
telling photographs apart is easier than reading the digits.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from mmmoco.functional import derive_seed

CLASSES = tuple('0123456789')
SPLITS = ('train', 'val')

#: To be raised whenever the same arguments draw other scenes.
DRAWING_VERSION = 1

_SOURCE_PIXELS = 8
_INK_COLUMNS = 6  # the outer columns of the sources are empty
_SMALLEST_DIGIT = 6
_TRIES_TO_PLACE = 20

Image = npt.NDArray[np.uint8]
Ink = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Box = tuple[int, int, int, int]  # x, y, width, height


@functools.cache
def source_digits() -> tuple[Ink, npt.NDArray[np.int64]]:
    """Return the 1,797 digits (N×8×8 in [0, 1]) and their labels."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = digits.images.astype(np.float32)
    images /= images.max(axis=(1, 2), keepdims=True)
    return images, digits.target.astype(np.int64)


@functools.cache
def source_split(split: str) -> npt.NDArray[np.int64]:
    """Return the indices of the digits that a split may show, shuffled.

    The split is 80/20, stratified by class and always the same, whatever
    seed the scenes are drawn with: no digit of one split is in the other.
    """
    from sklearn.model_selection import train_test_split

    _, labels = source_digits()
    parts = train_test_split(
        np.arange(len(labels)), test_size=0.2, random_state=0, stratify=labels
    )
    part: npt.NDArray[np.int64] = parts[SPLITS.index(split)]
    return part


@dataclass(frozen=True)
class SceneDigit:
    """One digit of a scene.

    Attributes:
        label: The digit, 0 to 9.
        source_id: Its index in scikit-learn's data.
        mask: H×W, the pixels where it is to be seen.
    """

    label: int
    source_id: int
    mask: Mask

    @property
    def bbox(self) -> Box:
        """The box around these pixels."""
        return bounding_box(self.mask)

    @property
    def area(self) -> int:
        """The number of these pixels."""
        return int(np.count_nonzero(self.mask))


@dataclass(frozen=True)
class ScenePainter:
    """Everything that decides how a scene looks; see :class:`DigitScenes`.

    Scene i depends on these values and on i, not on how many scenes are
    drawn or in which order.
    """

    split: str
    size: int
    digits_per_image: tuple[int, int]
    scale: tuple[float, float]
    max_slant: float
    background: tuple[float, float]
    contrast: tuple[float, float]
    noise: tuple[float, float]
    max_overlap: float
    seed: int

    def __post_init__(self) -> None:
        for name, holds, mend in self._rules():
            if not holds:
                value = getattr(self, name)
                raise ValueError(f'DigitScenes: {name}={value!r}: {mend}.')

    def _rules(self) -> Iterator[tuple[str, bool, str]]:
        """Yield what has to hold, of which argument, and what to do if not."""
        yield 'split', self.split in SPLITS, "use 'train' or 'val'"
        both = 'give the lowest and the highest'
        for name in ('digits_per_image', 'scale'):
            pair = getattr(self, name)
            fits = _ascends(pair) and pair[0] > 0
            yield name, fits, f'{both} value, above 0'
        for name in ('background', 'contrast', 'noise'):
            pair = getattr(self, name)
            fits = _ascends(pair) and pair[0] >= 0 and pair[1] <= 255
            yield name, fits, f'{both} grey level, 0 to 255'
        yield 'scale', self.scale[1] <= 1, 'use at most 1'
        yield (
            'size',
            self.scale[0] * self.size >= _SMALLEST_DIGIT,
            f'with scale {self.scale} digits can be under {_SMALLEST_DIGIT} '
            'pixels high, too small to read: use at least '
            f'{math.ceil(_SMALLEST_DIGIT / self.scale[0])}, or raise scale',
        )
        yield 'max_slant', 0 <= self.max_slant <= 45, 'use 0 to 45 degrees'
        fits = 0 <= self.max_overlap < 1
        yield 'max_overlap', fits, 'use a fraction from 0 to below 1'

    def draw(self, index: int) -> tuple[Image, list[SceneDigit]]:
        """Draw a scene.

        Args:
            index: Number of the scene.

        Returns:
            H×W grey image, and its digits in the order of drawing.
        """
        rng = np.random.default_rng(
            derive_seed(self.seed, 'DigitScenes', self.split, index)
        )
        images, labels = source_digits()
        background = rng.uniform(*self.background)
        canvas = np.full((self.size, self.size), background, np.float32)
        digits: list[SceneDigit] = []
        boxes: list[Box] = []
        for source_id in self._choose(rng, index):
            ink = self._place(rng, images[source_id], boxes)
            if ink is None:
                continue
            mask = ink > 0.5
            boxes.append(bounding_box(mask))
            for digit in digits:
                digit.mask[mask] = False
            digits.append(SceneDigit(int(labels[source_id]), source_id, mask))
            level = np.float32(background + rng.uniform(*self.contrast))
            canvas += ink * (level - canvas)
        noise = rng.standard_normal(canvas.shape, np.float32)
        canvas += noise * np.float32(rng.uniform(*self.noise))
        return canvas.clip(0, 255).round().astype(np.uint8), digits

    def _choose(self, rng: np.random.Generator, index: int) -> list[int]:
        """Return the sources of a scene's digits."""
        sources = source_split(self.split)
        chosen = [int(sources[index % len(sources)])]
        low, high = self.digits_per_image
        if high > 1:
            count = int(rng.integers(low, high + 1))
            chosen += rng.choice(sources, count - 1).tolist()
        return chosen

    def _place(
        self, rng: np.random.Generator, source: Ink, boxes: Sequence[Box]
    ) -> Ink | None:
        """Return the ink of a digit, H×W in [0, 1], or None without room."""
        for _ in range(_TRIES_TO_PLACE):
            ink = self._warp(rng, source)
            if not boxes:
                return ink
            box = bounding_box(ink > 0.5)
            if all(_overlap(box, b) <= self.max_overlap for b in boxes):
                return ink
        return None

    def _warp(self, rng: np.random.Generator, source: Ink) -> Ink:
        """Scale, slant and move a digit at random."""
        zoom = rng.uniform(*self.scale) * self.size / _SOURCE_PIXELS
        angle = rng.uniform(-self.max_slant, self.max_slant)
        slant = zoom * math.tan(math.radians(angle))
        half_height = zoom * _SOURCE_PIXELS / 2
        half_width = zoom * _INK_COLUMNS / 2 + abs(slant) * _SOURCE_PIXELS / 2
        x = self._centre(rng, half_width)
        y = self._centre(rng, half_height)
        # Pixel centres lie at 0.5; the middle of the source lands on (x, y).
        middle = (_SOURCE_PIXELS - 1) / 2
        matrix = np.array(
            [
                [zoom, slant, x - 0.5 - (zoom + slant) * middle],
                [0.0, zoom, y - 0.5 - zoom * middle],
            ]
        )
        ink = cv2.warpAffine(
            source, matrix, (self.size, self.size), flags=cv2.INTER_CUBIC
        )
        # Much enlarged, the ink would be a blur: make its edge steeper.
        gain = np.float32(max(1.0, zoom / 2))
        sharp: Ink = ((ink - np.float32(0.5)) * gain + np.float32(0.5)).clip(
            0, 1
        )
        return sharp

    def _centre(self, rng: np.random.Generator, half: float) -> float:
        """Draw a centre that leaves ``half`` on both sides, if it can."""
        half = min(half, self.size / 2)
        return rng.uniform(half, self.size - half)


def bounding_box(mask: Mask) -> Box:
    """Return the box around the pixels of a mask."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    return x, y, width, height


def _overlap(a: Box, b: Box) -> float:
    """Return what two boxes share, as a fraction of the smaller one."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    smaller = min(a[2] * a[3], b[2] * b[3])
    return max(width, 0) * max(height, 0) / smaller


def _ascends(pair: Sequence[float]) -> bool:
    return len(pair) == 2 and pair[0] <= pair[1]
