"""What is read has limits, and what is written goes where it is said."""

import io
import json
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from mmmoco import json_lines
from mmmoco.apis.dense.davis import write_results
from mmmoco.apis.dense.zero_shot_seg import write_curve
from mmmoco.apis.report.work_dir import read_run, read_settings
from mmmoco.convert.config_text import read_config_text
from mmmoco.datasets import image_lists, tar_shards
from mmmoco.datasets.transforms.bands import LoadBands
from mmmoco.datasets.transforms.loading import decode_rgb
from mmmoco.engine import checkpoint_io
from mmmoco.engine.checkpoint_io import layouts
from mmmoco.files import read_file
from mmmoco.visualization.scalars import merge_scalars, read_scalars

from ..conftest import optional


def _lines(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(f'{json.dumps(r)}\n' for r in records))
    return path


def _plain(records):
    """How scalars are joined, slowly."""
    series = {}
    for record in records:
        step, losses = record['step'], series.get('loss')
        if 'loss' in record and losses and losses[-1][0] >= step:
            series = {
                name: [p for p in points if p[0] < step]
                for name, points in series.items()
            }
        for name in record.keys() - {'step'}:
            series.setdefault(name, []).append((step, record[name]))
    return {name: points for name, points in series.items() if points}


def test_scalars_that_go_back_are_joined_as_before(tmp_path):
    draws = np.random.default_rng(0)
    for _ in range(200):
        records = [
            {'step': float(draws.integers(9)), name: float(i)}
            for i, name in enumerate(draws.choice(['loss', 'a', 'b'], 12))
        ]
        found = read_scalars(_lines(tmp_path / 's.json', records))
        assert found == _plain(records)


def test_parts_are_joined_as_before():
    def slowly(parts):
        merged = {}
        for part in parts:
            if part['loss'][0][0] <= merged.get('loss', [(99,)])[0][0]:
                merged = {}
            for name, points in part.items():
                kept = [p for p in merged.get(name, []) if p[0] < points[0][0]]
                merged[name] = kept + points
        return merged

    draws = np.random.default_rng(0)
    for _ in range(200):
        parts = [
            {
                name: [(int(s), 0.0) for s in draws.integers(9, size=3)]
                for name in ('loss', *draws.choice(['a', 'b'], 1))
            }
            for _ in range(4)
        ]
        assert merge_scalars(parts) == slowly(parts)
    assert merge_scalars([{'a': [(1, 2)]}, {'a': []}]) == {'a': [(1, 2)]}


@pytest.mark.parametrize('name', ['loss', 'n{}'])
def test_scalars_that_go_back_again_and_again_are_read(tmp_path, name):
    """Each going back cost a look at all names, or at all points."""
    records = [
        {'loss': 1, 'step': 40_000 + i % 2, name.format(i): 1}
        for i in range(20_000)
    ]
    found = read_scalars(_lines(tmp_path / 's.json', records))
    assert 1 <= len(found) <= 3


def test_long_texts_of_a_work_dir_are_refused(tmp_path, monkeypatch):
    notes = []
    text = f'a = [{"1," * (1 << 20)}]'
    assert read_settings(text, notes) == {} and 'letters' in notes[0]
    with pytest.raises(ValueError, match='letters'):
        read_config_text(text)
    path = _lines(tmp_path / 'a/vis_data/scalars.json', [{'step': 1}] * 9)
    (tmp_path / 'results.jsonl').write_text('{}\n')
    (tmp_path / 'x.py').write_text(text)
    with pytest.raises(ValueError, match=r'x\.py.* MiB'):
        read_run(tmp_path, 'a')
    monkeypatch.setattr(json_lines, 'MOST_LINES', 8)
    with pytest.raises(ValueError, match=r'scalars\.json.*8 lines'):
        read_scalars(path)


def _tiff(compression, content, tile=None, side=16):
    tags = {256: side, 257: side, 258: 8, 259: compression, 262: 1, 277: 1}
    where, counts = (324, 325) if tile else (273, 279)
    tags |= {322: tile, 323: tile} if tile else {278: side}
    start = 8 + 2 + 12 * (len(tags) + 2) + 4
    tags |= {where: start, counts: len(content)}
    rows = (struct.pack('<HHII', t, 4, 1, tags[t]) for t in sorted(tags))
    head = b'II*\0' + struct.pack('<IH', 8, len(tags))
    return head + b''.join(rows) + bytes(4) + content


def _bands(data):
    return LoadBands().transform({'img_path': 'a', 'img_bytes': data})


def test_a_strip_does_not_claim_more_than_its_page():
    optional('tifffile')
    file = io.BytesIO()
    Image.new('L', (3000, 3000)).save(file, 'JPEG')
    for compression in (6, 7, 33003, 34712, 50001, 50002, 34887, 1234):
        data = _tiff(compression, file.getvalue())
        with pytest.raises(OSError, match='its compression .* deflate'):
            _bands(data)
        with pytest.raises(OSError, match='Cannot decode'):
            decode_rgb(data, 'a')


