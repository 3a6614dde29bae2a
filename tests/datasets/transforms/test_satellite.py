"""Bands and views from above, on arrays of any type."""

import sys

import numpy as np
import pytest
import torch

from mmmoco.datasets.transforms.bands import (
    BandBlur,
    BandBrightnessContrast,
    BandGray,
    LoadBands,
    ScaleBands,
)
from mmmoco.datasets.transforms.satellite import (
    DiscreteRotation,
    GaussianNoise,
)
from mmmoco.datasets.transforms.views import to_tensor

from ...conftest import optional

TYPES = (np.uint8, np.uint16, np.float32)


@pytest.fixture(autouse=True)
def seed():
    np.random.seed(0)


def image(dtype=np.uint8, bands=5, height=9, width=7):
    draws = np.random.default_rng(1)
    top = 200 if dtype is np.uint8 else 4000
    return draws.integers(0, top, (height, width, bands)).astype(dtype)


def run(transform, array):
    return transform({'img': array})['img']


@pytest.mark.parametrize('dtype', TYPES)
def test_rotation_moves_pixels_and_changes_none(dtype):
    array = image(dtype)
    for turns in range(4):
        out = run(DiscreteRotation([90 * turns]), array)
        assert out.dtype == dtype and out.flags.c_contiguous
        expected = array.copy()
        for _ in range(turns):  # counter-clockwise, by hand
            expected = expected.transpose(1, 0, 2)[::-1]
        assert np.array_equal(out, expected)
    counts = {}
    for _ in range(400):
        out = run(DiscreteRotation(), array[:7]).tobytes()
        counts[out] = counts.get(out, 0) + 1
    assert len(counts) == 4 and min(counts.values()) > 70
    with pytest.raises(ValueError, match='multiples of 90'):
        DiscreteRotation([45])


@pytest.mark.parametrize('dtype', TYPES)
def test_noise_has_the_given_spread_and_keeps_the_type(dtype):
    array = np.full((200, 200, 3), 100, dtype)
    out = run(GaussianNoise(std=(2.0, 10.0, 0.0), prob=1.0), array)
    assert out.dtype == dtype
    noise = out.astype(float) - 100
    assert noise.mean((0, 1)) == pytest.approx([0, 0, 0], abs=0.2)
    assert noise.std((0, 1)) == pytest.approx([2, 10, 0], rel=0.03)
    dark = run(GaussianNoise(std=30.0, prob=1.0), np.zeros_like(array))
    if np.issubdtype(dtype, np.integer):
        assert 0.4 < (dark == 0).mean() < 0.6  # clipped, not wrapped
        assert dark.max() < 200
    assert run(GaussianNoise(prob=0.0), array) is array
    with pytest.raises(ValueError, match='4 values.*3 bands'):
        run(GaussianNoise(std=[1.0] * 4, prob=1.0), array)


@pytest.mark.parametrize('dtype', TYPES)
def test_brightness_and_contrast_of_bands(dtype):
    array = image(dtype, bands=13)
    op = BandBrightnessContrast()
    out = op.apply(array, brightness=1.2, contrast=0.7)
    bright = 1.2 * array.astype(np.float64)
    mean = bright.mean((0, 1))
    expected = mean + 0.7 * (bright - mean)
    if dtype is not np.float32:
        expected = np.clip(expected, 0, np.iinfo(dtype).max)
    assert out.dtype == dtype
    np.testing.assert_allclose(out.astype(float), expected, atol=0.51)
    drawn = [op.draw(1, 1) for _ in range(2000)]
    for name in ('brightness', 'contrast'):
        values = [d[name] for d in drawn]
        assert 0.6 <= min(values) < 0.62 and 1.38 < max(values) <= 1.4
    flat = np.full((4, 4, 13), 100, np.float32)
    common = BandBrightnessContrast(prob=1.0)
    assert np.ptp(run(common, flat)) < 1e-3
    per_band = BandBrightnessContrast(prob=1.0, per_band=True)
    assert np.ptp(run(per_band, flat)[0, 0]) > 10
    changed = sum(run(op, flat) is not flat for _ in range(500))
    assert 360 < changed < 440


@pytest.mark.parametrize('dtype', TYPES)
def test_gray_is_the_mean_of_the_bands(dtype):
    array = image(dtype)
    out = run(BandGray(prob=1.0), array)
    assert out.dtype == dtype and out.shape == array.shape
    assert (out == out[..., :1]).all()
    np.testing.assert_allclose(out[..., 0], array.mean(2), atol=0.51)


@pytest.mark.parametrize('dtype', TYPES)
@pytest.mark.parametrize('bands', [1, 2, 13])
def test_blur_takes_every_band_by_itself(dtype, bands):
    array = np.zeros((21, 21, bands), dtype)
    array[10, 10] = 200
    out = BandBlur().apply(array, sigma=1.5)
    assert out.shape == array.shape and out.dtype == dtype
    assert out.sum((0, 1)) == pytest.approx([200] * bands, rel=0.15)
    assert out.max() < 30


