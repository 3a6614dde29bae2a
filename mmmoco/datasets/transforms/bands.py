"""Images of any number of bands: reading, and operations that suit them.

An image is an array H×W×C of uint8, uint16, int16 or float32. What would
need red, green and blue (hue, saturation) has no meaning here.
"""

import io
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from numpy.typing import NDArray

from mmmoco.files import MAX_BYTES, hidden, read_file
from mmmoco.functional import Range, check_range, check_within
from mmmoco.messages import printable
from mmmoco.registry import TRANSFORMS

from .fast_views import Drawn, FastView, Results
from .loading import check_size, decoding, deep_values, identify
from .pixel_ops import AnyImage
from .tiff import TIFF, read_tiff, sides_of

#: Other types are read as float32.
DTYPES = ('uint8', 'uint16', 'int16', 'float32')

_NPY = b'\x93NUMPY'
#: PIL's modes whose channels are bands as they are.
_CHANNELS = ('L', 'LA', 'RGB', 'RGBA')


class Bands(NamedTuple):
    """An image, and where it has no value.

    Attributes:
        image: H×W×C.
        missing: H×W×C, NaN, infinite, or what the file calls no data; None:
            there is a value everywhere.
    """

    image: AnyImage
    missing: NDArray[np.bool_] | None

    def of(self, numbers: Sequence[int]) -> 'Bands':
        """Return a copy of some bands."""
        gap = None if self.missing is None else self.missing[..., numbers]
        return Bands(self.image[..., numbers], gap)


