"""CIFAR's archives, Hugging Face's data sets, places with seasons."""

import io
import pickle
import sys
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, default_collate

from mmmoco.datasets import (
    CIFAR,
    AddressedSampler,
    HFDataset,
    HFStream,
    SampleAddress,
    SeasonalPlaces,
)

from ..conftest import optional

PACK = [dict(type='LoadRGB'), dict(type='PackImage')]


def loaded(data, **options):
    sampler = AddressedSampler(data, seed=1)
    sampler.skip(options.pop('skip', 0))
    return list(
        DataLoader(
            data,
            batch_size=2,
            sampler=sampler,
            drop_last=True,
            collate_fn=default_collate,
            **options,
        )
    )


# --------------------------------------------------------------------- CIFAR


def batch(labels_key, count, seed):
    draws = np.random.default_rng(seed)
    data = draws.integers(0, 256, (count, 3072), dtype=np.uint8)
    labels = draws.integers(0, 3, count).tolist()
    # As python 2 wrote them: keys are bytes.
    return {b'data': data, labels_key: labels}


def write_cifar(path, kind, archive):
    names = [b'cat', b'dog', b'ship']
    if kind == 10:
        files = {
            f'data_batch_{i}': batch(b'labels', 4, i) for i in range(1, 6)
        }
        files |= {
            'test_batch': batch(b'labels', 3, 9),
            'batches.meta': {b'label_names': names},
        }
        folder = 'cifar-10-batches-py'
    else:
        files = {
            'train': batch(b'fine_labels', 6, 1),
            'test': batch(b'fine_labels', 3, 2),
            'meta': {b'fine_label_names': names},
        }
        folder = 'cifar-100-python'
    pickles = {n: pickle.dumps(f, protocol=2) for n, f in files.items()}
    if archive:
        with tarfile.open(path / f'cifar-{kind}-python.tar.gz', 'w:gz') as tar:
            for name, data in pickles.items():
                info = tarfile.TarInfo(f'{folder}/{name}')
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    else:
        (path / folder).mkdir()
        for name, data in pickles.items():
            (path / folder / name).write_bytes(data)
    return files


@pytest.mark.parametrize('archive', [True, False])
@pytest.mark.parametrize('kind', [10, 100])
def test_cifar_as_its_authors_pack_it(tmp_path, kind, archive):
    files = write_cifar(tmp_path, kind, archive)
    before = sorted(tmp_path.rglob('*'))
    data = CIFAR(str(tmp_path), 'train', pipeline=PACK)
    assert sorted(tmp_path.rglob('*')) == before  # nothing is unpacked
    first = files['data_batch_1' if kind == 10 else 'train']
    assert len(data) == (20 if kind == 10 else 6)
    assert data.metainfo['classes'] == ('cat', 'dog', 'ship')
    for i in range(2):
        out = data[i]
        expected = first[b'data'][i].reshape(3, 32, 32)  # C×H×W, RGB
        assert np.array_equal(out['inputs']['image'].numpy(), expected)
        key = b'labels' if kind == 10 else b'fine_labels'
        assert out['labels'] == first[key][i]
    assert len(CIFAR(str(tmp_path), 'test')) == 3
    # A transform in place reaches no other epoch.
    data.sample(0)['img'][:] = 0
    assert data.images[0].any()


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / 'owned'), 'w'))

    write_cifar(tmp_path, 10, archive=False)
    target = tmp_path / 'cifar-10-batches-py/data_batch_3'
    for bad in (Evil(), {b'data': Evil()}, {b'data': np.array([Evil()])}):
        target.write_bytes(pickle.dumps(bad, protocol=2))
        with pytest.raises(ValueError, match='data_batch_3'):
            CIFAR(str(tmp_path))
    assert not (tmp_path / 'owned').exists()
    for junk in (b'', b'junk', pickle.dumps([1]), pickle.dumps({b'data': 1})):
        target.write_bytes(junk)
        with pytest.raises(ValueError, match='data_batch_3'):
            CIFAR(str(tmp_path))


def test_missing_cifar_says_what_is_expected(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'cifar-10-python\.tar\.gz'):
        CIFAR(str(tmp_path))
    with pytest.raises(FileNotFoundError, match='nowhere'):
        CIFAR(str(tmp_path / 'nowhere'))
    with pytest.raises(ValueError, match='split'):
        CIFAR(str(tmp_path), 'val')


