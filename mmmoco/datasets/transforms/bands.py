"""Images of any number of bands: reading, and operations that suit them.

An image is an array H×W×C of uint8, uint16, int16 or float32. What would
need red, green and blue (hue, saturation) has no meaning here.
"""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from numpy.typing import NDArray

from mmmoco.registry import TRANSFORMS

from .fast_views import Drawn, FastView
from .loading import check_size

Results = dict[str, Any]
AnyImage = NDArray[Any]

#: Other types are read as float32.
DTYPES = ('uint8', 'uint16', 'int16', 'float32')
TIFF = ('.tif', '.tiff')


@TRANSFORMS.register_module()
class LoadBands(BaseTransform):
    """Read a multi-band image to ``img``, H×W×C.

    From GeoTIFF or TIFF (extra ``satellite``), ``.npy``, or a folder with
    one file for each band, as Sentinel-2 comes; its bands are brought to the
    size of the largest, bilinearly. Values that are no number become 0.

    Args:
        bands: Which bands, in which order: numbers counted from 0 or, for a
            folder, names of files without ending. None: all.
        order: ``'hwc'`` or ``'chw'``, how the file stores them; ``'auto'``:
            as a TIFF says, and the shorter of first and last axis for
            ``.npy``.
        extensions: Which files of a folder are bands.
    """

    def __init__(
        self,
        bands: Sequence[int] | Sequence[str] | None = None,
        order: str = 'auto',
        extensions: Sequence[str] = (*TIFF, '.npy'),
    ) -> None:
        if order not in ('auto', 'hwc', 'chw'):
            raise ValueError(f"order={order!r}: use 'auto', 'hwc' or 'chw'.")
        self.bands: list[Any] | None = None if bands is None else list(bands)
        self.order, self.extensions = order, tuple(extensions)

    def transform(self, results: Results) -> Results:
        """Read ``img_path``, or ``img_bytes`` with the ending of its path.

        Raises:
            OSError: If it cannot be read or has no such band, naming it.
            ImportError: If a library is missing.
        """
        path = str(results['img_path'])
        try:
            if Path(path).is_dir():
                image = self._read_folder(Path(path))
            else:
                data = results.get('img_bytes')
                source = path if data is None else io.BytesIO(data)
                image = self._select(self._read(source, path), path)
        except ImportError:
            raise
        except Exception as error:  # Damaged files raise almost anything.
            reason = str(error) or type(error).__name__
            raise OSError(
                f'Cannot read bands of {path!r}: {reason}'
            ) from error
        if image.dtype.name not in DTYPES:
            image = image.astype(np.float32)
        if image.dtype == np.float32 and not np.isfinite(image).all():
            image = np.nan_to_num(image, posinf=0.0, neginf=0.0)
        results['img'] = np.ascontiguousarray(image)
        return results

    def _read(self, source: str | io.BytesIO, path: str) -> AnyImage:
        """Return H×W×C."""
        if path.lower().endswith('.npy'):
            image, axis = _read_npy(source), None
        else:
            image, axis = read_tiff(source)
        if image.ndim == 2:
            image, axis = image[..., None], 2
        if image.ndim != 3 or 0 in image.shape:
            raise ValueError(f'shape {image.shape} is no image')
        if self.order != 'auto':
            axis = self.order.index('c')
        elif axis is None:
            axis = 0 if image.shape[0] < image.shape[2] else 2
        return np.moveaxis(image, axis, 2)

    def _select(self, image: AnyImage, path: str) -> AnyImage:
        if self.bands is None:
            return image
        if any(isinstance(band, str) for band in self.bands):
            raise ValueError(f'bands={self.bands} name files, this is a file')
        count = image.shape[2]
        if not all(0 <= band < count for band in self.bands):
            raise ValueError(f'bands={self.bands}, but there are {count}')
        return image[..., [band for band in self.bands]]

    def _read_folder(self, folder: Path) -> AnyImage:
        found = {
            file.stem: file
            for file in sorted(folder.iterdir(), key=natural_order)
            if file.suffix.lower() in self.extensions
        }
        names = list(found)
        if self.bands is not None:
            names = [
                names[band] if isinstance(band, int) else band
                for band in self.bands
            ]
        missing = [name for name in names if name not in found]
        if missing or not names:
            raise FileNotFoundError(
                f'no {", ".join(missing) or "band"} among {sorted(found)}'
            )
        parts = [self._read(str(found[n]), str(found[n])) for n in names]
        height, width = max(part.shape[:2] for part in parts)
        layers = [
            part[..., 0]
            if part.shape[:2] == (height, width)
            else cv2.resize(part[..., 0], (width, height))
            for part in parts
        ]
        return np.stack(layers, axis=2)


