import io
import json
import os
import socket
import sys
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, default_collate

from mmmoco.apis import cli
from mmmoco.apis.data import shard_writer
from mmmoco.apis.data.shard_writer import write_shards
from mmmoco.datasets import (
    AddressedSampler,
    ImageFolderDataset,
    SampleAddress,
    TarShards,
    UnreadableDataError,
)
from mmmoco.datasets.shard_stream import shuffled
from mmmoco.engine.batch_checks import check_loader

from ..conftest import optional

PACK = [dict(type='LoadRGB'), dict(type='PackImage')]
CROP = dict(type='FastRandomResizedCrop', size=8)
VIEWS = [dict(type='LoadRGB'), dict(type='Views', views=dict(view_q=[CROP]))]
COUNT, PER_SHARD = 100, 9


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp('images')
    for i in range(COUNT):
        path = folder / f'{"abcd"[i % 4]}/{i:03} é.png'
        path.parent.mkdir(exist_ok=True)
        draws = np.random.default_rng(i)
        pixels = draws.integers(0, 256, (10, 12, 3), dtype=np.uint8)
        pixels[0, 0, 0] = i
        Image.fromarray(pixels).save(path)
    return folder


@pytest.fixture(scope='module')
def shards(images, tmp_path_factory):
    out = tmp_path_factory.mktemp('shards')
    source = ImageFolderDataset(str(images), with_labels=True)
    write_shards(source, out, PER_SHARD)
    return out


def loader_of(data, workers=0, skip=0, epoch=0, infinite=False, batch=4):
    sampler = AddressedSampler(data, seed=3, infinite=infinite)
    sampler.set_epoch(epoch)
    sampler.skip(skip)
    return DataLoader(
        data,
        batch_size=batch,
        sampler=sampler,
        num_workers=workers,
        drop_last=True,
        collate_fn=default_collate,
    )


def ids(batches):
    return [batch['ids'].tolist() for batch in batches]


def flat(lists):
    return [x for part in lists for x in part]


# ------------------------------------------------------------------ writing


def test_shards_hold_the_original_bytes_and_labels(images, shards):
    source = ImageFolderDataset(str(images), with_labels=True)
    files = sorted(shards.glob('*.tar'))
    assert len(files) == 12
    stored, order = {}, []
    for file in files:
        with tarfile.open(file) as tar:
            for member in tar:
                stored[member.name] = tar.extractfile(member).read()
                order.append(member.name)
    for i, path in enumerate(source.paths):
        assert stored[f'{i:09}.png'] == Path(path).read_bytes()
        assert int(stored[f'{i:09}.cls']) == source.labels[i]
    assert len(stored) == 2 * COUNT
    assert order != sorted(order)  # mixed over the classes
    index = json.loads((shards / 'index.json').read_text())
    assert index['classes'] == ['a', 'b', 'c', 'd']
    assert [s['samples'] for s in index['shards']] == [9] * 11 + [1]
    assert not list(shards.glob('*.part'))


def test_a_second_run_writes_only_what_is_missing(images, tmp_path):
    source = ImageFolderDataset(str(images))
    out = tmp_path / 'out'
    assert write_shards(source, out, 30).new == 4
    before = {f.name: f.read_bytes() for f in out.glob('*.tar')}
    times = {f.name: f.stat().st_mtime_ns for f in out.glob('*.tar')}
    (out / '000002.tar').unlink()
    (out / 'index.json').unlink()
    again = write_shards(source, out, 30)
    assert (again.shards, again.new, again.samples) == (4, 1, COUNT)
    assert {f.name: f.read_bytes() for f in out.glob('*.tar')} == before
    assert (out / '000000.tar').stat().st_mtime_ns == times['000000.tar']
    assert len(TarShards(str(out))) == COUNT
    with pytest.raises(FileExistsError, match='30 a shard.*50 a shard'):
        write_shards(source, out, 50)
    assert write_shards(source, out, 50, force=True).shards == 2
    assert len(list(out.glob('*.tar'))) == 2
    (tmp_path / 'foreign').mkdir()
    (tmp_path / 'foreign/x.tar').write_bytes(b'')
    with pytest.raises(FileExistsError, match='unknown'):
        write_shards(source, tmp_path / 'foreign')


