"""mmmoco near-duplicates: groups by features, as lists and a picture."""

import csv
import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import mmmoco
from mmmoco.apis.probing import near_duplicates as module
from mmmoco.apis.probing.jobs import near_duplicates
from mmmoco.datasets import ImageFolderDataset

from ..conftest import call, one_line


def by_hand(features, threshold):
    """The group of every image: whatever a chain of near ones reaches."""
    unit = F.normalize(features.double(), dim=1)
    near = (unit @ unit.T >= threshold).numpy()
    group = list(range(len(near)))
    for i, j in zip(*np.nonzero(near), strict=True):
        old, new = group[i], group[j]
        group = [new if g == old else g for g in group]
    return group


def alike(first, second):
    pairs = set(zip(first, second, strict=True))
    return len(pairs) == len(set(first)) == len(set(second))


@pytest.mark.parametrize('seed', range(4))
def test_groups_are_those_of_all_pairs(seed, monkeypatch):
    monkeypatch.setattr(module, '_AT_ONCE', 7)
    draws = torch.Generator().manual_seed(seed)
    features = torch.randn(40, 3, generator=draws)
    threshold = [0.999, 0.97, 0.9, 0.7][seed]
    found = module.find(features, threshold, neighbours=50)
    assert {*module.TRIED, threshold} == {*found}
    for each, groups in found.items():
        assert alike(groups.tolist(), by_hand(features, each))
    features[5, 1] = torch.nan
    with pytest.raises(ValueError, match=r'images 0 to 6 .*not all finite'):
        module.find(features, 0.9, 3)


ODD = [b'\xff\xfe.png', b' lead.png', b'new\nline.png', b'a,b "c" $x_1$.png']


@pytest.mark.parametrize('start', '=+-@')
def test_no_name_begins_a_formula(tmp_path, start):
    """The list is read as before: paths, classes, and groups of folders."""
    root = tmp_path / 'images'
    names = [f'{start}2+3.png', f'{start}a/1.png', f'a/{start}1.png']
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (8, 8)).save(root / name)
    out = tmp_path / 'l.csv'
    paths = [str(root / name) for name in names]
    found = {0.9: np.zeros(3, np.int32)}
    module.write(str(root), paths, found, 0.9, str(out))
    with out.open() as file:
        rows = list(csv.reader(file))
    assert len(rows) == 4
    assert not [c for row in rows for c in row if c[0] in '=+-@']
    for group_by in (1, -1):
        by_folder, by_list = (
            ImageFolderDataset(str(root), ann_file=file, group_by=group_by)
            for file in ('', str(out))
        )
        pairs = [
            {
                (os.path.normpath(p), int(g))
                for p, g in zip(d.paths, d.groups, strict=True)
            }
            for d in (by_folder, by_list)
        ]
        assert pairs[0] == pairs[1] and len(pairs[0]) == 3


KINDS = ['f2', 'f4', 'f8', '>f4', '>f8', 'longdouble']


@pytest.mark.parametrize('kind', KINDS)
def test_features_of_any_float(tmp_path, kind):
    names = np.array(['a', 'b', 'c'])
    values = np.array([[1, 0], [1, 1e-3], [0, 1]]).astype(kind)
    np.savez(tmp_path / 'f.npz', features=values, paths=names)
    features, paths = module.from_file(str(tmp_path / 'f.npz'))
    assert paths == ['a', 'b', 'c']
    assert alike(module.find(features, 0.99, 2)[0.99].tolist(), [0, 0, 1])


@pytest.fixture
def folder(tmp_path):
    """Six pictures; copies of the first under odd names, two of the last."""
    root = tmp_path / 'images'
    (root / 'deep').mkdir(parents=True)
    draws = np.random.default_rng(0)
    names, vectors = [], []

    def add(name, number, size):
        path = os.path.join(os.fsencode(root), name)
        noise = np.random.default_rng(number).integers(
            0, 256, (size, size, 3), dtype=np.uint8
        )
        with open(path, 'wb') as file:
            Image.fromarray(noise).save(file, 'png')
        names.append(os.fsdecode(path))
        vector = np.eye(6, dtype=np.float32)[number]
        vectors.append(vector + 1e-3 * draws.normal(size=6))

    for i in range(6):
        add(f'deep/{i}.png'.encode(), i, 16)
    for name in ODD:
        add(name, 0, 12)
    add(b'5 large.png', 5, 40)
    file = tmp_path / 'f.npz'
    features = np.stack(vectors).astype(np.float32)
    np.savez(file, features=features, paths=np.array(names))
    return root