def natural_order(path: Path) -> list[Any]:
    """Sort key by which B2 comes before B10, and B8 before B8A."""
    parts = re.split(r'(\d+)', path.name)
    return [int(p) if p.isdigit() else p for p in parts]


def _read_npy(source: str | io.BytesIO) -> AnyImage:
    """Read an array, if the file is as long as its header says.

    Raises:
        ValueError: If it is not, or too large.
    """
    if isinstance(source, str):
        source = io.BytesIO(Path(source).read_bytes())
    with source as file:
        version = np.lib.format.read_magic(file)
        shape = _NPY_HEADERS[version](file)[0]
        check_size(*_sides(shape))
        file.seek(0)
        array: AnyImage = np.load(file, allow_pickle=False)
    return array


_NPY_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def _sides(shape: Sequence[int]) -> tuple[int, int]:
    """Width and height of an image of any order of axes."""
    large = sorted(shape, reverse=True)[:2]
    return (large[0], large[1]) if len(large) == 2 else (0, 0)


def read_tiff(source: str | io.BytesIO) -> tuple[AnyImage, int | None]:
    """Return the first image of a TIFF, and the axis of its bands.

    Raises:
        ImportError: If tifffile, or the codec of the file, is missing.
    """
    try:
        import tifffile
    except ImportError as error:
        raise ImportError(
            'TIFF files need tifffile: pip install "mmmoco[satellite]".'
        ) from error
    with tifffile.TiffFile(source) as file:
        series = file.series[0]
        check_size(*_sides(series.shape))
        try:
            image = series.asarray()
        except ValueError as error:
            if 'imagecodecs' not in str(error):
                raise
            raise ImportError(
                f'This TIFF is compressed ({error}): pip install '
                '"mmmoco[satellite]".'
            ) from error
        rest = [i for i, axis in enumerate(series.axes) if axis not in 'YX']
    return image, rest[0] if image.ndim == 3 and len(rest) == 1 else None


@TRANSFORMS.register_module()
class ScaleBands(BaseTransform):
    """Map values linearly to uint8, band by band: low → 0, high → 255.

    A quarter of the bytes of float32 then travel to the device. SSL4EO-S12
    takes mean ± 2 standard deviations.

    Args:
        low: One value, or one for each band.
        high: Likewise.
    """

    def __init__(
        self, low: float | Sequence[float], high: float | Sequence[float]
    ) -> None:
        self.low = np.asarray(low, np.float32)
        span = np.asarray(high, np.float32) - self.low
        if not (span > 0).all():
            raise ValueError(f'low={low} must lie below high={high}.')
        self.factor = (255.0 / span).astype(np.float32)

    def transform(self, results: Results) -> Results:
        """Scale ``img``."""
        image = results['img']
        check_bands('low and high', self.low, image)
        scaled = (image.astype(np.float32) - self.low) * self.factor
        results['img'] = to_dtype(scaled, np.dtype(np.uint8))
        return results


