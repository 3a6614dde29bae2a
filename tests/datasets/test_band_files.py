"""From files of bands to figures: any layout, and what has no value."""

import numpy as np
import pytest

from mmmoco.apis.data.jobs import dataset_stats
from mmmoco.datasets import ImageFolderDataset, SeasonalPlaces
from mmmoco.datasets.band_presets import PRESETS, far_off, limits_of, nearest
from mmmoco.datasets.transforms.bands import LoadBands, ScaleBands
from mmmoco.datasets.transforms.loading import decode_rgb

from ..conftest import optional

NO_DATA = 42113
LAYOUTS = [
    dict(),
    dict(planarconfig='separate'),
    dict(compression='deflate'),
    dict(compression='lzw', tile=(16, 16)),
    dict(compression='zstd', planarconfig='separate', tile=(16, 16)),
    dict(bigtiff=True, byteorder='>'),
]


def save(path, image, nodata=None, **layout):
    """Write H×W×C as a TIFF that GDAL could have written."""
    if any('compression' in name for name in layout):
        optional('imagecodecs')
    layout = {'planarconfig': 'contig', **layout}
    if image.shape[2] == 1:
        image, layout['planarconfig'] = image[..., 0], None
    elif layout['planarconfig'] == 'separate':
        image = np.ascontiguousarray(image.transpose(2, 0, 1))
    tags = [] if nodata is None else [(NO_DATA, 's', 0, str(nodata), True)]
    path.parent.mkdir(parents=True, exist_ok=True)
    optional('tifffile').imwrite(
        path,
        image,
        photometric='minisblack',
        extratags=tags,
        **layout,
    )


@pytest.mark.parametrize('seed', range(24))
def test_statistics_are_those_of_numpy_on_what_has_a_value(tmp_path, seed):
    """Random stacks, sizes, types, layouts and holes."""
    draws = np.random.default_rng(seed)
    dtype = np.dtype(draws.choice(['uint8', 'uint16', 'int16', 'float32']))
    bands = int(draws.choice([1, 2, 4, 5, 13]))
    nodata = draws.choice([0, 7, -99]) if dtype.kind != 'u' else 7
    by_tag = bool(seed % 2)
    kept = [[] for _ in range(bands)]
    for i in range(4):
        height, width = draws.integers(17, 40, 2)
        image = draws.integers(20, 200, (height, width, bands)).astype(dtype)
        if i:  # One image has no holes.
            image[draws.random(image.shape) < 0.2] = nodata
        valid = image != nodata
        if dtype.kind == 'f':
            image[draws.random(image.shape) < 0.1] = np.nan
            image[draws.random(image.shape) < 0.1] = np.inf
            valid &= np.isfinite(image)
        layout = LAYOUTS[(seed + i) % len(LAYOUTS)]
        told = nodata if by_tag else None
        save(tmp_path / f'{i}.tif', image, told, **layout)
        for band in range(bands):
            kept[band].append(image[..., band][valid[..., band]])
    values = [np.concatenate(k).astype(np.float64) for k in kept]
    found = dataset_stats(
        str(tmp_path), bands=True, nodata=None if by_tag else float(nodata)
    ).statistics
    for name, expected in (
        ('mean', [v.mean() for v in values]),
        ('std', [v.std() for v in values]),
        ('low', [v.min() for v in values]),
        ('high', [v.max() for v in values]),
    ):
        np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-9)
    counts = [found.pixels - len(v) for v in values]
    assert found.missing.tolist() == counts


@pytest.mark.parametrize(
    ('shape', 'layout', 'order'),
    [
        ((64, 40, 40), {}, 'chw'),  # QYX: pages, a series or bands
        ((40, 40, 5), {}, 'hwc'),  # written without a word on its axes
        ((64, 64, 64), dict(volumetric=True, tile=(16, 16, 16)), 'chw'),
        ((64, 64, 200), None, 'hwc'),
        ((30, 20, 30), None, 'chw'),
    ],
)
def test_an_axis_that_may_be_another_is_asked_for(
    tmp_path, shape, layout, order
):
    array = np.random.default_rng(0).integers(1, 99, shape, dtype=np.uint16)
    file = tmp_path / ('x.npy' if layout is None else 'x.tif')
    if layout is None:
        np.save(file, array)
    else:
        optional('tifffile').imwrite(file, array, **layout)
    sample = {'img_path': str(file)}
    with pytest.raises(OSError, match=r"x\..*order='chw'.*'hwc'"):
        LoadBands()(sample)
    found = LoadBands(order=order)(sample)['img']
    axis = 0 if order == 'chw' else 2
    assert np.array_equal(found, np.moveaxis(array, axis, 2))


@pytest.mark.parametrize('layout', LAYOUTS)
def test_a_picture_reader_says_what_bands_need(tmp_path, layout):
    """Of bands one after the other PIL would read the first, and be silent."""
    save(tmp_path / 'x.tif', np.ones((20, 20, 13), np.uint16), **layout)
    data = (tmp_path / 'x.tif').read_bytes()
    big = layout.get('bigtiff')
    words = 'no JPEG' if big else '13 bands.*LoadBands'
    with pytest.raises(OSError, match=words):
        decode_rgb(data, 'x.tif')