# -------------------------------------------------------------- Hugging Face


def encoded(level):
    stream = io.BytesIO()
    Image.new('RGB', (6, 5), (level, 0, 0)).save(stream, 'PNG')
    return stream.getvalue()


@pytest.fixture
def parquet(tmp_path):
    """Three files of four rows; one image is broken."""
    datasets = optional('datasets')
    features = datasets.Features(
        image=datasets.Image(), label=datasets.ClassLabel(names=['a', 'b'])
    )
    for part in range(3):
        rows = [
            {'bytes': encoded(4 * part + i), 'path': None} for i in range(4)
        ]
        if part == 1:
            rows[2] = {'bytes': b'broken', 'path': None}
        data = datasets.Dataset.from_dict(
            {'image': rows, 'label': [0, 1, 0, 1]}, features=features
        )
        data.to_parquet(tmp_path / f'part-{part}.parquet')
    return dict(data_files=str(tmp_path / 'part-*.parquet'))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The library writes to a folder of the test, and stays offline."""
    if 'datasets' in sys.modules:
        config = sys.modules['datasets'].config
        monkeypatch.setattr(config, 'HF_DATASETS_CACHE', tmp_path / 'cache')
        monkeypatch.setattr(config, 'HF_HUB_OFFLINE', True)


def levels(batches):
    images = torch.cat([b['inputs']['image'] for b in batches])
    return images[:, 0, 0, 0].tolist()


def test_map_style_data_of_hugging_face(parquet):
    data = HFDataset(
        'parquet', label_key='label', options=parquet, pipeline=PACK
    )
    assert len(data) == 12 and data.metainfo['classes'] == ('a', 'b')
    out = data[7]
    assert int(out['inputs']['image'][0, 0, 0]) == 7 and out['labels'] == 1
    with pytest.raises(OSError, match=r"'parquet\[6\]'"):
        data[6]
    assert data[SampleAddress(6, 0, 0)]['bad'] == 1
    seen = levels(loaded(data, num_workers=1))
    assert set(seen) >= {0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11}
    with pytest.raises(ValueError, match=r"no column 'img', but image, label"):
        HFDataset('parquet', image_key='img', options=parquet)


def test_streamed_data_of_hugging_face(parquet):
    options = dict(options=parquet, epoch_size=12, lanes=1, pipeline=PACK)
    data = HFStream('parquet', **options)
    assert data.num_shards == 3
    whole = loaded(data, num_workers=1)
    assert set(levels(whole)) == {0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11}
    assert sum(int(b['bad'].sum()) for b in whole) == 1
    again = HFStream('parquet', **options)
    rest = loaded(again, skip=4, num_workers=0)
    assert levels(rest) == levels(whole)[4:]
    ids = torch.cat([b['ids'] for b in whole])
    assert len(set(ids.tolist())) == 11


def test_a_saved_data_set_and_plain_arrays(tmp_path):
    datasets = optional('datasets')
    rows = [np.full((4, 4, 3), i, np.uint8) for i in range(3)]
    features = datasets.Features(image=datasets.Image())
    data = datasets.Dataset.from_dict({'image': rows}, features=features)
    data.save_to_disk(tmp_path / 'saved')
    found = HFDataset(str(tmp_path / 'saved'), pipeline=PACK)
    assert levels(loaded(found)) and len(found) == 3
    assert int(found[2]['inputs']['image'].max()) == 2
    found.data = [{'image': rows[1]}]
    assert int(found[0]['inputs']['image'].max()) == 1
    splits = datasets.DatasetDict(train=data)
    splits.save_to_disk(tmp_path / 'splits')
    assert len(HFDataset(str(tmp_path / 'splits'))) == 3
    with pytest.raises(ValueError, match="no split 'val', but train"):
        HFDataset(str(tmp_path / 'splits'), split='val')


def test_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'datasets', None)
    with pytest.raises(ImportError, match='pip install datasets'):
        HFDataset('parquet')


# -------------------------------------------------------------------- places


@pytest.fixture
def places(tmp_path):
    """Six places; the value of a file is 10 · place + date."""
    for place in range(6):
        for date in range(4 if place else 1):
            file = tmp_path / f'{place:02}/2020-{date:02}.npy'
            file.parent.mkdir(exist_ok=True)
            np.save(file, np.full((8, 8, 5), 10 * place + date, np.uint16))
    return tmp_path


def seasonal(folder, distinct=True, **options):
    views = dict(view_1=[], view_2=[])
    pipeline = [
        dict(
            type='SeasonalViews',
            load=[dict(type='LoadBands')],
            views=views,
            distinct=distinct,
        )
    ]
    return SeasonalPlaces(str(folder), pipeline=pipeline, **options)


def test_the_views_show_two_dates_of_one_place(places):
    data = seasonal(places)
    assert len(data) == 5  # one place has a single date
    dates = set()
    for epoch in range(30):
        out = data[SampleAddress(2, epoch, 0)]
        a, b = (int(x.flatten()[0]) for x in out['inputs'].values())
        assert a // 10 == b // 10 == 3 and a != b
        assert out['ids'] == 2
        dates |= {a % 10, b % 10}
        again = data[SampleAddress(2, epoch, 0)]
        assert torch.equal(again['inputs']['view_1'], out['inputs']['view_1'])
    assert dates == {0, 1, 2, 3}


def test_dates_may_repeat_as_published(places):
    data = seasonal(places, distinct=False, min_acquisitions=1)
    assert len(data) == 6
    pairs = []
    for epoch in range(60):
        out = data[SampleAddress(1, epoch, 0)]['inputs']
        pairs.append([int(x.flatten()[0]) for x in out.values()])
    equal = sum(a == b for a, b in pairs)
    assert 3 < equal < 30  # a quarter
    out = data[SampleAddress(0, 0, 0)]['inputs']  # the single date, twice
    assert torch.equal(out['view_1'], out['view_2'])
    with pytest.raises(ValueError, match='min_acquisitions=2'):
        seasonal(places, min_acquisitions=1)[0]


def test_places_are_looked_for_where_they_should_be(places, tmp_path):
    with pytest.raises(FileNotFoundError, match='5 or more acquisitions'):
        seasonal(places, min_acquisitions=5)
    with pytest.raises(FileNotFoundError, match='nowhere'):
        seasonal(places / 'nowhere')


def test_a_broken_date_makes_way_for_another_place(places):
    for date in range(4):
        (places / f'03/2020-{date:02}.npy').write_bytes(b'broken')
    out = seasonal(places)[SampleAddress(2, 0, 0)]
    assert out['bad'] and out['ids'] != 2


ODD_ROWS = [
    {'image': None},
    {'image': {'bytes': None, 'path': None}},
    {'image': {'bytes': b'', 'path': '/nowhere/x.png'}},
    {'image': {'bytes': None, 'path': '/dev/zero'}},
    {'image': {'bytes': b'\x89PNG', 'path': None}},
    {'image': [[1, 2], [3]]},
    {'image': 'a text'},
    {'image': b'no image'},
    {'image': np.zeros((2, 2, 5), np.uint8)},
    *(
        {'image': np.zeros((4, 4, 3), np.uint8), 'label': label}
        for label in (None, 'cat', float('nan'), [1], {}, '9' * 5000)
    ),
]


class FailingRows(list):
    """Rows as a damaged file gives them: not all can be had."""

    def __getitem__(self, index):
        row = super().__getitem__(index)
        if row is None:
            raise ArithmeticError('of another library')
        return row

    def shard(self, num_shards, index):
        yield from (self[i] for i in range(index, len(self), num_shards))


def test_each_odd_row_costs_one_sample(tmp_path):
    datasets = optional('datasets')
    good = {'image': np.full((4, 4, 3), 7, np.uint8), 'label': 1}
    datasets.Dataset.from_dict({'image': [1], 'label': [1]}).save_to_disk(
        tmp_path / 'saved'
    )
    options = dict(data_root=str(tmp_path / 'saved'), label_key='label')
    load = [dict(type='LoadRGB')]
    data = HFDataset(**options, pipeline=load)
    rows = [{'label': 0} | row for row in ODD_ROWS]
    data.data = FailingRows([*rows, None, *[good] * 60])
    for index in range(len(rows) + 1):
        assert data[SampleAddress(index, 0, 0)]['gt_label'] == 1, index
        with pytest.raises(OSError):
            data[index]
    stream = HFStream(**options, epoch_size=4, pipeline=load, buffer_size=1)
    stream.data = FailingRows([*rows, good, good, None, good])
    stream.num_shards = 1
    for index in range(4):  # Up to where it can be read, and again.
        assert stream[SampleAddress(index, 0, 0)]['gt_label'] == 1
