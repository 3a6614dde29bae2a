"""Files of a few kB that stand for hours or for gigabytes."""

import gzip
import os
import pickle
import struct
import tarfile

import numpy as np
import pytest
from mmengine.config import Config

from mmmoco.apis.report.jobs import report
from mmmoco.datasets import tar_shards
from mmmoco.datasets.cifar import CIFAR
from mmmoco.datasets.transforms.bands import LoadBands
from mmmoco.datasets.transforms.loading import check_scans
from mmmoco.engine import checkpoint_io
from mmmoco.engine.results import append_result
from mmmoco.engine.work_dir import WorkDirError, claimed

from .crafted import archive, call, dict_of, name, number, pickled, text


def remember(place):
    return b'r' + struct.pack('<I', place)


def recall(place):
    return b'j' + struct.pack('<I', place)


def again(value, item, times):
    """A list of the same call of the same value."""
    start = value + remember(1) + b'0'
    return b'(' + start + item * times + b'l'


RAW = b'B' + struct.pack('<I', 10**6) + bytes(10**6)
LETTERS = b'X' + struct.pack('<I', 10**6) + b'a' * 10**6
COPIED = {
    'text': again(
        LETTERS,
        call(name('_codecs', 'encode'), recall(1), text('latin1')),
        40,
    ),
    'sizes': again(
        b'(' + b'K\1' * 10**5 + b't',
        call(name('torch', 'Size'), recall(1)),
        400,
    ),
    'scalars': again(
        b'B' + struct.pack('<I', 99999) + bytes(99999),
        call(
            name('numpy._core.multiarray', 'scalar'),
            call(name('numpy', 'dtype'), text('S99999')),
            recall(1),
        ),
        400,
    ),
}
CALLED = {
    'set': call(name('builtins', 'set'), b'(' + b'K\1' * 10_001 + b'l'),
    'complex': dict_of(
        *(
            call(
                name('builtins', 'complex'),
                b'G' + struct.pack('>d', -1000003.0 * i),
                b'G' + struct.pack('>d', i),
            )
            + b'N'
            for i in range(10_001)
        )
    ),
    'integers': dict_of(*(number(i) + b'N' for i in range(10_001))),
    'text': dict_of(LETTERS, b'N'),
}


@pytest.mark.parametrize('what', COPIED)
def test_what_is_recalled_is_not_copied_without_end(tmp_path, what):
    file = tmp_path / 'a.pth'
    file.write_bytes(archive(pickled(dict_of(text('x'), COPIED[what]))))
    with pytest.raises(checkpoint_io.CheckpointError, match='much more than'):
        checkpoint_io.read(file)


@pytest.mark.parametrize('what', CALLED)
def test_keys_of_one_hash_cannot_be_many(tmp_path, what):
    file = tmp_path / 'a.pth'
    file.write_bytes(archive(pickled(dict_of(text('x'), CALLED[what]))))
    with pytest.raises(checkpoint_io.CheckpointError, match='keys that|long'):
        checkpoint_io.read(file)


def test_scans_do_not_hide_behind_marks_without_length():
    scans = b'\xff\xda\0\2' * 200
    for mark in (b'\xd0', b'\xd7', b'\xd8', b'\xd9', b'\1'):
        with pytest.raises(OSError, match='scans'):
            check_scans(b'\xff\xd8\xff' + mark + b'\xff\xfe' + scans)


def test_a_folder_of_bands_is_limited_as_a_whole(tmp_path):
    np.save(tmp_path / 'B0.npy', np.zeros((1000, 1000), np.uint8))
    for i in range(1, 9):
        np.save(tmp_path / f'B{i}.npy', np.zeros((1, 1), np.uint8))
    with pytest.raises(OSError, match='together'):
        LoadBands(max_bytes=2 << 20).transform({'img_path': str(tmp_path)})


def _result(folder):
    append_result(
        str(folder), task='knn', protocol={}, metrics={}, cfg=Config({})
    )


@pytest.mark.parametrize('kind', ['link', 'hard link', 'pipe'])
def test_nothing_is_appended_elsewhere(tmp_path, kind):
    mine, work_dir = tmp_path / 'mine', tmp_path / 'work'
    mine.write_text('mine')
    work_dir.mkdir()
    for place in (work_dir / 'results.jsonl', work_dir / '.lock'):
        if kind == 'link':
            place.symlink_to(mine)
        elif kind == 'hard link':
            os.link(mine, place)
        else:
            os.mkfifo(place)
    _result(work_dir)
    with pytest.raises(WorkDirError), claimed(str(work_dir)):
        pass
    assert mine.read_text() == 'mine'


def test_results_are_appended(tmp_path):
    for _ in range(2):
        _result(tmp_path)
    assert (tmp_path / 'results.jsonl').read_text().count('knn') == 2


def _header(size):
    info = tarfile.TarInfo('b')
    header = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    header[124:136] = size
    header[148:156] = b' ' * 8
    header[148:156] = b'%06o\0 ' % sum(header)
    return bytes(header)


@pytest.mark.parametrize('size', [-512, 5 << 40])
def test_an_archive_of_cifar_that_goes_in_a_circle_ends(tmp_path, size):
    raw = b'\xff' if size < 0 else b'\x80'
    raw += (size % (1 << 88)).to_bytes(11, 'big')
    file = tmp_path / 'cifar-10-python.tar.gz'
    file.write_bytes(gzip.compress(_header(raw) + bytes(2048)))
    with pytest.raises(ValueError, match=r'CIFAR|tar'):
        CIFAR(file)


@pytest.mark.parametrize('labels', [None, ['x'], [-1], [1 << 70]])
def test_other_labels_of_cifar_are_an_error(tmp_path, labels):
    meta = {b'label_names': [b'a']}
    batch = {b'data': np.zeros((1, 3072), np.uint8), b'labels': labels}
    (tmp_path / 'batches.meta').write_bytes(pickle.dumps(meta, 2))
    for file in ('test_batch', *(f'data_batch_{i}' for i in range(1, 6))):
        (tmp_path / file).write_bytes(pickle.dumps(batch, 2))
    with pytest.raises(ValueError, match='no labels'):
        CIFAR(tmp_path)


@pytest.mark.parametrize(
    'scalars',
    [
        '{"loss": 1, "step": %s}' % ('9' * 400),
        '{"loss": %s, "step": 1}' % ('9' * 400),
        '{"alarms": Infinity, "loss": 1, "step": 1}',
    ],
)
def test_numbers_beyond_all_figures_keep_no_trace(tmp_path, scalars):
    place = tmp_path / 'a/vis_data/scalars.json'
    place.parent.mkdir(parents=True)
    (tmp_path / 'results.jsonl').write_text('{"task": "\\ud800"}\n')
    (tmp_path / 'x.py').write_text(f'load_from = 0x{"f" * 20000}')
    place.write_text(f'{scalars}\n')
    try:
        report([str(tmp_path)])
    except ValueError as error:
        assert 'is no number' in str(error)  # noqa: PT017


def test_a_long_label_costs_one_sample():
    label = b'5' + b' ' * 1023 + b'x'
    with pytest.raises(OSError, match='label'):
        tar_shards._load('a', 0, bytes, lambda: label, None)