def test_a_stop_in_a_shard_leaves_no_half_shard(images, tmp_path, monkeypatch):
    source = ImageFolderDataset(str(images))
    read, calls = shard_writer.read_file, iter(range(1000))

    def stopping(path):
        if next(calls) == 45:
            raise KeyboardInterrupt
        return read(path)

    monkeypatch.setattr(shard_writer, 'read_file', stopping)
    with pytest.raises(KeyboardInterrupt):
        write_shards(source, tmp_path, 30)
    assert [f.name for f in tmp_path.glob('*.tar*')] == ['000000.tar']
    monkeypatch.undo()
    assert write_shards(source, tmp_path, 30).new == 3
    data = TarShards(str(tmp_path), pipeline=PACK)
    assert sorted(flat(ids(loader_of(data)))) == list(range(COUNT))


def test_unreadable_files_are_left_out_and_reported(tmp_path):
    (tmp_path / 'in').mkdir()
    for i in range(3):
        (tmp_path / f'in/{i}.jpg').write_bytes(b'x')
    os.symlink('nowhere', tmp_path / 'in/link.jpg')
    source = ImageFolderDataset(str(tmp_path / 'in'))
    written = write_shards(source, tmp_path / 'out')
    assert written.samples == 3
    (bad,) = written.bad
    assert bad.name.endswith('link.jpg') and 'No such file' in bad.reason


def test_the_tool(images, tmp_path, capsys):
    from mmmoco.apis.data.jobs import make_shards

    argv = [str(images), str(tmp_path), '--samples-per-shard']
    cli.main(make_shards, [*argv, '40'])
    assert '100 images in 3 shards' in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        cli.main(make_shards, [*argv, '41'])
    assert stop.value.code == 2
    text = capsys.readouterr().err
    assert '--force' in text and 'Traceback' not in text


# ------------------------------------------------------------------ reading


def test_an_epoch_holds_every_sample_once(images, shards):
    data = TarShards(str(shards), pipeline=PACK, buffer_size=10)
    assert len(data) == COUNT
    first = ids(loader_of(data))
    assert sorted(flat(first)) == list(range(COUNT))
    assert flat(first) != sorted(flat(first))
    assert ids(loader_of(data, epoch=1)) != first
    source = ImageFolderDataset(str(images), with_labels=True, pipeline=PACK)
    by_mark = {source.paths[i][-9:-6]: i for i in range(COUNT)}
    for batch in loader_of(data):
        for label, image in zip(batch['labels'], batch['inputs']['image']):
            i = by_mark[f'{int(image[0, 0, 0]):03}']
            assert torch.equal(image, source[i]['inputs']['image'])
            assert int(label) == source.labels[i]