@TRANSFORMS.register_module()
class LoadBands(BaseTransform):
    """Read a multi-band image to ``img``, H×W×C.

    From GeoTIFF or TIFF (extra ``satellite``), ``.npy``, PNG, JPEG, BMP or
    WebP (one to four channels), as the content tells; or from a folder with
    one file for each band, as Sentinel-2 comes; its bands are brought to the
    size of the largest, bilinearly. Where there is no value (NaN, infinite,
    or GDAL's value for no data) the image becomes 0, and ``missing`` of the
    results, H×W×C, says where.

    Args:
        bands: Which bands, in which order: numbers counted from 0 or, for a
            folder, names of files without ending. None: all.
        order: ``'hwc'`` or ``'chw'``, how the file stores them; ``'auto'``:
            as a TIFF says, and the shorter of first and last axis for
            ``.npy``. What may as well be a series of images is refused.
        extensions: Which files of a folder are bands.
        max_bytes: Larger files, and files that unpack to more, are refused.
        nodata: Value that says that there is none, where a file does not
            tell its own.
    """

    def __init__(
        self,
        bands: Sequence[int] | Sequence[str] | None = None,
        order: str = 'auto',
        extensions: Sequence[str] = ('.tif', '.tiff', '.npy'),
        max_bytes: int = MAX_BYTES,
        nodata: float | None = None,
    ) -> None:
        if order not in ('auto', 'hwc', 'chw'):
            raise ValueError(f"order={order!r}: use 'auto', 'hwc' or 'chw'.")
        self.bands: list[Any] | None = None if bands is None else list(bands)
        self.order, self.extensions = order, tuple(extensions)
        self.max_bytes, self.nodata = max_bytes, nodata

    def transform(self, results: Results) -> Results:
        """Read ``img_path``, or ``img_bytes``.

        Raises:
            OSError: If it cannot be read or has no such band, naming it.
            ImportError: If a library is missing.
        """
        path = str(results['img_path'])
        data = results.get('img_bytes')
        if data is None and Path(path).is_dir():
            found = self._read_folder(Path(path))
        else:
            if data is None:
                data = read_file(path, self.max_bytes)
            found = self._select(self._read(data, path), path)
        results['img'] = np.ascontiguousarray(found.image)
        if found.missing is not None:
            results['missing'] = found.missing
        return results

    def _read(self, data: bytes, path: str) -> Bands:
        """Return all bands of a file."""
        nothing, axis, order = self.nodata, None, self.order
        with decoding(path, 'read bands of'):
            if data.startswith(_NPY):
                image = _read_npy(data)
            elif data.startswith(TIFF):
                image, axis, told = read_tiff(data, self.max_bytes)
                nothing = nothing if told is None else told
            else:
                image, order = _read_picture(data), 'hwc'
        if image.ndim == 2:
            image, order = image[..., None], 'hwc'
        if image.ndim != 3 or 0 in image.shape:
            raise _unfit(path, f'shape {image.shape} is no image')
        if order != 'auto':
            axis = order.index('c')
        elif axis is None:
            first, _, last = image.shape
            axis = 0 if first < last else 2
            many = min(first, last) >= max(17, sorted(image.shape)[1])
            if data.startswith(TIFF) or first == last or many:
                raise _unfit(
                    path,
                    f'shape {image.shape} may be bands or a series of images:'
                    " say order='chw' if the bands come first, 'hwc' if last",
                )
        return _with_zeros(np.moveaxis(image, axis, 2), nothing)

    def _select(self, read: Bands, path: str) -> Bands:
        if self.bands is None:
            return read
        count = read.image.shape[2]
        if any(isinstance(band, str) for band in self.bands):
            raise _unfit(
                path,
                f'bands={self.bands} name the files of a folder, and this is '
                f'one file of {count} bands: give numbers, counted from 0',
            )
        if not all(0 <= band < count for band in self.bands):
            raise _unfit(path, f'bands={self.bands}, but there are {count}')
        return read.of(self.bands)

    def _read_folder(self, folder: Path) -> Bands:
        found = {
            file.stem: file
            for file in sorted(folder.iterdir(), key=natural_order)
            if file.suffix.lower() in self.extensions and not hidden(file.name)
        }
        names = list(found)
        if self.bands is not None:
            names = [
                (names[band] if 0 <= band < len(names) else f'number {band}')
                if isinstance(band, int)
                else band
                for band in self.bands
            ]
        absent = [name for name in names if name not in found]
        if absent or not names:
            raise _unfit(
                str(folder),
                f'no {", ".join(absent) or "band"} among {sorted(found)}',
            )
        parts, held = [], 0
        for name in names:
            data = read_file(found[name], self.max_bytes)
            # One band of each; the memory of others is freed.
            parts.append(self._read(data, str(found[name])).of([0]))
            held += parts[-1].image.nbytes
            self._check_whole(held, folder)
        height, width = max(part.image.shape[:2] for part in parts)
        size = max(part.image.itemsize for part in parts)
        self._check_whole(height * width * size * len(parts), folder)
        with decoding(str(folder), 'resize bands of'):
            layers = [_first_band(part, height, width) for part in parts]
        image = np.stack([layer.image for layer in layers], axis=2)
        if all(layer.missing is None for layer in layers):
            return Bands(image, None)
        none = np.zeros((height, width), np.bool_)
        gaps = [none if x.missing is None else x.missing for x in layers]
        return Bands(image, np.stack(gaps, axis=2))

    def _check_whole(self, size: int, folder: Path) -> None:
        """Refuse bands that together are larger than a file may be."""
        if size > self.max_bytes:
            reason = f'{size} bytes are more than max_bytes={self.max_bytes}'
            raise _unfit(str(folder), f'together, {reason}')


def _unfit(path: str, reason: str) -> OSError:
    return OSError(f'Cannot read bands of {printable(path)!r}: {reason}')


def _with_zeros(image: AnyImage, nothing: float | None) -> Bands:
    """Put 0 where there is no value, and say where that is."""
    missing: Any = False if nothing is None else image == nothing
    if image.dtype.name not in DTYPES:
        with np.errstate(over='ignore'):  # Beyond what float32 can hold.
            image = image.astype(np.float32)
    if image.dtype.kind == 'f':
        missing = missing | ~np.isfinite(image)
    if not np.any(missing):
        return Bands(image, None)
    image = image.copy()
    image[missing] = 0
    return Bands(image, missing)


def _first_band(read: Bands, height: int, width: int) -> Bands:
    """Return a band H×W in a size; what has no value stays without."""
    image, missing = read
    band = image[..., 0]
    gap = None if missing is None else missing[..., 0]
    if band.shape == (height, width):
        return Bands(band, gap)
    resized: AnyImage = cv2.resize(band, (width, height))
    if gap is None:
        return Bands(resized, None)
    # Pixels that are mixed with a missing one have no value either.
    spread = cv2.resize(gap.astype(np.float32), (width, height)) > 0
    resized[spread] = 0
    return Bands(resized, spread)


