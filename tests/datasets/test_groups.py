"""What names the group of a sample, in every kind of data set."""

import io
import json
import os
import re
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from mmmoco.apis.data.jobs import make_shards
from mmmoco.datasets import (
    DigitScenes,
    HFDataset,
    HFStream,
    ImageFolderDataset,
    SampleAddress,
    SeasonalPlaces,
    TarShards,
    UnreadableDataError,
)
from mmmoco.datasets.groups import folder_of, group_number
from mmmoco.engine.groups import describe_groups

from ..conftest import call, optional

VIEWS = [
    dict(type='LoadRGB'),
    dict(type='Views', views=dict(a=[dict(type='FastFlip')])),
]
NAMES = ['a/x/0.png', 'a/x/1.png', 'a/y/2.png', 'b/x/3.png', 'b/4.png']
#: group_by → which of them are together; −1: in no group.
LEVELS = {
    1: [0, 0, 0, 1, 1],
    2: [0, 0, 1, 2, -1],
    -1: [0, 0, 1, 2, 3],
    -2: [0, 0, 0, 1, -1],
}


def png():
    file = io.BytesIO()
    Image.new('RGB', (8, 8)).save(file, 'png')
    return file.getvalue()


@pytest.fixture
def images(tmp_path):
    for name in NAMES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(png())
    return tmp_path


def parts(numbers):
    """Numbers in the order in which they come; −1 stays."""
    seen = dict.fromkeys(n for n in map(int, numbers) if n != -1)
    order = {n: i for i, n in enumerate(seen)} | {-1: -1}
    return [order[int(n)] for n in numbers]


def drawn(data):
    """Groups of the samples as a loader gets them."""
    addresses = [SampleAddress(i, 0, 0) for i in range(len(data))]
    return [data[a]['groups'] for a in addresses]


@pytest.mark.parametrize('level', LEVELS)
def test_folders(images, level):
    data = ImageFolderDataset(str(images), group_by=level, pipeline=VIEWS)
    assert [os.path.relpath(p, images) for p in data.paths] == sorted(NAMES)
    by_name = dict(zip(NAMES, LEVELS[level], strict=True))
    expected = parts([by_name[n] for n in sorted(NAMES)])
    assert parts(data.groups) == parts(drawn(data)) == expected
    pack = [dict(type='LoadRGB'), dict(type='PackImage')]
    data = ImageFolderDataset(str(images), group_by=level, pipeline=pack)
    assert parts(drawn(data)) == expected
    file = images / 'list.txt'
    file.write_text('\n'.join(NAMES[::-1]))
    listed = ImageFolderDataset(
        str(images), ann_file='list.txt', group_by=level
    )
    again = {p: g for p, g in zip(data.paths, data.groups, strict=True)}
    assert listed.groups.tolist() == [again[p] for p in listed.paths]


