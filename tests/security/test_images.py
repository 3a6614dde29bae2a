"""Images that are not what they seem."""

import ast
import io
import os
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

import mmmoco
from mmmoco.datasets import ImageFolderDataset, SampleAddress
from mmmoco.datasets.transforms import loading
from mmmoco.datasets.transforms.bands import LoadBands
from mmmoco.datasets.transforms.loading import (
    FORMATS,
    MAX_SCANS,
    LoadRGB,
    decode_rgb,
    open_image,
)

from ..conftest import optional


def encoded(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def every_format():
    """Return what PIL can write, by name: one image in each format."""
    Image.init()
    found = {}
    for kind in sorted(Image.SAVE):
        for mode in ('RGB', 'P', 'L', '1', 'RGBA', 'F'):
            try:
                found[kind] = encoded(Image.new(mode, (8, 8)), kind)
            except Exception:
                continue
            break
    return found


def test_only_the_formats_of_the_list_are_decoded():
    written = every_format()
    assert {*FORMATS, 'EPS', 'GIF', 'ICO', 'PDF', 'TGA'} <= set(written)
    decoded = set()
    for kind, data in written.items():
        for load in (pil_of, decode_rgb):
            try:
                load(data, 'x.jpg')
            except OSError:
                continue
            decoded.add(kind)
    assert decoded == {*FORMATS, 'MPO'}


def pil_of(data, name):
    with open_image(data, name) as image:
        return np.asarray(image)


def test_no_image_starts_a_program(tmp_path, monkeypatch):
    tools = tmp_path / 'bin'
    tools.mkdir()
    for name in ('gs', 'gswin64c', 'djpeg', 'netpbm', 'xdg-open'):
        script = tools / name
        script.write_text(f'#!/bin/sh\ntouch {tmp_path}/started\n')
        script.chmod(0o755)
    monkeypatch.setenv('PATH', f'{tools}:{os.environ["PATH"]}')
    folder = tmp_path / 'images'
    folder.mkdir()
    (folder / 'a.jpg').write_bytes(
        b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n'
        b'showpage\n%%EOF\n'
    )
    Image.new('RGB', (8, 8)).save(folder / 'b.png')
    data = ImageFolderDataset(str(folder), pipeline=[dict(type='LoadRGB')])
    assert data[SampleAddress(0, 0, 0)]['bad'] == 1
    assert not (tmp_path / 'started').exists()


def jpeg_of_scans(scans):
    """Return a progressive JPEG that goes over its pixels again and again."""

    def segment(mark, body):
        return (
            b'\xff' + bytes([mark]) + struct.pack('>H', len(body) + 2) + body
        )

    side, components = 64, (1, 2, 3)
    frame = b''.join(bytes([c, 0x11, 0]) for c in components)
    bits = '0' * (3 * (side // 8) ** 2)
    first = bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
    # One run of 2^14 + 14 bits covers all blocks.
    again = bytes([0b00000000, 0b00000001])
    parts = [
        b'\xff\xd8',
        segment(0xDB, b'\0' + b'\1' * 64),
        segment(0xC2, struct.pack('>BHHB', 8, side, side, 3) + frame),
        segment(0xC4, b'\x00' + bytes([1] + [0] * 15) + b'\x00'),
        segment(0xC4, b'\x10' + bytes([1] + [0] * 15) + b'\xe0'),
        segment(0xDA, b'\x03\x01\x00\x02\x00\x03\x00\x00\x00\x00') + first,
    ]
    for i in range(scans - 1):
        head = bytes([1, components[i % 3], 0, 1, 63, 0x0D])
        parts.append(segment(0xDA, head) + again)
    return b''.join([*parts, b'\xff\xd9'])


def test_scans_are_counted_before_decoding(monkeypatch):
    assert decode_rgb(jpeg_of_scans(MAX_SCANS), 'x').shape == (64, 64, 3)

    def never(*args, **kwargs):
        raise AssertionError('it was decoded')

    monkeypatch.setattr(loading, 'decode_jpeg', never)
    monkeypatch.setattr(ImageFile.ImageFile, 'load', never)
    for scans in (MAX_SCANS + 1, 5000):
        start = time.process_time()
        for load in (decode_rgb, pil_of):
            with pytest.raises(OSError, match=f'{scans} scans'):
                load(jpeg_of_scans(scans), 'x')
        assert time.process_time() - start < 5


def test_marks_in_the_header_are_no_scans():
    """Profiles and thumbnails hold any bytes."""
    image = Image.new('RGB', (8, 8))
    profile = b'\xff\xda' * 20_000
    data = encoded(image, 'JPEG', icc_profile=profile, progressive=True)
    assert data.count(b'\xff\xda') > 20_000
    assert decode_rgb(data, 'x').shape == (8, 8, 3)


@pytest.mark.parametrize(
    'error', [MemoryError, ZeroDivisionError, AssertionError, RecursionError]
)
@pytest.mark.parametrize('kind', ['JPEG', 'PNG'])
def test_whatever_a_decoder_raises_costs_one_sample(monkeypatch, kind, error):
    def fail(*args, **kwargs):
        raise error

    data = encoded(Image.new('RGB', (8, 8)), kind)
    monkeypatch.setattr(loading, 'decode_jpeg', fail)
    monkeypatch.setattr(ImageFile.ImageFile, 'load', fail)
    for load in (decode_rgb, pil_of):
        with pytest.raises(OSError, match=error.__name__):
            load(data, 'a.jpg')


def test_our_own_faults_keep_their_trace():
    data = encoded(Image.new('RGB', (8, 8)), 'PNG')
    with pytest.raises(ZeroDivisionError), open_image(data, 'x'):
        1 / 0  # noqa: B018


#: Who may call what opens an image or an array, and nobody else.
OPENERS = {
    'Image.open': {'datasets/transforms/loading.py'},
    'cv2.imdecode': {'datasets/transforms/loading.py'},
    'tifffile.TiffFile': {'datasets/transforms/tiff.py'},
    'tarfile.open': {'datasets/cifar.py', 'apis/data/shard_writer.py'},
    'np.load': {
        'apis/probing/near_duplicates.py',
        'apis/report/work_dir.py',
        'datasets/digit_scenes.py',
    },
    'cv2.imread': set(),
    'cv2.imreadmulti': set(),
    'tifffile.imread': set(),
    'mmcv.imread': set(),
    'mmcv.imfrombytes': set(),
    'read_image': set(),
    'decode_image': set(),
    'np.fromfile': set(),
    'np.memmap': {'engine/evaluation/features.py'},
    'np.genfromtxt': set(),
}


def test_every_image_goes_through_one_function():
    root = Path(mmmoco.__file__).parent
    calls = {}
    for path in sorted(root.rglob('*.py')):
        if '.mim' in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            if name in OPENERS:
                where = path.relative_to(root).as_posix()
                calls.setdefault(name, set()).add(where)
            if name == 'np.load':
                given = {k.arg: ast.unparse(k.value) for k in node.keywords}
                assert given['allow_pickle'] == 'False', path
    assert calls['Image.open'] and calls['np.load']  # The search finds.
    for name, where in calls.items():
        assert where <= OPENERS[name], f'{name} in {where - OPENERS[name]}'


# -------------------------------------------------------------------- arrays


def header(shape, kind='|u1', version=1, order=False):
    stream = io.BytesIO()
    write = getattr(np.lib.format, f'write_array_header_{version}_0')
    write(stream, {'descr': kind, 'fortran_order': order, 'shape': shape})
    return stream.getvalue()


HOSTILE_ARRAYS = {
    'huge': header((10**4, 10**4, 10**4)),
    'many bands': header((1, 1, 10**8)),
    'overflow': header((2**32, 2**32, 3)),
    'negative': header((-1, 2, 2)) + bytes(8),
    'two negatives': header((-2, -2, 2)) + bytes(8),
    'short': header((4, 4, 4)) + bytes(63),
    'objects': header((2, 2, 2), '|O') + b"cposix\nsystem\n(S'false'\ntR.",
    'text': header((2, 2, 2), '<U1') + bytes(32),
    'records': header((2, 2, 2), [('a', '<f4')]) + bytes(32),
    'dates': header((2, 2, 2), '<M8[s]') + bytes(64),
    'complex': header((2, 2, 2), '<c8') + bytes(64),
    'nothing': header((0, 4, 4)),
    'one axis': header((8,)) + bytes(8),
    'four axes': header((2, 2, 2, 2)) + bytes(16),
    'version 3': b'\x93NUMPY\x03\x00' + bytes(100),
    'version 9': b'\x93NUMPY\x09\x00' + bytes(100),
    'long header': b'\x93NUMPY\x02\x00' + (2**31).to_bytes(4, 'little'),
    'deep header': b'\x93NUMPY\x02\x00'
    + (50_000).to_bytes(4, 'little')
    + b'(' * 50_000,
}


@pytest.mark.parametrize('name', HOSTILE_ARRAYS)
def test_forged_arrays_are_refused(tmp_path, name):
    path = tmp_path / 'forged.npy'
    path.write_bytes(HOSTILE_ARRAYS[name])
    with pytest.raises(OSError, match='forged.npy'):
        LoadBands()({'img_path': str(path)})


@pytest.mark.parametrize('version', [1, 2])
@pytest.mark.parametrize('order', [False, True])
def test_arrays_of_both_orders_and_versions_are_read(version, order):
    array = np.arange(4 * 5 * 3, dtype='>u2').reshape(4, 5, 3)
    body = array.tobytes('F' if order else 'C')
    data = header(array.shape, '>u2', version, order) + body
    out = LoadBands()({'img_path': 'x', 'img_bytes': data})['img']
    assert np.array_equal(out, array)


def tiff(width, height, samples, bits=8, compression=1):
    """Return a TIFF that claims much and holds nothing."""
    entries = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, bits),
        (259, 3, compression),
        (262, 3, 1),
        (273, 4, 8),
        (277, 3, samples),
        (278, 4, height),
        (279, 4, 0),
    ]
    body = b''.join(struct.pack('<HHII', t, k, 1, v) for t, k, v in entries)
    start = b'II*\0' + struct.pack('<I', 16) + bytes(8)
    return start + struct.pack('<H', len(entries)) + body + bytes(4)


@pytest.mark.parametrize(
    'claim', [(10**4, 10**4, 40), (2 * 10**5, 10**5, 3), (10**4, 10**4, 6000)]
)
def test_tiffs_that_claim_much_are_refused(claim):
    optional('tifffile')
    with pytest.raises(OSError, match='more than max'):
        LoadBands()({'img_path': 'x.tif', 'img_bytes': tiff(*claim)})


def test_a_tiff_reads_no_other_file(tmp_path, monkeypatch):
    """OME's form of it names files that hold the rest."""
    tifffile = optional('tifffile')
    array = np.zeros((2, 16, 16), np.uint16)
    uid = 'urn:uuid:00000000-0000-0000-0000-000000000000'
    xml = tifffile.OmeXml()
    xml.addimage('uint16', (2, 16, 16), (2, 1, 1, 16, 16, 1), axes='CYX')
    text = xml.tostring().replace(
        '<TiffData',
        '<TiffData><UUID FileName="other.tif">' + uid + '</UUID></TiffData>'
        '<TiffData',
    )
    tifffile.imwrite(
        tmp_path / 'x.tif', array, description=text, metadata=None
    )
    opened = []
    real = os.open
    monkeypatch.setattr(
        os, 'open', lambda p, *a, **k: opened.append(p) or real(p, *a, **k)
    )
    monkeypatch.chdir(tmp_path)
    LoadBands()({'img_path': str(tmp_path / 'x.tif')})
    assert opened == [str(tmp_path / 'x.tif')]


def directory(entries, following, order='<'):
    body = b''.join(struct.pack(f'{order}HHII', *e) for e in entries)
    head = struct.pack(f'{order}H', len(entries))
    return head + body + struct.pack(f'{order}I', following)


HOSTILE_DIRECTORIES = {
    'itself': b'II*\0\x08\0\0\0' + directory([(256, 4, 1, 8)], 8),
    'a circle': b'II*\0\x08\0\0\0'
    + directory([], 14)
    + directory([], 20)
    + directory([], 14),
    'of the other order': b'MM\0*\0\0\0\x08' + directory([], 8, '>'),
    'large numbers': b'II+\0\x08\0\0\0' + struct.pack('<QQQ', 16, 0, 16),
    'thousands': b'II*\0\x08\0\0\0'
    + b''.join(directory([], 14 + 6 * i) for i in range(5000)),
    'many entries': b'II*\0\x08\0\0\0'
    + directory([(330, 4, 1, 8)] * 30_000, 0),
    'many values': b'II*\0\x08\0\0\0' + directory([(330, 4, 2**31, 8)], 0),
}


@pytest.mark.parametrize('name', HOSTILE_DIRECTORIES)
def test_tiffs_whose_directories_never_end_are_refused(name):
    optional('tifffile')
    start = time.process_time()
    for load in (LoadBands(), LoadRGB()):
        with pytest.raises(OSError, match='x.tif'):
            load({'img_path': 'x.tif', 'img_bytes': HOSTILE_DIRECTORIES[name]})
    assert time.process_time() - start < 10


def test_pages_of_one_size_are_bands(tmp_path):
    """And others, such as thumbnails, are not."""
    tifffile = optional('tifffile')
    array = np.arange(13 * 8 * 9, dtype=np.uint16).reshape(13, 8, 9)
    for kind in ({}, {'ome': True}, {'imagej': True}, {'bigtiff': True}):
        path = tmp_path / 'x.tif'
        with tifffile.TiffWriter(path, **kind) as file:
            file.write(array, photometric='minisblack')
            if not kind.get('imagej'):
                file.write(array[0, :2, :2], photometric='minisblack')
        read = LoadBands()({'img_path': str(path)})['img']
        assert np.array_equal(np.moveaxis(read, 2, 0), array), kind