def test_scaling_to_bytes():
    array = np.array([[[0, 1000], [500, 3000], [2000, 9000]]], np.uint16)
    op = ScaleBands(low=[0, 1000], high=[1000, 5000])
    assert run(op, array).tolist() == [[[0, 0], [128, 128], [255, 255]]]
    with pytest.raises(ValueError, match='below'):
        ScaleBands(low=1, high=1)
    with pytest.raises(ValueError, match='2 values.*5 bands'):
        run(op, image())


def test_tensors_keep_the_values():
    for dtype, kept in (
        (np.uint8, torch.uint8),
        (np.uint16, torch.int32),
        (np.float32, torch.float32),
    ):
        array = image(dtype)
        tensor = to_tensor(array)
        assert tensor.dtype == kept
        assert np.array_equal(tensor.permute(1, 2, 0).numpy(), array)


# ------------------------------------------------------------------- reading


def load(path, **options):
    return LoadBands(**options)({'img_path': str(path)})['img']


@pytest.mark.parametrize('dtype', TYPES)
@pytest.mark.parametrize('bands', [2, 4, 13, 16])
def test_tiff_and_npy_in_both_orders(tmp_path, dtype, bands):
    tifffile = optional('tifffile')
    array = image(dtype, bands, height=30, width=20)
    chw = np.ascontiguousarray(array.transpose(2, 0, 1))
    for name, data, config in (
        ('hwc.tif', array, 'contig'),
        ('chw.tif', chw, 'separate'),
    ):
        tifffile.imwrite(
            tmp_path / name,
            data,
            planarconfig=config,
            photometric='minisblack',
        )
    np.save(tmp_path / 'hwc.npy', array)
    np.save(tmp_path / 'chw.npy', chw)
    for name in ('hwc.tif', 'chw.tif', 'hwc.npy', 'chw.npy'):
        out = load(tmp_path / name)
        assert out.dtype == dtype, name
        assert np.array_equal(out, array), name
    chosen = load(tmp_path / 'chw.tif', bands=[1, 0])
    assert np.array_equal(chosen, array[..., [1, 0]])
    with pytest.raises(OSError, match=f'there are {bands}'):
        load(tmp_path / 'chw.tif', bands=[bands])


def test_order_can_be_said_where_it_cannot_be_seen(tmp_path):
    np.save(tmp_path / 'x.npy', np.zeros((16, 8, 4), np.uint8))
    assert load(tmp_path / 'x.npy').shape == (16, 8, 4)
    assert load(tmp_path / 'x.npy', order='chw').shape == (8, 4, 16)
    with pytest.raises(ValueError, match='order'):
        LoadBands(order='bhw')


def test_compressed_tiff(tmp_path):
    tifffile = optional('tifffile')
    optional('imagecodecs')
    array = image(np.uint16, 3, 32, 32)
    for codec in ('lzw', 'deflate'):
        file = tmp_path / f'{codec}.tif'
        tifffile.imwrite(file, array, compression=codec, photometric='rgb')
        assert np.array_equal(load(file), array)


def test_a_folder_with_a_file_for_each_band(tmp_path):
    values = {'B1': 1, 'B2': 2, 'B8': 8, 'B8A': 9, 'B10': 10}
    for name, value in values.items():
        side = 12 if name == 'B2' else 4
        np.save(tmp_path / f'{name}.npy', np.full((side, side), value, 'u2'))
    out = load(tmp_path)
    assert out.shape == (12, 12, 5)
    assert out[3, 3].tolist() == [1, 2, 8, 9, 10]  # by number, not by letter
    out = load(tmp_path, bands=['B8A', 'B2'])
    assert out[0, 0].tolist() == [9, 2]
    with pytest.raises(OSError, match='B11'):
        load(tmp_path, bands=['B11'])


def test_values_that_are_no_numbers(tmp_path):
    array = np.array([[[1.5, np.nan], [np.inf, 4.0]]])
    np.save(tmp_path / 'x.npy', array)
    out = load(tmp_path / 'x.npy', order='hwc')
    assert out.dtype == np.float32
    assert out.tolist() == [[[1.5, 0.0], [0.0, 4.0]]]


@pytest.mark.parametrize('name', ['x.tif', 'x.npy'])
@pytest.mark.parametrize('data', [b'', b'II*\0 broken', b'\x93NUMPY broken'])
def test_damaged_files_are_named(tmp_path, name, data):
    optional('tifffile')
    (tmp_path / name).write_bytes(data)
    with pytest.raises(OSError, match=name):
        load(tmp_path / name)
    with pytest.raises(OSError, match='gone'):
        load(tmp_path / 'gone.tif')


def test_npy_that_would_run_code_is_refused(tmp_path):
    np.save(tmp_path / 'x.npy', np.array([print], object), allow_pickle=True)
    with pytest.raises(OSError, match='x.npy'):
        load(tmp_path / 'x.npy')


def test_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'tifffile', None)
    (tmp_path / 'x.tif').write_bytes(b'II*\0')
    with pytest.raises(ImportError, match='pip install tifffile'):
        load(tmp_path / 'x.tif')
