"""Files made to do harm: image bombs, and archives that would escape."""

import io
import os
import re
import struct
import tarfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from mmmoco.apis.data.shard_writer import write_shards
from mmmoco.datasets import ImageFolderDataset, TarShards
from mmmoco.datasets.addressed import SampleAddress
from mmmoco.datasets.transforms.loading import LoadRGB, open_image

#: PIL's words, or ours.
TOO_LARGE = r'bomb\.png.*(900000000|30000×30000) pixels'


def chunk(kind, data):
    checked = kind + data
    size, check = struct.pack('>I', len(data)), zlib.crc32(checked)
    return size + checked + struct.pack('>I', check)


def bomb(side):
    """A valid PNG of side×side grey pixels, of about side²/8000 bytes."""
    header = struct.pack('>IIBBBBB', side, side, 1, 0, 0, 0, 0)
    packer = zlib.compressobj(9)
    line = bytes(1 + -(-side // 8))
    rows = [packer.compress(line * 1000) for _ in range(-(-side // 1000))]
    data = b''.join(rows) + packer.flush()
    return (
        b'\x89PNG\r\n\x1a\n'
        + chunk(b'IHDR', header)
        + chunk(b'IDAT', data)
        + chunk(b'IEND', b'')
    )


@pytest.fixture(scope='module')
def bombed():
    """900 million pixels in 110 kB."""
    return bomb(30_000)


def test_the_bomb_is_a_real_image(bombed, monkeypatch):
    assert len(bombed) < 200_000
    small = Image.open(io.BytesIO(bomb(1000)))
    assert np.asarray(small).shape == (1000, 1000)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', None)
    assert Image.open(io.BytesIO(bombed)).size == (30_000, 30_000)


def test_load_rgb_refuses_before_decoding(bombed, tmp_path, monkeypatch):
    path = tmp_path / 'bomb.png'
    path.write_bytes(bombed)
    decoded = []
    load = Image.Image.load
    monkeypatch.setattr(
        Image.Image, 'load', lambda self: decoded.append(1) or load(self)
    )
    for limit in (Image.MAX_IMAGE_PIXELS, None):  # PIL's own, and ours alone
        monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', limit)
        with pytest.raises(OSError, match=TOO_LARGE):
            LoadRGB()({'img_path': str(path)})
        with (
            pytest.raises(OSError, match=TOO_LARGE),
            open_image(path, str(path)),
        ):
            pass
    assert not decoded
    # The limit is a setting.
    small = tmp_path / 'small.png'
    small.write_bytes(bomb(1000))
    assert LoadRGB()({'img_path': str(small)})['img'].shape == (1000, 1000, 3)
    with pytest.raises(OSError, match='max_pixels=999999'):
        LoadRGB(max_pixels=999_999)({'img_path': str(small)})


def test_a_bomb_among_the_images_is_a_bad_file(bombed, tmp_path):
    Image.new('RGB', (8, 8)).save(tmp_path / 'good.png')
    (tmp_path / 'bomb.png').write_bytes(bombed)
    dataset = ImageFolderDataset(
        str(tmp_path), pipeline=[dict(type='LoadRGB')]
    )
    notes = tmp_path / 'notes'
    notes.mkdir()
    dataset.bad_files.move_to(notes)
    for index in range(2):
        sample = dataset[SampleAddress(index, 0, 0)]
        assert sample['img'].shape == (8, 8, 3)
    (bad,) = dataset.bad_files.read()
    assert bad.name.endswith('bomb.png') and re.search(
        '900000000|30000', bad.reason
    )


def test_large_arrays_of_bands_are_refused(tmp_path):
    from mmmoco.datasets.transforms.bands import LoadBands

    path = tmp_path / 'bands.npy'
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header,
        {'descr': '|u1', 'fortran_order': False, 'shape': (10**6, 10**6, 3)},
    )
    path.write_bytes(header.getvalue())
    with pytest.raises(OSError, match='more than max_pixels'):
        LoadBands()({'img_path': str(path)})


def test_tools_that_read_images_refuse_it(bombed, tmp_path, capsys):
    from mmmoco.apis import cli
    from mmmoco.apis.data.jobs import dataset_stats
    from mmmoco.apis.dense import davis
    from mmmoco.apis.dense.object_masks import _indices

    images = tmp_path / 'images'
    images.mkdir()
    (images / 'bomb.png').write_bytes(bombed)
    with pytest.raises(OSError, match=TOO_LARGE):
        davis.read_index(images / 'bomb.png')
    with pytest.raises(OSError, match=TOO_LARGE):
        _indices(images / 'bomb.png')
    with pytest.raises(SystemExit) as stop:
        cli.main(dataset_stats, [str(images)])
    assert stop.value.code == 2
    errors = capsys.readouterr().err
    assert 'error: ' in errors and 'Traceback' not in errors


@pytest.mark.slow
def test_opencv_has_the_limit_too(bombed):
    """For the pipelines of the other libraries, in the tools."""
    import subprocess
    import sys

    code = (
        'import sys\n'
        'from mmmoco.apis import cli\n'
        'def job():\n'
        '    import cv2, numpy as np\n'
        '    data = np.frombuffer(sys.stdin.buffer.read(), np.uint8)\n'
        '    try:\n'
        '        cv2.imdecode(data, 1)\n'
        '    except cv2.error as error:\n'
        '        print("refused", "pixels" in str(error))\n'
        'cli.main(job, [])\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], input=bombed, capture_output=True
    )
    assert done.stdout.decode().split() == ['refused', 'True'], done.stderr


# Archives


def member(name, data=None, **facts):
    info = tarfile.TarInfo(name)
    info.size = len(data or b'')
    for key, value in facts.items():
        setattr(info, key, value)
    return info, io.BytesIO(data or b'')


def test_a_hostile_shard_writes_nothing_and_reads_nothing_else(
    tmp_path, monkeypatch
):
    picture = io.BytesIO()
    Image.new('RGB', (8, 8), 'red').save(picture, 'png')
    secret = tmp_path / 'secret.png'
    Image.new('RGB', (9, 9), 'blue').save(secret)
    folder = tmp_path / 'shards'
    folder.mkdir()
    data = picture.getvalue()
    with tarfile.open(folder / '0.tar', 'w') as tar:
        for entry in (
            member('../escaped.png', data),
            member('a/../../escaped.png', data),
            member(f'{tmp_path}/absolute.png', data),
            member('..\\windows.png', data),
            member('link.png', type=tarfile.SYMTYPE, linkname=str(secret)),
            member('hard.png', type=tarfile.LNKTYPE, linkname=str(secret)),
            member('device.png', type=tarfile.CHRTYPE, devmajor=1, devminor=5),
            member('pipe.png', type=tarfile.FIFOTYPE),
            member('folder.png', type=tarfile.DIRTYPE),
            member('good.png', data),
        ):
            tar.addfile(*entry)
    before = sorted(p for p in tmp_path.rglob('*'))
    monkeypatch.chdir(folder)
    dataset = TarShards(
        str(folder), epoch_size=4, pipeline=[dict(type='LoadRGB')]
    )
    notes = tmp_path / 'notes'
    notes.mkdir()
    dataset.bad_files.move_to(notes)
    for index in range(4):
        image = dataset[SampleAddress(index, 0, 0)]['img']
        assert image.shape == (8, 8, 3) and image[0, 0].tolist() == [255, 0, 0]
    bad = {note.name.split(':')[-1] for note in dataset.bad_files.read()}
    assert len(bad) == 4 and all('..' in b or 'absolute' in b for b in bad)
    after = sorted(p for p in tmp_path.rglob('*') if notes not in p.parents)
    assert after == sorted([*before, notes])


def test_shards_are_written_inside_their_folder(tmp_path):
    images = tmp_path / 'images'
    (images / 'a').mkdir(parents=True)
    Image.new('RGB', (8, 8)).save(images / 'a' / '..x.png')
    Image.new('RGB', (8, 8)).save(images / 'a' / 'b.png')
    write_shards(ImageFolderDataset(str(images)), tmp_path / 'out', 1)
    for shard in (tmp_path / 'out').glob('*.tar'):
        with tarfile.open(shard) as tar:
            for name in tar.getnames():
                assert not name.startswith(('/', '..')) and '/..' not in name


def test_a_checkpoint_and_a_config_text_run_nothing(tmp_path):
    """All tools read through the one safe reader; this is its guarantee."""
    from mmmoco.engine import checkpoint_io

    class Call:
        def __reduce__(self):
            return os.system, (f'touch {tmp_path}/ran',)

    torch.save({'state_dict': {}, 'x': Call()}, tmp_path / 'a.pth')
    with pytest.raises(checkpoint_io.UnsafeCheckpointError):
        checkpoint_io.read(tmp_path / 'a.pth')
    assert not (tmp_path / 'ran').exists()