@TRANSFORMS.register_module()
class BandBrightnessContrast(FastView):
    """Brightness and contrast for any bands, by an affine map.

    Brightness scales; contrast scales around the mean of each band of the
    image, as SSL4EO-S12 does.

    Args:
        brightness: The factor is drawn from [1 − b, 1 + b].
        contrast: Likewise.
        prob: Probability of changing the image at all.
        per_band: Draw for every band, instead of once for all.
    """

    def __init__(
        self,
        brightness: float = 0.4,
        contrast: float = 0.4,
        prob: float = 0.8,
        per_band: bool = False,
    ) -> None:
        super().__init__(prob)
        if not (0.0 <= brightness <= 1.0 and 0.0 <= contrast <= 1.0):
            raise ValueError(
                f'brightness={brightness} and contrast={contrast} must lie '
                'within [0, 1].'
            )
        self.brightness, self.contrast = brightness, contrast
        self.per_band = per_band

    def draw(self, height: int, width: int) -> Drawn:
        """Draw one pair of factors, or the seed of one for each band."""
        if self.per_band:
            return dict(seed=np.random.randint(2**31))
        b, c = self.brightness, self.contrast
        return dict(
            brightness=np.random.uniform(1 - b, 1 + b),
            contrast=np.random.uniform(1 - c, 1 + c),
        )

    def apply(self, image: AnyImage, **drawn: Any) -> AnyImage:
        """Return the image, changed."""
        if 'seed' in drawn:
            draws = np.random.default_rng(drawn['seed'])
            b, c = (
                draws.uniform(1 - x, 1 + x, image.shape[2])
                for x in (self.brightness, self.contrast)
            )
        else:
            b, c = (np.asarray(drawn[x]) for x in ('brightness', 'contrast'))
        mean = b * image.mean((0, 1), dtype=np.float64)
        changed = image * (b * c).astype(np.float32)
        changed += ((1 - c) * mean).astype(np.float32)
        return to_dtype(changed, image.dtype)


@TRANSFORMS.register_module()
class BandGray(FastView):
    """Replace all bands by their mean (SSL4EO-S12's greyscale).

    Args:
        prob: Probability of doing so.
    """

    def __init__(self, prob: float = 0.2) -> None:
        super().__init__(prob)

    def draw(self, height: int, width: int) -> Drawn:
        """There is nothing to draw."""
        return {}

    def apply(self, image: AnyImage, **drawn: Any) -> AnyImage:
        """Return as many bands, all equal."""
        mean = image.mean(2, dtype=np.float32, keepdims=True)
        return np.repeat(to_dtype(mean, image.dtype), image.shape[2], axis=2)


@TRANSFORMS.register_module()
class BandBlur(FastView):
    """Blur every band by OpenCV's Gaussian, as SSL4EO-S12 does.

    It samples the Gaussian at whole pixels, and so hardly acts below σ = 0.3.

    Args:
        sigma: Range of the standard deviation in pixels.
        prob: Probability that the operation acts.
    """

    def __init__(
        self, sigma: tuple[float, float] = (0.1, 2.0), prob: float = 0.5
    ) -> None:
        super().__init__(prob)
        if not 0.0 < sigma[0] <= sigma[1]:
            raise ValueError(f'sigma={sigma} must be positive, low to high.')
        self.sigma = sigma

    def draw(self, height: int, width: int) -> Drawn:
        """Draw σ."""
        return dict(sigma=np.random.uniform(*self.sigma))

    def apply(self, image: AnyImage, **drawn: Any) -> AnyImage:
        """Return the blurred image."""
        sigma = drawn['sigma']
        blurred: Any = cv2.GaussianBlur(image, (0, 0), sigma)
        return blurred.reshape(image.shape)  # OpenCV drops a single band.


def to_dtype(image: AnyImage, dtype: np.dtype[Any]) -> AnyImage:
    """Round and clip for integers; floats are kept as they are."""
    if dtype.kind == 'f':
        return image.astype(dtype, copy=False)
    limits = np.iinfo(dtype)
    clipped = np.clip(np.rint(image), limits.min, limits.max)
    return clipped.astype(dtype)


def check_bands(name: str, values: AnyImage, image: AnyImage) -> None:
    """Refuse per-band values that do not fit an image.

    Raises:
        ValueError: Naming both numbers.
    """
    if values.ndim and len(values) not in (1, image.shape[2]):
        raise ValueError(
            f'{name} have {len(values)} values, but the image has '
            f'{image.shape[2]} bands.'
        )
