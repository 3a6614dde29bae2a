"""Published statistics of raw images from above, to be named in a config."""

from collections.abc import Mapping
from typing import Any

import numpy as np

_V1 = 'SSL4EO-S12 v1.0, arXiv 2211.07044'
_V11 = 'SSL4EO-S12 v1.1, whose values keep the offset of 1000 since 2022'
_CLAY = "Clay's metadata.yaml"
_L1C = 'B1 B2 B3 B4 B5 B6 B7 B8 B8A B9 B10 B11 B12'
_L2A = 'B1 B2 B3 B4 B5 B6 B7 B8 B8A B9 B11 B12'
_LANDSAT = 'red green blue nir swir1 swir2'

#: Names of the bands, mean and std of each, where from, and no data; instead
#: of mean and std, the values that become 0 and 255.
PRESETS: dict[str, dict[str, Any]] = {
    'sentinel2-l1c': dict(
        bands=_L1C,
        mean=(
            1605.6, 1390.8, 1314.9, 1363.5, 1549.4, 2091.7, 2371.7, 2299.9,
            2560.3, 830.1, 22.1, 2177.1, 1524.1,
        ),
        std=(
            786.8, 850.3, 875.1, 1138.8, 1122.2, 1161.6, 1274.4, 1248.4,
            1345.5, 577.3, 51.2, 1336.1, 1136.5,
        ),
        nodata=0,
        source=_V1,
    ),
    'sentinel2-l1c-offset': dict(
        bands=_L1C,
        mean=(
            2607.3, 2393.1, 2320.2, 2374.0, 2562.5, 3110.1, 3392.8, 3321.2,
            3583.8, 1838.7, 1021.8, 3205.1, 2545.8,
        ),
        std=(
            786.5, 849.7, 875.3, 1143.6, 1126.2, 1162.0, 1273.5, 1246.8,
            1342.8, 576.8, 45.6, 1340.3, 1145.0,
        ),
        nodata=0,
        source=_V11,
    ),
    'sentinel2-l2a': dict(
        bands=_L2A,
        mean=(
            752.4, 884.3, 1144.2, 1297.5, 1624.9, 2194.6, 2422.2, 2517.8,
            2581.6, 2645.5, 2368.5, 1805.1,
        ),
        std=(
            1108.0, 1155.2, 1183.6, 1368.1, 1370.3, 1355.6, 1416.5, 1474.8,
            1439.3, 1582.3, 1455.5, 1343.5,
        ),
        nodata=0,
        source=_V1,
    ),
    'sentinel2-l2a-offset': dict(
        bands=_L2A,
        mean=(
            1793.2, 1924.9, 2184.6, 2340.9, 2671.4, 3240.1, 3468.4, 3563.2,
            3627.7, 3711.1, 3416.7, 2849.6,
        ),
        std=(
            1160.1, 1201.1, 1219.9, 1397.2, 1400.0, 1373.1, 1429.2, 1485.0,
            1447.8, 1652.7, 1471.0, 1365.3,
        ),
        nodata=0,
        source=_V11,
    ),
    # Its limits of uint8, which are values / 10,000 × 255, as raw values.
    'sentinel2-rgb-seco': dict(
        bands='B4 B3 B2',
        low=(0, 78, 118),
        high=(5059, 4039, 3451),
        nodata=0,
        source='SeCo, arXiv 2103.16607',
    ),
    'landsat-c2-l1': dict(
        bands=_LANDSAT,
        mean=(10678, 10563, 11083, 14792, 12276, 10114),
        std=(6025, 5411, 5468, 6746, 5897, 4850),
        nodata=0,
        source=_CLAY,
    ),
    'landsat-c2-l2': dict(
        bands=_LANDSAT,
        mean=(13705, 13310, 12474, 17801, 14615, 12701),
        std=(9578, 9408, 10144, 8277, 5300, 4522),
        nodata=0,
        source=_CLAY,
    ),
    'naip': dict(
        bands='red green blue nir',
        mean=(110.16, 115.41, 98.15, 139.04),
        std=(47.23, 39.82, 35.43, 49.86),
        source=_CLAY,
    ),
    # Photographs from above of 0.3 to 1 m, such as xView's.
    'aerial-rgb': dict(
        bands='red green blue',
        mean=(106.64, 107.48, 101.78),
        std=(73.37, 70.23, 70.48),
        source="fMoW-RGB, as SatMAE's code has it",
    ),
}  # fmt: skip


def limits_of(preset: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """Return what becomes 0 and 255: as told, else mean ± 2 std."""
    sides = []
    for name, sign in (('low', -2), ('high', 2)):
        told = preset.get(name)
        if told is None:
            pairs = zip(preset['mean'], preset['std'], strict=True)
            told = [round(m + sign * s, 4) for m, s in pairs]
        sides.append(list(told))
    return sides[0], sides[1]


def nearest(mean: Any) -> str | None:
    """Return the preset whose means are near those of images, if one is."""
    found = {
        name: far_off(mean, *limits_of(preset)).max()
        for name, preset in PRESETS.items()
        if len(limits_of(preset)[0]) == len(mean)
    }
    name = min(found, key=found.__getitem__, default=None)
    return name if name is not None and found[name] < 1 else None


def far_off(mean: Any, low: Any, high: Any) -> Any:
    """Return how far means lie from the middle of a range, by band.

    Args:
        mean: Of the images.
        low: What becomes 0.
        high: What becomes 255, as a rule four standard deviations further;
            they are the unit of the result.
    """
    low, high = np.asarray(low, float), np.asarray(high, float)
    return abs(np.asarray(mean) - (low + high) / 2) / ((high - low) / 4)