def test_a_number_depends_on_the_name_alone():
    code = (
        'from mmmoco.datasets.groups import group_number as n;'
        "print(n('place 7'), n(7), n('7'), n(''), n(None))"
    )
    environment = os.environ | {'PYTHONHASHSEED': '5'}
    said = subprocess.run(
        [sys.executable, '-c', code],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    own = [group_number(n) for n in ('place 7', 7, '7', '', None)]
    assert list(map(int, said.split())) == own
    assert own[1] == own[2] and own[3] == own[4] == -1
    assert own[0] == 2092072145947819173
    with pytest.raises(ValueError, match='group_by=0'):
        folder_of('a/b', 0)


@pytest.mark.parametrize('name', [-1, -1.0, '-1', ' -1 ', float('nan'), 'nan'])
def test_noise_among_clusters_is_no_group(name, tmp_path):
    """What clusterings and columns of numbers write where there is none."""
    assert group_number(name) == -1
    assert group_number('1') != group_number(f'{name}1') != -1
    Image.new('RGB', (8, 8)).save(tmp_path / 'a.png')
    (tmp_path / 'l.csv').write_text(f'path,place\na.png,{name}\n')
    data = ImageFolderDataset(
        str(tmp_path), ann_file='l.csv', group_by='place'
    )
    assert data.groups.tolist() == [-1]


@pytest.mark.parametrize('form', ['csv', 'json'])
def test_a_column_of_a_list(images, form):
    given = ['p1', 'p2', 'p1', '', '7']
    if form == 'csv':
        lines = ['Path;Patient', *map(';'.join, zip(NAMES, given))]
        text = '\n'.join(lines)
    else:
        given[4] = 7
        entries = [
            dict(img_path=n, Patient=g)
            for n, g in zip(NAMES, given, strict=True)
        ]
        text = json.dumps({'data_list': entries})
    (images / 'list').write_text(text)
    settings = dict(ann_file='list', pipeline=VIEWS)
    data = ImageFolderDataset(str(images), group_by='Patient', **settings)
    assert parts(data.groups) == parts(drawn(data)) == [0, 1, 0, -1, 2]
    with pytest.raises(ValueError, match="group_by='scan'"):
        ImageFolderDataset(str(images), group_by='scan', **settings)
    with pytest.raises(ValueError, match='a column of ann_file'):
        ImageFolderDataset(str(images), group_by='Patient')
    (images / 'lines').write_text('\n'.join(NAMES))
    with pytest.raises(ValueError, match='path,Patient'):
        ImageFolderDataset(str(images), ann_file='lines', group_by='Patient')


def tar_of(folder, members):
    with tarfile.open(folder / '0.tar', 'w') as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return str(folder / '0.tar')


def read(file, count, **options):
    data = TarShards(file, count, lanes=1, pipeline=VIEWS, **options)
    assert data.grouped and data.groups is None
    batch = data.__getitems__([SampleAddress(i, 0, 0) for i in range(count)])
    return {x['ids']: x['groups'] for x in batch}


def test_members_of_a_shard(tmp_path):
    members = []
    for i, name in enumerate(NAMES):
        stem = name.removesuffix('.png')
        members += [(name, png()), (f'{stem}.place', f'{i // 2}\n'.encode())]
        members += [(f'{stem}.json', json.dumps({'scene': i % 2}).encode())]
    file = tar_of(tmp_path, members)
    one, two, three = (
        read(file, 5, group_by=each) for each in ('place', 'json:scene', 1)
    )
    groups = [[*found.values()] for found in (one, two, three)]
    # The shuffle buffer orders all of them alike.
    assert list(one) == list(two) == list(three)
    order = np.argsort(np.array([*two.values()]) == group_number(0))
    assert sorted(np.bincount(parts(groups[0]))) == [1, 2, 2]
    assert {*groups[0]} == {group_number(i) for i in range(3)}
    assert sorted(np.bincount(parts(groups[1]))) == [2, 3] and len(order)
    assert {*groups[2]} == {group_number('a'), group_number('b')}


@pytest.mark.parametrize(
    ('group_by', 'extra', 'said'),
    [
        ('place', [], "no member 'place'"),
        ('place', [('0.place', b'x' * 2000)], 'a group of 2000 bytes'),
        ('json:scene', [('0.json', b'{')], "no entry 'scene'"),
        ('json:scene', [('0.json', b'{"scene": [1]}')], 'names no group'),
    ],
)
def test_a_sample_without_the_member_is_bad(tmp_path, group_by, extra, said):
    """It is not taken for one without a group."""
    file = tar_of(tmp_path, [('0.png', png()), *extra])
    data = TarShards(file, 1, lanes=1, pipeline=VIEWS, group_by=group_by)
    with pytest.raises(UnreadableDataError, match=re.escape(said)):
        data.__getitems__([SampleAddress(0, 0, 0)])


def test_shards_of_ours_keep_groups(images, tmp_path):
    out = tmp_path / 'shards'
    assert call(make_shards, images, out, '--group-by', -2) == 0
    found = read(str(out), 5, group_by='group')
    folder = ImageFolderDataset(str(images), group_by=-2)
    sizes = sorted(np.bincount(np.array(parts(folder.groups)) + 1))
    assert sorted(np.bincount(np.array(parts(found.values())) + 1)) == sizes


@pytest.mark.parametrize('kind', [HFDataset, HFStream])
def test_a_column_of_hugging_face(tmp_path, kind):
    datasets = optional('datasets')
    rows = {'image': [png()] * 4, 'place': [3, 5, None, 3]}
    datasets.Dataset.from_dict(rows).save_to_disk(str(tmp_path / 'd'))
    options = dict(pipeline=VIEWS, group_by='place')
    if kind is HFDataset:
        data = HFDataset(str(tmp_path / 'd'), **options)
        assert parts(data.groups) == parts(drawn(data)) == [0, 1, -1, 0]
    else:
        data = HFStream(
            str(tmp_path / 'd'), 4, lanes=1, buffer_size=1, **options
        )
        batch = data.__getitems__([SampleAddress(i, 0, 0) for i in range(4)])
        found = [x['groups'] for x in batch]
        assert parts(found) == [0, 1, -1, 0]
        assert found[0] == group_number(3)
    with pytest.raises(ValueError, match="no column 'site'"):
        HFDataset(str(tmp_path / 'd'), group_by='site')


def test_places_and_digits_are_groups(tmp_path):
    for name in ('p1/a.png', 'p1/b.png', 'p2/a.png', 'p2/b.png'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(png())
    places = SeasonalPlaces(str(tmp_path))
    assert places.groups.tolist() == [group_number(n) for n in ('p1', 'p2')]
    assert places.sample(1)['group'] == places.groups[1]
    scenes = DigitScenes(num_scenes=1500)
    assert parts(scenes.groups)[:3] == parts(scenes.groups)[1437:1440]
    assert scenes[1438]['groups'] == scenes[1]['groups'] == scenes.groups[1]


class Data:
    def __init__(self, groups, grouped=True):
        self.grouped = grouped
        self.groups = groups and np.array(groups)


def test_what_the_log_says_and_what_is_refused():
    said = describe_groups(Data([4, 4, 9, -1]))
    assert '3 images in 2 groups, the largest of 2, and 1 in none' in said
    # A quarter of 3 pairs: (2² + 1²) / 4².
    assert 'About 31.25% of the negatives' in said and '50.00%' in said
    assert 'as it is read' in describe_groups(Data(None))
    assert 'as it is read' in describe_groups(torch.utils.data.Dataset())
    for data, text in (
        (Data(None, grouped=False), 'given no group_by'),
        (Data([-1, -1]), 'none of the 2 images'),
        (Data([5, 5, 5]), 'all 3 images are of one group'),
    ):
        with pytest.raises(ValueError, match=text):
            describe_groups(data)


def test_a_run_without_groups_ends_before_it_begins(
    small_config, runner_of, images
):
    cfg = small_config(**{'model.dictionary.exclude': 'group'})
    cfg.train_dataloader.dataset = dict(
        type='ImageFolderDataset', data_root=str(images), pipeline=VIEWS
    )
    cfg.train_dataloader.batch_size = 4
    runner = runner_of(cfg)
    with pytest.raises(ValueError, match='ImageFolderDataset was given no'):
        runner.train()
    assert runner.iter == 0
