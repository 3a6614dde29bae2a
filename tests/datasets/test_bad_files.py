"""A folder with every kind of bad file, through the real runner."""

import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, default_collate

from mmmoco.datasets import (
    AddressedDataset,
    AddressedSampler,
    BadFileLog,
    ImageFolderDataset,
    SampleAddress,
    UnreadableDataError,
)

CROP = dict(type='FastRandomResizedCrop', size=16)
VIEWS = [
    dict(type='LoadRGB'),
    dict(type='Views', views=dict(view_q=[CROP], view_k=[CROP])),
]


def pixels(seed, height=40, width=48, channels=3):
    """Smooth noise, which a JPEG keeps."""
    draws = np.random.default_rng(seed)
    small = draws.integers(0, 256, (height // 8, width // 8, channels))
    return np.kron(small, np.ones((8, 8, 1))).astype(np.uint8)


def encoded(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def write_every_kind(folder):
    """Return the names that must be found bad, and those that must not."""
    folder.mkdir(parents=True, exist_ok=True)
    rgb = Image.fromarray(pixels(1))
    jpeg = encoded(rgb, 'JPEG', quality=95)
    png = encoded(rgb, 'PNG')
    grey16 = np.arange(40 * 48, dtype=np.uint16).reshape(40, 48) * 34
    frames = [Image.fromarray(pixels(i)) for i in range(3)]
    good = {
        'alpha.png': encoded(
            Image.fromarray(pixels(2, channels=4), 'RGBA'), 'PNG'
        ),
        'sixteen bits.png': encoded(Image.fromarray(grey16), 'PNG'),
        'cmyk.jpg': encoded(rgb.convert('CMYK'), 'JPEG'),
        'one pixel.png': encoded(Image.new('RGB', (1, 1), 'red'), 'PNG'),
        'animated.webp': encoded(
            frames[0],
            'WEBP',
            save_all=True,
            append_images=frames[1:],
            lossless=True,
        ),
        'a png.jpg': encoded(rgb, 'PNG'),
        'grey.jpg': encoded(rgb.convert('L'), 'JPEG'),
        'spaces and ünïcödé/早 é.jpg': jpeg,
    }
    bad = {
        'truncated.jpg': jpeg[: len(jpeg) // 2],
        'truncated.png': png[: len(png) // 2],
        'corrupt.jpg': jpeg[:100] + b'\xff\xd9' * 200,
        'zero.jpg': b'',
        'text.png': b'this is no image at all',
        'tail/no é image.gif': b'GIF89a',
    }
    for name, data in (good | bad).items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    os.symlink(folder / 'nowhere.jpg', folder / 'broken link.jpg')
    (folder / 'io error.jpg').write_bytes(jpeg)
    return {*bad, 'broken link.jpg', 'io error.jpg'}, set(good)


EXTENSIONS = ('.jpg', '.png', '.gif', '.webp')


@pytest.fixture
def io_error(monkeypatch):
    """Reading one file fails; tests run as root, who may read anything."""
    real = os.open

    def failing(file, *args, **kwargs):
        if str(file).endswith('io error.jpg'):
            raise OSError(5, 'Input/output error', str(file))
        return real(file, *args, **kwargs)

    monkeypatch.setattr(os, 'open', failing)


def fill(folder, count):
    for i in range(count):
        data = encoded(Image.fromarray(pixels(i + 10)), 'JPEG')
        (folder / f'good {i:03}.jpg').write_bytes(data)


def test_each_kind_is_read_or_named(tmp_path, io_error):
    bad, good = write_every_kind(tmp_path)
    data = ImageFolderDataset(
        str(tmp_path), extensions=EXTENSIONS, pipeline=VIEWS
    )
    failed = {}
    for index, path in enumerate(data.paths):
        name = os.path.relpath(path, tmp_path)
        try:
            out = data[index]
        except OSError as error:
            failed[name] = str(error)
        else:
            assert out['inputs']['view_q'].shape == (3, 16, 16), name
            assert out['bad'] == 0
    assert set(failed) == bad
    assert len(data) == len(bad) + len(good)
    for name, text in failed.items():
        assert name.split('/')[-1] in text  # the error names the file


def test_what_odd_files_look_like(tmp_path):
    write_every_kind(tmp_path)
    load = ImageFolderDataset(
        str(tmp_path), extensions=EXTENSIONS, pipeline=[dict(type='LoadRGB')]
    )
    by_name = {Path(p).name: i for i, p in enumerate(load.paths)}
    image = load[by_name['sixteen bits.png']]['img']
    expected = np.arange(40 * 48).reshape(40, 48) * 34 // 256
    assert np.array_equal(image[..., 0], expected)  # not cut off at 255
    image = load[by_name['alpha.png']]['img']
    assert np.array_equal(image, pixels(2, channels=4)[..., :3])
    image = load[by_name['animated.webp']]['img'].astype(int)
    assert abs(image - pixels(0)).mean() < 20  # the first frame
    for name in ('cmyk.jpg', 'grey.jpg', 'a png.jpg'):
        assert load[by_name[name]]['img'].shape == (40, 48, 3)


def run_config(folder, small_config, **options):
    cfg = small_config(**options)
    cfg.train_dataloader.dataset = dict(
        type='ImageFolderDataset',
        data_root=str(folder),
        extensions=EXTENSIONS,
        pipeline=[
            dict(type='LoadRGB'),
            dict(type='Views', views=dict(view_q=[CROP], view_k=[CROP])),
        ],
    )
    cfg.train_dataloader.num_workers = 2
    cfg.model.data_preprocessor = dict(
        type='ViewAugmentor', mean=(127.0,) * 3, std=(64.0,) * 3
    )
    cfg.model.backbone.in_channels = 3
    return cfg


def test_a_run_over_every_kind_of_bad_file(
    tmp_path, small_config, runner_of, io_error
):
    """8 of 224 files are bad: the run ends well and lists them once."""
    folder = tmp_path / 'images'
    bad, good = write_every_kind(folder)
    fill(folder, 224 - len(bad) - len(good))
    cfg = run_config(folder, small_config)
    runner = runner_of(cfg)
    runner.train()
    lines = (tmp_path / 'run/bad_files.txt').read_text().splitlines()
    listed = dict(line.split('\t') for line in lines)
    names = [os.path.relpath(path, folder) for path in listed]
    assert len(lines) == len(names) == len(bad)
    assert set(names) == bad
    assert listed[str(folder / 'io error.jpg')] == 'Input/output error'
    assert all(listed.values())
    (hook,) = [h for h in runner.hooks if type(h).__name__ == 'BadFilesHook']
    assert hook.all_seen == 14 * 16  # all of them, once
    assert hook.all_bad == len(bad)

    # A resumed run adds to the list only what is new.
    (folder / 'good 000.jpg').write_bytes(b'gone bad')
    cfg = run_config(folder, small_config, **{'train_cfg.max_epochs': 2})
    cfg.resume = True
    runner_of(cfg).train()
    again = (tmp_path / 'run/bad_files.txt').read_text().splitlines()
    assert again[:-1] == lines
    assert again[-1].startswith(str(folder / 'good 000.jpg'))


def test_too_many_bad_files_stop_the_run(tmp_path, small_config, runner_of):
    folder = tmp_path / 'images'
    folder.mkdir()
    fill(folder, 288)
    for i in range(32):
        (folder / f'bad {i:03}.jpg').write_bytes(b'no image')
    cfg = run_config(folder, small_config)
    with pytest.raises(ValueError, match=r'of 208 samples.*more than 5 %'):
        runner_of(cfg).train()
    assert (tmp_path / 'run/bad_files.txt').is_file()


def test_a_folder_of_nothing_but_bad_files_ends_with_one_line(tmp_path):
    for i in range(5):
        (tmp_path / f'{i}.jpg').write_bytes(b'no image')
    data = ImageFolderDataset(str(tmp_path), pipeline=VIEWS)
    data.bad_files = BadFileLog()
    loader = DataLoader(
        data, sampler=AddressedSampler(data, seed=0), num_workers=1
    )
    with pytest.raises(UnreadableDataError) as error:
        next(iter(loader))
    text = str(error.value)
    assert text.startswith('20 samples in a row') and '\n' not in text


class Numbers(AddressedDataset):
    """Every third sample is bad."""

    def __len__(self):
        return 30

    def sample(self, index):
        if index % 3 == 0:
            raise OSError('bad')
        return {'index': index, 'draw': np.random.rand(), 'ids': index}


def test_replacement_depends_on_the_address_alone():
    data = Numbers()
    first = data[SampleAddress(3, 1, 7)]
    data[SampleAddress(4, 1, 7)]
    again = data[SampleAddress(3, 1, 7)]
    assert first == again and first['bad'] >= 1
    assert first['index'] % 3
    drawn = {data[SampleAddress(3, e, 7)]['index'] for e in range(20)}
    assert len(drawn) > 5  # another one in every epoch
    # The replacement is not the view that this sample has of its own.
    own = data[SampleAddress(first['index'], 1, 7)]
    assert own['bad'] == 0 and own['draw'] != first['draw']


def test_replacements_are_equal_over_workers():
    def ids(workers):
        data = Numbers()
        sampler = AddressedSampler(data, seed=5)
        loader = DataLoader(
            data,
            batch_size=5,
            sampler=sampler,
            num_workers=workers,
            collate_fn=default_collate,
        )
        batches = list(loader)
        return (
            torch.cat([b['index'] for b in batches]).tolist(),
            torch.cat([b['bad'] for b in batches]).tolist(),
        )

    assert ids(0) == ids(2)
    assert sum(n > 0 for n in ids(0)[1]) == 10


def test_a_transform_may_give_a_sample_up():
    data = Numbers()
    data.pipeline = lambda sample: sample if sample['index'] > 20 else None
    assert data[SampleAddress(1, 0, 0)]['index'] > 20
    with pytest.raises(OSError, match='None'):
        data[1]


def test_other_errors_are_not_taken_for_bad_files():
    data = Numbers()

    def fail(sample):
        raise ValueError('a fault of the transform')

    data.pipeline = fail
    with pytest.raises(ValueError, match='a fault'):
        data[SampleAddress(1, 0, 0)]


def test_notes_of_several_processes_are_joined(tmp_path):
    log = BadFileLog()
    log.move_to(tmp_path)
    log.note('a', OSError(2, 'No such file'))
    log.note('a', 'again')
    other = json.dumps(['b', 'why']) + '\n' + json.dumps(['a', 'x']) + '\n'
    (tmp_path / 'other-1.jsonl').write_text(other + '["half')
    assert sorted(bad.name for bad in log.read()) == ['a', 'b']


def test_evaluation_leaves_bad_files_out(tmp_path):
    """A replacement never counts twice in a bank or as a query."""
    from mmmoco.engine.evaluation.features import extract_features

    for i in range(12):
        path = tmp_path / f'{"ab"[i % 2]}/{i:02}.png'
        path.parent.mkdir(exist_ok=True)
        Image.new('RGB', (4, 4), (i, i, i)).save(path)
    (tmp_path / 'a/04.png').write_bytes(b'')
    data = ImageFolderDataset(
        str(tmp_path),
        with_labels=True,
        pipeline=[dict(type='LoadRGB'), dict(type='PackImage')],
    )
    loader = DataLoader(
        data, batch_size=5, sampler=AddressedSampler(data, shuffle=False)
    )

    class Model(torch.nn.Module):
        def data_preprocessor(self, batch, training):
            return batch

        def extract_feat(self, x, stage):
            return x.float().mean((2, 3))

    features = extract_features(Model(), loader)
    assert len(features.values) == 11
    shown = features.values[:, 0].tolist()
    assert sorted(shown) == [i for i in range(12) if i != 4]
    assert [int(v) % 2 for v in shown] == features.labels.tolist()


def test_a_bad_file_may_come_back(tmp_path):
    """Nothing remembers it as bad: the file is read again."""
    fill(tmp_path, 2)
    path = tmp_path / 'good 000.jpg'
    whole = path.read_bytes()
    path.write_bytes(b'')
    data = ImageFolderDataset(str(tmp_path), pipeline=VIEWS)
    assert data[SampleAddress(0, 0, 0)]['ids'] == 1
    path.write_bytes(whole)
    assert data[SampleAddress(0, 0, 0)]['ids'] == 0
    shutil.rmtree(tmp_path)