def natural_order(path: Path) -> list[Any]:
    """Sort key by which B2 comes before B10, and B8 before B8A."""
    parts = re.split(r'([0-9]+)', path.name)
    return [int(p) if i % 2 else p for i, p in enumerate(parts)]


def _read_npy(data: bytes) -> AnyImage:
    """Read an array of numbers, if the file is as long as its header says.

    Raises:
        ValueError: If it is not, too large, or holds anything else.
    """
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    if version not in _NPY_HEADERS:
        raise ValueError(f'version {version} of .npy holds no plain numbers')
    shape, by_column, kind = _NPY_HEADERS[version](file)
    if kind.kind not in 'buif':
        raise ValueError(f'{kind} are no plain numbers')
    if any(side < 0 for side in shape):
        raise ValueError(f'shape {shape} is no image')
    check_size(*sides_of(shape))
    count = math.prod(shape)
    start = file.tell()
    if count * kind.itemsize > len(data) - start:
        raise ValueError(
            f'{len(data)} bytes are too few for shape {shape} of {kind}'
        )
    flat: AnyImage = np.frombuffer(data, kind, count, start)
    return flat.reshape(shape, order='F' if by_column else 'C')


_NPY_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def _read_picture(data: bytes) -> AnyImage:
    """Return H×W[×C] of a PNG, JPEG, BMP or WebP, channels as they are.

    Raises:
        OSError: If it is none, or its channels are no bands.
    """
    image = identify(data)
    values = deep_values(image, data)
    if values is not None:
        return values
    if image.mode == '1':
        image = image.convert('L')
    if image.mode not in _CHANNELS:
        raise OSError(
            f'the channels of mode {image.mode!r} are no bands: convert it '
            f'to one of {", ".join(_CHANNELS)}'
        )
    return np.array(image)


class OddBandsError(OSError, ValueError):
    """An image has other bands than the rest: it counts as a bad file."""


@TRANSFORMS.register_module()
class ScaleBands(BaseTransform):
    """Map values linearly to uint8, band by band: low → 0, high → 255.

    A quarter of the bytes of float32 then travel to the device. SSL4EO-S12
    takes mean ± 2 standard deviations.

    Args:
        low: Lower end, one value or one for each band.
        high: Upper end, one value or one for each band.
    """

    def __init__(
        self, low: float | Sequence[float], high: float | Sequence[float]
    ) -> None:
        self.low = np.asarray(low, np.float32)
        span = np.asarray(high, np.float32) - self.low
        if not (span > 0).all():
            raise ValueError(f'low={low} must lie below high={high}.')
        self.factor = (255.0 / span).astype(np.float32)
        self.limits = self.low, np.asarray(high, np.float32)

    def transform(self, results: Results) -> Results:
        """Scale ``img``."""
        image = self.check(results)
        scaled = (image.astype(np.float32) - self.low) * self.factor
        results['img'] = to_dtype(scaled, np.dtype(np.uint8))
        return results

    def check(self, results: Results) -> AnyImage:
        """Return ``img``, if it has so many bands.

        Raises:
            OddBandsError: If not, naming the file.
        """
        image: AnyImage = results['img']
        try:
            check_bands('low and high', self.low, image)
        except ValueError as error:
            name = printable(str(results.get('img_path', 'an image')))
            raise OddBandsError(
                f'{name!r}: {error} Set them (multiband), or leave such '
                'files out (exclude).'
            ) from None
        return image


@TRANSFORMS.register_module()
class BandBrightnessContrast(FastView):
    """Brightness and contrast for any bands, by an affine map.

    Brightness scales; contrast scales around the mean of each band of the
    image, as SSL4EO-S12 does.

    Args:
        brightness: The factor is drawn from [1 − b, 1 + b].
        contrast: The factor is drawn from [1 − c, 1 + c].
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
        check_within(brightness=brightness, contrast=contrast)
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

    def __init__(self, sigma: Range = (0.1, 2.0), prob: float = 0.5) -> None:
        super().__init__(prob)
        check_range('sigma', sigma, positive=True)
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
