"""Folders and files as bad luck and bad people leave them."""

import os
import random
import socket
import time

import pytest
from PIL import Image

from mmmoco.apis.data.shard_writer import write_shards
from mmmoco.datasets import ImageFolderDataset, SampleAddress, SeasonalPlaces
from mmmoco.datasets.bad_files import BadFileLog
from mmmoco.datasets.transforms.bands import LoadBands
from mmmoco.datasets.transforms.loading import LoadRGB
from mmmoco.files import (
    MAX_BYTES,
    files_below,
    open_regular,
    read_file,
    read_json,
)
from mmmoco.messages import printable, shortened

LOAD = [dict(type='LoadRGB')]


def odd_files(folder):
    """Make one of each kind that is no readable file; return the paths."""
    os.mkfifo(folder / 'pipe.png')
    (folder / 'folder.png').mkdir()
    os.symlink('/dev/zero', folder / 'device.png')
    os.symlink('folder.png', folder / 'link to a folder.png')
    os.symlink('itself.png', folder / 'itself.png')
    os.symlink('nowhere', folder / 'broken.png')
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(folder / 'socket.png'))
    server.close()
    with open(folder / 'sparse.png', 'wb') as file:
        file.truncate(60 << 30)
    names = [*sorted(p.name for p in folder.iterdir()), 'gone', 'nul\0.png']
    return [f'{folder}/{name}' for name in names]


def test_whatever_is_no_readable_file_is_refused_at_once(tmp_path):
    start = time.monotonic()
    for path in odd_files(tmp_path):
        for load in (read_file, open_regular_to_end, rgb, bands):
            with pytest.raises(OSError):
                load(path)
    assert time.monotonic() - start < 20


def open_regular_to_end(path):
    with open_regular(path) as file:
        if file.seek(0, 2) > MAX_BYTES:
            raise OSError('too large')


def rgb(path):
    return LoadRGB()({'img_path': path})


def bands(path):
    return LoadBands()({'img_path': path})


def test_each_of_them_costs_one_sample_and_is_named(tmp_path):
    odd_files(tmp_path)
    for i in range(3):
        Image.new('RGB', (4, 4)).save(tmp_path / f'good{i}.png')
    data = ImageFolderDataset(str(tmp_path), pipeline=LOAD)
    names = {os.path.basename(p) for p in data.paths}
    good = {'good0.png', 'good1.png', 'good2.png'}
    assert names == good | {'broken.png', 'itself.png', 'sparse.png'}
    notes = tmp_path / 'notes'
    notes.mkdir()
    data.bad_files.move_to(notes)
    for i in range(len(data)):
        assert data[SampleAddress(i, 0, 0)]['img'].shape == (4, 4, 3)
    reasons = {
        os.path.basename(bad.name): bad.reason for bad in data.bad_files.read()
    }
    assert set(reasons) == names - good
    assert f'max_bytes={MAX_BYTES}' in reasons['sparse.png']


def test_a_file_that_is_exchanged_after_the_scan_does_not_hang(tmp_path):
    for i in range(4):
        Image.new('RGB', (4, 4)).save(tmp_path / f'{i}.png')
    data = ImageFolderDataset(str(tmp_path), pipeline=LOAD)
    (tmp_path / '0.png').unlink()
    os.mkfifo(tmp_path / '0.png')
    sample = data[SampleAddress(0, 0, 0)]
    assert sample['bad'] >= 1


def test_the_limit_can_be_set(tmp_path):
    path = tmp_path / 'a.png'
    Image.new('RGB', (4, 4)).save(path)
    size = path.stat().st_size
    LoadRGB(max_bytes=size)({'img_path': str(path)})
    for kind in (LoadRGB, LoadBands):
        with pytest.raises(OSError, match=f'max_bytes={size - 1}'):
            kind(max_bytes=size - 1)({'img_path': str(path)})


def random_tree(root, draws):
    """Make folders, images and links between them, loops included."""
    folders = [root]
    for i in range(draws.randrange(1, 12)):
        folders.append(draws.choice(folders) / f'd{i}')
        folders[-1].mkdir()
    for i in range(draws.randrange(1, 15)):
        (draws.choice(folders) / f'{i}.png').write_bytes(b'')
    for i in range(draws.randrange(10)):
        target = draws.choice([*folders, '.', '..'])
        place = draws.choice(folders) / f'link{i}'
        if target == '..' and place.parent == root:
            target = '.'  # Else what lies beside the root belongs to it.
        os.symlink(target, place, target_is_directory=True)
    return {str(path) for path in root.rglob('*.png')}


@pytest.mark.parametrize('text', ['{', '[' * 100_000, '\udcff'])
def test_json_that_is_none_is_one_short_line(text, tmp_path):
    path = tmp_path / 'a.json'
    path.write_bytes(text.encode(errors='surrogateescape'))
    with pytest.raises(ValueError, match='is no JSON') as caught:
        read_json(path)
    assert '\n' not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize('seed', range(40))
def test_every_file_is_found_once_whatever_the_links(tmp_path, seed):
    root = tmp_path / 'root'
    root.mkdir()
    expected = random_tree(root, random.Random(seed))
    found = files_below(root, ('.png',))
    assert found.paths == sorted(expected)  # By their own names, not a link's
    outside = tmp_path / 'other'
    os.symlink(root, outside)
    through = files_below(outside, ('.png',)).paths
    assert {os.path.realpath(p) for p in through} == expected