def test_lanes_share_an_epoch_without_gap_over_workers(shards):
    data = TarShards(str(shards), epoch_size=96, pipeline=PACK)
    batches = ids(loader_of(data, workers=2))
    assert len(batches) == 24
    even, odd = flat(batches[::2]), flat(batches[1::2])
    assert not set(even) & set(odd)
    # Six shards each, all of 9 but one of 1, whose lane begins them again.
    assert {len(set(even)), len(set(odd))} == {46, 48}
    assert {len({i // 9 for i in even}), len({i // 9 for i in odd})} == {6}


def test_fixed_lanes_make_the_order_independent_of_the_workers(shards):
    data = TarShards(str(shards), lanes=2, pipeline=VIEWS)
    runs = [list(loader_of(data, workers=w)) for w in (0, 1, 2, 3)]
    for run in runs[1:]:
        assert ids(run) == ids(runs[0])
        for a, b in zip(run, runs[0]):
            assert torch.equal(a['inputs']['view_q'], b['inputs']['view_q'])


@pytest.mark.parametrize('lanes', [None, 2])
def test_resuming_equals_not_having_stopped(shards, lanes):
    """Wherever it stops, and though the workers begin with another lane."""
    options = dict(lanes=lanes, pipeline=VIEWS, buffer_size=7)
    data = TarShards(str(shards), **options)
    whole = list(loader_of(data, workers=2, epoch=1))
    for done in (1, 4, 13):
        data = TarShards(str(shards), **options)
        rest = list(loader_of(data, workers=2, epoch=1, skip=4 * done))
        assert ids(rest) == ids(whole[done:])
        for a, b in zip(rest, whole[done:]):
            assert torch.equal(a['inputs']['view_q'], b['inputs']['view_q'])


def test_an_endless_stream_resumes_in_any_epoch(shards):
    data = TarShards(str(shards), pipeline=VIEWS, lanes=2)

    def take(skip, count):
        stream = iter(loader_of(data, infinite=True, skip=skip))
        return [next(stream) for _ in range(count)]

    whole = take(0, 80)  # more than three epochs of 25 batches
    rest = take(4 * 61, 19)
    assert ids(rest) == ids(whole[61:])
    views = [b['inputs']['view_q'] for b in whole]
    assert torch.equal(rest[3]['inputs']['view_q'], views[64])
    counts = np.bincount(flat(ids(whole)), minlength=COUNT)
    assert counts.min() >= 2 and counts.max() <= 5
    # A sample has other views in the next round.
    flat_ids = flat(ids(whole))
    first = flat_ids.index(50)
    second = flat_ids.index(50, first + 1)
    joined = torch.cat(views)
    assert not torch.equal(joined[first], joined[second])


def test_what_is_passed_over_is_not_decoded(shards):
    data = TarShards(str(shards), pipeline=PACK, lanes=2)
    decoded = []
    pipeline = data.pipeline
    data.pipeline = lambda sample: (decoded.append(1), pipeline(sample))[1]
    assert len(list(loader_of(data, skip=80))) == 5
    assert len(decoded) == 20


def test_processes_read_different_shards(shards):
    seen = []
    for rank in range(3):
        data = TarShards(str(shards), epoch_size=96, lanes=2, pipeline=PACK)
        data.rank, data.world_size = rank, 3
        loader = loader_of(data)
        loader.sampler.rank, loader.sampler.world_size = rank, 3
        assert len(loader) == 8
        # Before a lane has gone through its two shards of 9 or 1.
        seen.append({i for b in list(loader)[:4] for i in b['ids'].tolist()})
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])


def test_shuffle_buffer_yields_everything_once_within_its_reach():
    items = list(shuffled(range(200), 20, np.random.default_rng(0)))
    assert sorted(items) == list(range(200))
    assert max(v - i for i, v in enumerate(items)) < 20
    assert items != sorted(items)
    assert list(shuffled(range(5), 1, np.random.default_rng(0))) == [*range(5)]


# --------------------------------------------------------- foreign and bad


def tar_of(path, members):
    with tarfile.open(path, 'w') as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            if data is None:
                info.type, info.linkname = tarfile.SYMTYPE, '/etc/passwd'
                tar.addfile(info)
                continue
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def png(level):
    stream = io.BytesIO()
    Image.new('RGB', (12, 10), (level, 0, 0)).save(stream, 'PNG')
    return stream.getvalue()


def test_foreign_shards_need_an_epoch_size_and_keep_their_ids(tmp_path):
    optional('webdataset')
    for s in range(2):
        tar_of(
            tmp_path / f'x-{s}.tar',
            [(f'a/{s}{i}.png', png(i)) for i in range(4)],
        )
    with pytest.raises(ValueError, match='epoch_size'):
        TarShards(str(tmp_path))
    data = TarShards(str(tmp_path / 'x-*.tar'), epoch_size=8, pipeline=PACK)
    first = flat(ids(loader_of(data)))
    assert len(set(first)) == 8
    assert set(flat(ids(loader_of(data, epoch=1)))) == set(first)
    braces = TarShards(str(tmp_path / 'x-{0..1}.tar'), 8, pipeline=PACK)
    assert braces.shards == data.shards
    with pytest.raises(FileNotFoundError, match='x-2'):
        TarShards(str(tmp_path / 'x-{0..2}.tar'), 8)


def test_members_that_would_escape_are_refused(tmp_path):
    tar_of(
        tmp_path / 'evil.tar',
        [
            ('../../outside.png', png(1)),
            ('/absolute.png', png(2)),
            ('link.png', None),
            ('fine.png', png(3)),
        ],
    )
    data = TarShards(str(tmp_path), epoch_size=1, pipeline=PACK)
    data.bad_files.move_to(tmp_path)
    for epoch in range(2):
        out = data[SampleAddress(0, epoch, 0)]
        assert int(out['inputs']['image'][0, 0, 0]) == 3
    names = [bad.name for bad in data.bad_files.read()]
    assert len(names) == 2 and 'outside' in names[0] + names[1]
    assert sorted(p.name for p in tmp_path.iterdir())[0] == 'evil.tar'
    (tmp_path / 'index.json').write_text(
        json.dumps({'shards': [{'name': '../x.tar', 'samples': 1}]})
    )
    with pytest.raises(ValueError, match='beside it'):
        TarShards(str(tmp_path))


def test_bad_samples_and_shards_are_survived(tmp_path):
    good = [(f'{i}.png', png(i)) for i in range(8)]
    members = good + [('z8.png', b''), ('z9.txt', b'no image')]
    tar_of(tmp_path / '0.tar', [members[i] for i in (8, *range(8), 9)])
    tar_of(tmp_path / '1.tar', good)
    whole = (tmp_path / '1.tar').read_bytes()
    (tmp_path / '1.tar').write_bytes(whole[: 4 * 1024 + 600])
    (tmp_path / '2.tar').write_bytes(b'no tar at all')
    data = TarShards(str(tmp_path), epoch_size=40, pipeline=PACK)
    notes = tmp_path / 'notes'
    notes.mkdir()
    data.bad_files.move_to(notes)
    batches = list(loader_of(data, workers=1))
    assert len(batches) == 10
    assert sum(int((b['bad'] > 0).sum()) for b in batches) >= 2
    bad = {os.path.basename(b.name): b.reason for b in data.bad_files.read()}
    assert {'0.tar:z8.png', '0.tar:z9', '2.tar'} <= set(bad), bad
    # A bad sample moves no position: a resumed run sees the same.
    again = TarShards(str(tmp_path), epoch_size=40, pipeline=PACK)
    again.bad_files.move_to(notes)
    assert ids(loader_of(again, workers=1, skip=20)) == ids(batches[5:])


def test_nothing_readable_ends_with_one_line(tmp_path):
    (tmp_path / '0.tar').write_bytes(b'no tar')
    data = TarShards(str(tmp_path), epoch_size=4, pipeline=PACK)
    with pytest.raises(UnreadableDataError, match='1 of 1 shards'):
        next(iter(loader_of(data, workers=1)))


@pytest.mark.slow
def test_shards_over_http(shards):
    handler = partial(SimpleHTTPRequestHandler, directory=str(shards))
    handler.log_message = lambda *args: None

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(
        ('127.0.0.1', 0), partial(Quiet, directory=str(shards))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f'http://127.0.0.1:{server.server_address[1]}/'
        data = TarShards(url, pipeline=PACK, lanes=2, buffer_size=10)
        local = TarShards(str(shards), pipeline=PACK, lanes=2, buffer_size=10)
        assert ids(loader_of(data, workers=1)) == ids(loader_of(local))
        assert ids(loader_of(data, skip=40)) == ids(loader_of(local, skip=40))
        gone = TarShards(url + 'gone.tar', epoch_size=4, pipeline=PACK)
        with pytest.raises(UnreadableDataError, match='gone.tar'):
            next(iter(loader_of(gone)))
    finally:
        server.shutdown()
        server.server_close()
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    with pytest.raises(OSError, match='index.json'):
        TarShards(f'http://127.0.0.1:{port}/')


def test_other_schemes_name_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'webdataset', None)
    data = TarShards('s3://bucket/x.tar', epoch_size=4, pipeline=PACK)
    with pytest.raises(ImportError, match='pip install webdataset'):
        data[0]
    with pytest.raises(ImportError, match='pip install webdataset'):
        TarShards(str(tmp_path / 'x-{0..1}.tar'), epoch_size=4)


# ------------------------------------------------------------------- guard


def test_guard_wants_a_shard_for_every_worker_of_every_process(shards):
    data = TarShards(str(shards))
    check_loader(loader_of(data, workers=4), processes=3)
    with pytest.raises(ValueError, match=r'12 shards, less than 16 = 4 pr'):
        check_loader(loader_of(data, workers=4), processes=4)
    with pytest.raises(ValueError, match=r'at most 3'):
        check_loader(loader_of(data, workers=4), processes=4)
    fixed = TarShards(str(shards), lanes=2)
    check_loader(loader_of(fixed, workers=4), processes=6)
    with pytest.raises(ValueError, match='at most 12 processes'):
        check_loader(loader_of(fixed, workers=4), processes=13)
    loader = DataLoader(data, batch_size=4, sampler=AddressedSampler(data))
    with pytest.raises(ValueError, match='drop_last'):
        check_loader(loader, processes=1)