def test_lists_and_picture(folder, tmp_path, capsys):
    out = tmp_path / 'new' / 'found.csv'
    argv = [folder, '--features', tmp_path / 'f.npz', '--out', out]
    assert call(near_duplicates, *argv) == 0
    said = capsys.readouterr().out
    assert '11 images, 5 of which are near-duplicates' in said
    assert '0.95                  2               7  <' in said
    assert "2 image(s) are left out, such as ' lead.png'" in said
    assert 'The largest group holds 5 of 11' in said
    with open(out, encoding='utf-8', errors='surrogateescape') as file:
        rows = {r['path']: r for r in csv.DictReader(file)}
    first = {r['group'] for n, r in rows.items() if r['images'] == '5'}
    assert first == {'deep/0.png'}
    assert rows['deep/3.png'] == dict(
        path='deep/3.png', group='deep/3.png', images='1'
    )
    data = ImageFolderDataset(str(folder), ann_file=str(out), group_by='group')
    assert len(data) == 9 and all(map(os.path.exists, data.paths))
    assert len({*data.groups.tolist()}) == 6
    kept = ImageFolderDataset(
        str(folder), ann_file=str(out.with_name('found_kept.csv'))
    )
    names = {os.path.relpath(p, folder) for p in kept.paths}
    assert names == {'5 large.png', *(f'deep/{i}.png' for i in range(5))}
    picture = Image.open(out.with_suffix('.png'))
    assert picture.width > 5 * 200 and picture.height > 2 * 200
    assert sorted(os.listdir(out.parent)) == [
        'found.csv',
        'found.png',
        'found_kept.csv',
    ]


def test_features_of_a_checkpoint(folder, tmp_path, small_config):
    settings = {
        'model.backbone.in_channels': 3,
        'model.data_preprocessor.mean': [127.5] * 3,
        'model.data_preprocessor.std': [64.0] * 3,
    }
    cfg = small_config(**settings)
    torch.manual_seed(0)
    weights = tmp_path / 'w.pth'
    torch.save({'state_dict': mmmoco.get_model(cfg).state_dict()}, weights)
    for name in ODD[:3]:
        path = os.path.join(os.fsencode(folder), name)
        with open(path, 'wb') as file, open(folder / 'deep/0.png', 'rb') as a:
            file.write(a.read())
    out = tmp_path / 'g.csv'
    found = mmmoco.near_duplicates(
        str(folder),
        model=str(weights),
        config=cfg,
        threshold=0.9999999,
        size=16,
        out=str(out),
    )
    assert found.images == 11 and found.groups[0] >= 4
    assert os.path.exists(found.picture)
    assert not [n for n in os.listdir(tmp_path) if n.startswith('tmp')]


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        ([], 'either --model or --features'),
        (['--features', 'f.npz', '--threshold', 1], 'between 0 and 1'),
        (['--features', 'f.npz', '--out', 'a.txt'], 'ends in .csv'),
        (['--features', 'gone.npz'], 'gone.npz'),
        (['--features', 'empty.npz'], 'no features and paths'),
        (['--features', 'bad.npz'], 'no features and paths'),
        (['--features', 'tokens.npz'], 'one vector an image'),
        (['--features', 'none.npz'], 'one vector an image'),
        (['--features', 'single.npz'], 'needs two'),
        (['--features', 'elsewhere.npz'], 'does not lie in'),
    ],
)
def test_what_is_refused(folder, tmp_path, capsys, monkeypatch, options, said):
    monkeypatch.chdir(tmp_path)
    x = np.ones((2, 3), np.float32)
    names = np.array(['images/a.png', 'images/b.png'])
    np.savez('empty.npz', features=x)
    np.savez('bad.npz', features=np.array([object()]), paths=names)
    np.savez('tokens.npz', features=x[:, None], paths=names)
    np.savez('none.npz', features=x[:, :0], paths=names)
    np.savez('single.npz', features=x[:1], paths=names[:1])
    np.savez('elsewhere.npz', features=x, paths=np.array(['/a', '/b']))
    assert call(near_duplicates, 'images', *options) == 2
    assert said in one_line(capsys)