def test_tiles_are_not_far_larger_than_the_image():
    optional('tifffile')
    pixels = zlib.compress(bytes(256))
    assert _bands(_tiff(8, pixels))['img'].shape == (16, 16, 1)
    assert decode_rgb(_tiff(8, pixels), 'a').shape == (16, 16, 3)
    tile = _tiff(8, zlib.compress(bytes(512 * 512)), tile=512)
    assert _bands(tile)['img'].shape == (16, 16, 1)
    assert decode_rgb(tile, 'a').shape == (16, 16, 3)
    data = _tiff(8, pixels, tile=30_000)
    for read in (_bands, lambda data: decode_rgb(data, 'a')):
        with pytest.raises(OSError, match='tiles of 30000×30000'):
            read(data)


@pytest.mark.parametrize('new', [True, False])
@pytest.mark.parametrize('kind', ['views', 'one tensor'])
def test_many_names_of_one_storage_are_refused(tmp_path, kind, new):
    """Who copies them, as an export does, would need them all."""
    whole, file = torch.zeros(1 << 20), tmp_path / 'a.pth'
    for count, fits in ((8, True), (40, False)):
        weights = {
            f'a{i}': whole[: (1 << 20) - (i if kind == 'views' else 0)]
            if kind == 'views'
            else whole
            for i in range(count)
        }
        content = {'state_dict': weights, 'meta': {}}
        torch.save(content, file, _use_new_zipfile_serialization=new)
        if fits:
            assert len(checkpoint_io.read(file)['state_dict']) == count
            continue
        with pytest.raises(
            checkpoint_io.CheckpointError, match=r'a\.pth.*stand for much more'
        ):
            checkpoint_io.read(file)


@pytest.mark.parametrize(
    'error',
    [MemoryError(), RuntimeError("[enforce] can't allocate memory: 9 bytes")],
)
def test_lack_of_memory_names_the_checkpoint(tmp_path, monkeypatch, error):
    def fails(*_):
        raise error

    file = tmp_path / 'a.pth'
    torch.save({'state_dict': {}}, file)
    monkeypatch.setattr(layouts, 'load', fails)
    with pytest.raises(
        checkpoint_io.CheckpointError, match=r'a\.pth.*too little memory'
    ):
        checkpoint_io.read(file)


class _Short(io.BytesIO):
    def read(self, *_):
        raise MemoryError


def test_lack_of_memory_costs_one_sample(tmp_path, monkeypatch):
    file = tmp_path / 'a.tar'
    file.write_bytes(bytes(9))
    monkeypatch.setattr(tar_shards, 'open_regular', lambda _: _Short())
    with pytest.raises(OSError, match='too little memory'):
        tar_shards._slice(str(file), 0, 9)

    class Opened(_Short):
        def fileno(self):
            return number

    with open(file, 'rb') as real:
        number = real.fileno()
        monkeypatch.setattr('mmmoco.files.open_regular', lambda _: Opened())
        with pytest.raises(OSError, match='too little memory'):
            read_file(file)


def test_lists_of_images_have_limits(tmp_path, monkeypatch):
    file = tmp_path / 'a.txt'
    monkeypatch.setattr(image_lists, 'MOST_JSON', 20)
    monkeypatch.setattr(image_lists, 'MOST_LINES', 3)
    for text, what in (('["' + 'a' * 20 + '"]', 'JSON'), ('a\n' * 4, 'lines')):
        file.write_text(text)
        with pytest.raises(ValueError, match=what):
            image_lists.read_list(file, tmp_path, False)
    file.write_text('a\r\n' * 3)
    assert len(image_lists.read_list(file, tmp_path, False).names) == 3


class _Result:
    curve = {0.1: (1.0, 2.0), 0.2: (2.0, 3.0)}


def test_pictures_and_tables_do_not_follow_links(tmp_path):
    mine, out = tmp_path / 'mine', tmp_path / 'out'
    mine.write_text('mine')
    out.mkdir()
    names = ('zero_shot.csv', 'zero_shot.png')
    for name in names:
        (out / name).symlink_to(mine)
    write_curve(out, _Result())
    assert (out / names[0]).read_text().startswith('threshold,')
    assert (out / names[1]).read_bytes().startswith(b'\x89PNG')
    label = tmp_path / '0.png'
    image = Image.new('P', (8, 8))
    image.putpalette([1, 2, 3])
    image.save(label)

    class Video:
        name, frames, labels = 'v', [label], [label]

    (out / 'v').mkdir()
    (out / 'v/0.png').symlink_to(mine)
    write_results(out, Video(), [np.zeros((8, 8), np.uint8)])
    with Image.open(out / 'v/0.png') as found:
        assert found.mode == 'P' and found.getpalette()[:3] == [1, 2, 3]
    assert mine.read_text() == 'mine'
    assert not any(map(os.path.islink, out.rglob('*')))