def test_names_of_bands_are_of_folders(tmp_path):
    save(tmp_path / 'x.tif', np.ones((20, 20, 2), np.uint16))
    with pytest.raises(OSError, match='one file of 2 bands: give numbers'):
        LoadBands(bands=['B1', 'B2'])({'img_path': str(tmp_path / 'x.tif')})


# ------------------------------------------------------------------ the folder

NAMES = ['a.tif', 'a_mask.tif', 'deep/b.tif', 'masks/b.tif', 'deep/[x].tif']


@pytest.mark.parametrize(
    ('include', 'exclude', 'taken'),
    [
        ((), (), {0, 1, 2, 3, 4}),
        ((), ['*_mask.tif', 'masks'], {0, 2, 4}),
        ((), '*_mask.tif', {0, 2, 3, 4}),  # a single one
        (['deep/*'], (), {2, 4}),
        (['*.tif'], ['deep/[[]x].tif'], {0, 1, 2, 3}),
        (['b.tif'], ['masks'], {2}),
    ],
)
def test_patterns_take_and_leave_out(tmp_path, include, exclude, taken):
    for name in NAMES:
        save(tmp_path / name, np.ones((4, 4, 2), np.uint8))
    found = ImageFolderDataset(
        str(tmp_path), include=include, exclude=exclude
    ).paths
    assert found == sorted(str(tmp_path / NAMES[i]) for i in taken)


def test_patterns_that_leave_nothing_are_told(tmp_path):
    save(tmp_path / 'a.tif', np.ones((4, 4, 2), np.uint8))
    with pytest.raises(FileNotFoundError, match='1 are left out by include'):
        ImageFolderDataset(str(tmp_path), exclude=['*'])


def test_the_odd_file_is_named(tmp_path):
    for i in range(3):
        save(tmp_path / f'{i}.tif', np.ones((9, 9, 5), np.uint8))
    save(tmp_path / '1_mask.tif', np.ones((9, 9, 1), np.uint8))
    with pytest.raises(ValueError, match='1_mask.tif.*1 channels.*2 before'):
        dataset_stats(str(tmp_path), bands=True)
    found = dataset_stats(str(tmp_path), bands=True, exclude=['*_mask.tif'])
    assert found.statistics.images == 3


# --------------------------------------------------------- against the presets


def pipeline(low, high):
    return [
        dict(type='LoadBands'),
        dict(type='ScaleBands', low=low, high=high),
    ]


def written(folder, mean, std, seed=0):
    draws = np.random.default_rng(seed)
    for i in range(6):
        image = np.asarray(mean) + np.asarray(std) * draws.normal(
            size=(20, 20, len(mean))
        )
        save(folder / f'{i}.tif', image.astype(np.float32))


@pytest.mark.parametrize('name', PRESETS)
def test_a_preset_is_whole_and_its_own_nearest(name):
    preset = PRESETS[name]
    low, high = map(np.asarray, limits_of(preset))
    assert (high > low).all() and preset['source']
    assert len(low) == len(preset['bands'].split())
    middle = (low + high) / 2
    assert far_off(middle, low, high).max() < 1e-3
    assert nearest(middle) == name
    ScaleBands(low, high)


@pytest.mark.parametrize('level', ['l1c', 'l2a'])
@pytest.mark.parametrize('turned', [False, True])
def test_an_offset_of_1000_is_named(tmp_path, level, turned, capfd):
    """SSL4EO-S12 v1.0 and v1.1, in both directions."""
    names = [f'sentinel2-{level}', f'sentinel2-{level}-offset']
    data, expected = reversed(names) if turned else names
    preset = PRESETS[data]
    written(tmp_path, preset['mean'], preset['std'])
    ImageFolderDataset(str(tmp_path), pipeline=pipeline(*limits_of(preset)))
    assert 'lie far' not in ''.join(capfd.readouterr())
    limits = limits_of(PRESETS[expected])
    ImageFolderDataset(str(tmp_path), pipeline=pipeline(*limits))
    said = ' '.join(''.join(capfd.readouterr()).split())
    assert 'lie far' in said and repr(data) in said and '.tif' in said


def test_other_bands_than_expected_are_an_error_or_a_bad_file(tmp_path):
    low, high = [0.0] * 4, [9.0] * 4
    save(tmp_path / 'a.tif', np.ones((9, 9, 2), np.uint8))
    with pytest.raises(ValueError, match=r'a\.tif.*4 values.*2 bands'):
        ImageFolderDataset(str(tmp_path), pipeline=pipeline(low, high))
    save(tmp_path / 'b.tif', np.ones((9, 9, 4), np.uint8))
    mixed = ImageFolderDataset(str(tmp_path), pipeline=pipeline(low, high))
    with pytest.raises(OSError, match='exclude'):
        mixed[0]
    assert mixed[1]['img'].shape == (9, 9, 4)


def test_a_flat_folder_serves_for_seasons(tmp_path):
    views = dict(view_1=[], view_2=[])
    for i in range(3):
        save(tmp_path / f'{i}.tif', np.full((9, 9, 4), i, np.uint8))
    seasons = dict(
        type='SeasonalViews',
        load=pipeline([0.0] * 4, [255.0] * 4),
        views=views,
        distinct=False,
    )
    dataset = ImageFolderDataset(str(tmp_path), pipeline=[seasons])
    assert dataset[2]['inputs']['view_1'].unique().tolist() == [2]
    with pytest.raises(FileNotFoundError, match='mocov2_r50_1xb64_bands'):
        SeasonalPlaces(str(tmp_path))
