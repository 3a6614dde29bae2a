"""Odd files become RGB as documented, or raise an OSError that names them."""

import io

import numpy as np
import pytest
from PIL import Image

from mmmoco.datasets.transforms.loading import LoadRGB, decode_rgb


@pytest.fixture(scope='module')
def photograph():
    draws = np.random.default_rng(0)
    small = draws.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((80, 60), Image.BICUBIC)


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def by_pil(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert('RGB'))


@pytest.mark.parametrize(
    'mode, kind, options',
    [
        ('RGB', 'JPEG', {}),
        ('RGB', 'JPEG', dict(quality=30, subsampling=2)),
        ('RGB', 'JPEG', dict(progressive=True)),
        ('L', 'JPEG', {}),
        ('CMYK', 'JPEG', {}),
        ('RGB', 'PNG', {}),
        ('P', 'PNG', {}),
        ('1', 'PNG', {}),
        ('RGBA', 'PNG', {}),
        ('LA', 'PNG', {}),
        ('RGB', 'WEBP', {}),
        ('RGB', 'BMP', {}),
        ('RGB', 'TIFF', {}),
        ('P', 'BMP', {}),
        ('L', 'WEBP', {}),
    ],
)
def test_equals_pil(photograph, mode, kind, options):
    data = encoded(photograph.convert(mode), kind, **options)
    made = decode_rgb(data, 'x')
    assert made.dtype == np.uint8 and made.shape == (60, 80, 3)
    np.testing.assert_array_equal(made, by_pil(data))


def test_transparency_is_dropped(photograph):
    clear = photograph.copy()
    clear.putalpha(0)
    made = decode_rgb(encoded(clear, 'PNG'), 'x')
    np.testing.assert_array_equal(made, np.asarray(photograph))


def test_sixteen_bits_keep_their_upper_eight():
    grey = (np.arange(60 * 80, dtype=np.uint16) * 13).reshape(60, 80)
    made = decode_rgb(encoded(Image.fromarray(grey), 'PNG'), 'x')
    np.testing.assert_array_equal(made[..., 0], grey // 256)
    assert (made == made[..., :1]).all() and made.max() > 200


def test_of_an_animation_the_first_frame_counts(photograph):
    black = Image.new('RGB', photograph.size)
    data = encoded(
        photograph,
        'WEBP',
        save_all=True,
        append_images=[black, black],
        lossless=True,
    )
    np.testing.assert_array_equal(decode_rgb(data, 'x'), by_pil(data))
    assert decode_rgb(data, 'x').mean() > 50


def test_orientation_is_ignored(photograph):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(photograph, 'JPEG', exif=exif)
    assert decode_rgb(data, 'x').shape == (60, 80, 3)
    np.testing.assert_array_equal(decode_rgb(data, 'x'), by_pil(data))


def test_the_content_decides_not_the_name(tmp_path, photograph):
    path = tmp_path / 'ünïcode name.jpg'
    path.write_bytes(encoded(photograph, 'PNG'))
    results = LoadRGB()({'img_path': str(path)})
    np.testing.assert_array_equal(results['img'], np.asarray(photograph))
    results['img'][:] = 0  # writable


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP', 'BMP', 'TIFF'])
def test_damaged_files_are_named(tmp_path, photograph, kind):
    data = encoded(photograph, kind)
    for part in (data[: len(data) // 2], data[:10], b'', b'not an image'):
        path = tmp_path / 'damaged.jpg'
        path.write_bytes(part)
        with pytest.raises(OSError, match='damaged.jpg'):
            LoadRGB()({'img_path': str(path)})


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(OSError, match='missing.jpg'):
        LoadRGB()({'img_path': str(tmp_path / 'missing.jpg')})
    with pytest.raises(OSError, match=str(tmp_path)):
        LoadRGB()({'img_path': str(tmp_path)})


def test_too_many_pixels_are_refused_before_decoding(photograph):
    data = encoded(photograph, 'PNG')
    with pytest.raises(OSError, match="'x.png'.*80×60.*max_pixels=4799"):
        decode_rgb(data, 'x.png', max_pixels=4799)
    decode_rgb(data, 'x.png', max_pixels=4800)
    bomb = b'P6 40000 40000 255\n'
    with pytest.raises(OSError, match='bomb'):
        decode_rgb(bomb, 'bomb')


def test_pixels_without_a_range_are_refused():
    floats = Image.fromarray(np.zeros((4, 4), np.float32))
    with pytest.raises(OSError, match=r'float32.*range=\(low, high\)'):
        decode_rgb(encoded(floats, 'TIFF'), 'x')