def test_links_lead_out_of_the_folder_too(tmp_path):
    (tmp_path / 'store').mkdir()
    (tmp_path / 'store/a.png').write_bytes(b'')
    (tmp_path / 'set').mkdir()
    for name in ('x', 'y'):
        os.symlink('../store', tmp_path / 'set' / name)
    found = files_below(tmp_path / 'set', ('.png',))
    assert found.paths == [str(tmp_path / 'set/x/a.png')]
    assert found.again == [str(tmp_path / 'set/y')]


def as_nobody(work):
    """Run in a process of another user: root may read anything.

    Returns:
        What ``work`` returned, or the exception, as text.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgid(65534)
            os.setuid(65534)
            assert os.getuid() == 65534
            text = f'returned {work()}'
        except BaseException as error:
            text = f'{type(error).__name__}: {error}'
        os.write(writing, text.encode('utf-8', 'replace'))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, 'rb') as stream:
        text = stream.read().decode()
    os.waitpid(child, 0)
    return text


@pytest.fixture
def open_folder(tmp_path):
    """A folder that other users may enter, all the way from the root."""
    if os.getuid():
        pytest.skip('only root can become another user')
    for part in (tmp_path, *tmp_path.parents[:-1]):
        if part.stat().st_uid == 0 and part != tmp_path.parents[-2]:
            part.chmod(0o755)
    return tmp_path


def test_a_folder_that_cannot_be_listed_is_an_error(open_folder):
    for name in ('a', 'b'):
        (open_folder / name).mkdir()
        Image.new('RGB', (4, 4)).save(open_folder / name / 'x.png')
    count = 'returned 2'
    scan = lambda: len(ImageFolderDataset(str(open_folder)))  # noqa: E731
    assert as_nobody(scan) == count
    (open_folder / 'b').chmod(0o700)
    text = as_nobody(scan)
    assert text.startswith('PermissionError') and f'{open_folder}/b' in text
    assert 'cannot be listed' in text and 'permissions' in text


def test_a_file_that_must_not_be_read_costs_one_sample(open_folder):
    for i in range(4):
        Image.new('RGB', (4, 4)).save(open_folder / f'{i}.png')
    (open_folder / '2.png').chmod(0)
    data = ImageFolderDataset(str(open_folder), pipeline=LOAD)
    got = as_nobody(lambda: data[SampleAddress(2, 0, 0)]['bad'] >= 1)
    assert got == 'returned True'


def test_names_that_begin_with_a_dot_are_left_out_and_counted(
    tmp_path, caplog
):
    for name in (
        'a/x.png',
        'b/y.png',
        '.ipynb_checkpoints/x-checkpoint.png',
        'a/.thumbnails/x.png',
        'a/._x.png',
        'b/.hidden.png',
        'b/.DS_Store',
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(b'')
    from mmengine.logging import MMLogger

    MMLogger.get_instance('hidden', log_file=str(tmp_path / '.log'))
    data = ImageFolderDataset(str(tmp_path), with_labels=True)
    assert data.classes == ('a', 'b') and len(data) == 2
    text = (tmp_path / '.log').read_text()
    assert 'names that begin with a dot: 4' in text
    assert text.count('Left out') == 1


def test_hidden_places_acquisitions_and_bands_are_left_out(tmp_path):
    import numpy as np

    for place in ('p', '.cache'):
        for name in ('1.npy', '2.npy', '._1.npy'):
            path = tmp_path / place / name
            path.parent.mkdir(exist_ok=True)
            np.save(path, np.zeros((4, 4, 2), np.uint8))
    data = SeasonalPlaces(str(tmp_path))
    assert [os.path.basename(p) for p, _ in data.places] == ['p']
    assert len(data.places[0][1]) == 2
    read = LoadBands()({'img_path': str(tmp_path / 'p')})['img']
    assert read.shape == (4, 4, 2)  # One band of each file.


def test_names_of_any_bytes(tmp_path):
    folder = tmp_path / 'images'
    folder.mkdir()
    for i in range(3):
        Image.new('RGB', (4, 4)).save(folder / f'{i}.png')
    bad = os.fsencode(folder) + b'/caf\xe9\n.png'
    with open(bad, 'wb') as file:
        file.write(b'broken')
    good = os.fsencode(folder) + b'/\xff\xfe.png'
    os.rename(folder / '0.png', good)
    data = ImageFolderDataset(str(folder), pipeline=LOAD)
    notes = tmp_path / 'notes'
    notes.mkdir()
    data.bad_files.move_to(notes)
    for i in range(len(data)):
        data[SampleAddress(i, 0, 0)]
    (note,) = data.bad_files.read()
    (note.name + note.reason).encode('utf-8')  # Any file takes it.
    assert 'caf\\udce9' in note.name
    assert write_shards(data, tmp_path / 'out').samples == 4


def test_notes_never_end_a_run(tmp_path):
    log = BadFileLog(tmp_path / 'cleaned away')
    log.note('a', 'why')
    log.note('b', 'why')
    assert log.folder is None and log.read() == []
    log.move_to(tmp_path)
    (tmp_path / 'x.jsonl').write_bytes(b'\xff\n{}\n["a"]\n[1,2,3]\n')
    assert log.read() == []


def test_messages_stay_short_and_printable():
    assert len(shortened('x' * 100_000)) < 210
    assert len(shortened({'a': ['b' * 100_000]})) < 210
    for text in ('\udcff', 'a\udcc3b'):
        printable(text).encode('utf-8')
        shortened(text).encode('utf-8')
