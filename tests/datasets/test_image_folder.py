import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, default_collate

from mmmoco.datasets import (
    AddressedSampler,
    ImageFolderDataset,
    SampleAddress,
)

CROP = dict(type='FastRandomResizedCrop', size=8)
COLOUR = dict(type='FastColorJitter', brightness=0.4, hue=0.1)
BLUR = dict(type='FastGaussianBlur', sigma=(0.1, 2.0), prob=0.5)
VIEWS = [
    dict(type='LoadRGB'),
    dict(
        type='Views',
        views=dict(view_q=[CROP, COLOUR, BLUR], view_k=[CROP, COLOUR, BLUR]),
    ),
]


def write(path, colour=(10, 200, 30), size=(20, 16), mode='RGB'):
    path.parent.mkdir(parents=True, exist_ok=True)
    draws = np.random.default_rng(abs(hash(path.name)) % 1000)
    noise = draws.integers(0, 60, (size[1], size[0], 3))
    pixels = np.clip(noise + np.array(colour), 0, 255).astype(np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


@pytest.fixture
def imagenet(tmp_path):
    for name in ('train/cat/a.jpg', 'train/cat/b.JPEG', 'train/dog/c.png'):
        write(tmp_path / name)
    write(tmp_path / 'val/cat/d.jpg')
    (tmp_path / 'train/dog/notes.txt').write_text('no image')
    return tmp_path


def test_imagenet_layout_with_classes(imagenet):
    data = ImageFolderDataset(str(imagenet), 'train', with_labels=True)
    assert [p.split('/')[-1] for p in data.paths] == [
        'a.jpg',
        'b.JPEG',
        'c.png',
    ]
    assert data.labels == [0, 0, 1]
    assert data.metainfo['classes'] == ('cat', 'dog')
    assert data.sample(2)['gt_label'] == 1


def test_any_folder_flat_or_nested_without_labels(tmp_path):
    for name in ('x.jpg', 'deep/er/y z é.png', 'deep/w.bmp'):
        write(tmp_path / name)
    data = ImageFolderDataset(str(tmp_path), 'train', prefix_optional=True)
    assert len(data) == 3 and data.labels is None
    out = DataLoader(ImageFolderDataset(str(tmp_path), pipeline=VIEWS))
    assert {tuple(b['inputs']['view_q'].shape) for b in out} == {(1, 3, 8, 8)}


def test_lists_of_paths(imagenet):
    (imagenet / 'some.txt').write_text(
        f'cat/a.jpg\n\n{imagenet}/train/dog/c.png\n'
    )
    data = ImageFolderDataset(str(imagenet), 'train', ann_file='some.txt')
    assert len(data) == 2 and data[1]['img_path'].endswith('c.png')
    (imagenet / 'labels.txt').write_text('cat/a.jpg 3\ndog/c.png 0\n')
    data = ImageFolderDataset(
        str(imagenet), 'train', ann_file='labels.txt', with_labels=True
    )
    assert data.labels == [3, 0]


def test_missing_or_empty_folder_names_path_and_search(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'nowhere.*data_root=') as e:
        ImageFolderDataset(str(tmp_path / 'nowhere'))
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'empty/readme.md').write_text('')
    with pytest.raises(FileNotFoundError, match=r'empty.*\.jpg') as e:
        ImageFolderDataset(str(tmp_path / 'empty'))
    assert 'any depth' in str(e.value)


def test_bad_lists_name_line_and_mend(imagenet):
    def load(text, **kwargs):
        (imagenet / 'list.txt').write_text(text)
        ImageFolderDataset(
            str(imagenet), 'train', ann_file='list.txt', **kwargs
        )

    with pytest.raises(FileNotFoundError, match='gone.jpg'):
        load('gone.jpg\n')
    with pytest.raises(FileNotFoundError, match='lists no image'):
        load('\n')
    with pytest.raises(ValueError, match='line 2.*"path label"'):
        load('cat/a.jpg 1\ncat/b.JPEG\n', with_labels=True)
    with pytest.raises(FileNotFoundError, match='other.txt'):
        ImageFolderDataset(str(imagenet), ann_file='other.txt')


def test_labels_need_class_folders(tmp_path):
    write(tmp_path / 'a.jpg')
    with pytest.raises(ValueError, match='a.jpg.*no class folder'):
        ImageFolderDataset(str(tmp_path), with_labels=True)


def test_an_undecodable_file_is_named(tmp_path):
    (tmp_path / 'broken.jpg').write_bytes(b'\xff\xd8 not a jpeg')
    data = ImageFolderDataset(str(tmp_path), pipeline=VIEWS)
    with pytest.raises(OSError, match='broken.jpg'):
        data[0]


def views(data, epoch, index=0, seed=3):
    return data[SampleAddress(index, epoch, seed)]['inputs']


def test_a_sample_depends_on_its_address_alone(imagenet):
    data = ImageFolderDataset(str(imagenet), 'train', pipeline=VIEWS)
    first = views(data, epoch=1)
    views(data, epoch=9, index=2)
    again = views(data, epoch=1)
    other = views(data, epoch=2)
    for name in first:
        assert first[name].dtype == torch.uint8
        assert torch.equal(first[name], again[name])
        assert not torch.equal(first[name], other[name])
    assert not torch.equal(first['view_q'], first['view_k'])


def test_workers_do_not_change_the_samples(imagenet):
    data = ImageFolderDataset(str(imagenet), 'train', pipeline=VIEWS)

    def load(workers):
        sampler = AddressedSampler(data, seed=5)
        sampler.set_epoch(2)
        return list(
            DataLoader(
                data,
                batch_size=2,
                sampler=sampler,
                num_workers=workers,
                collate_fn=default_collate,
            )
        )

    for a, b in zip(load(0), load(2), strict=True):
        assert torch.equal(a['ids'], b['ids'])
        assert torch.equal(a['inputs']['view_k'], b['inputs']['view_k'])


def test_sampler_orders_by_seed_and_epoch():
    def order(seed, epoch, **kwargs):
        sampler = AddressedSampler(range(10), seed=seed, **kwargs)
        sampler.set_epoch(epoch)
        return [address.index for address in sampler]

    assert sorted(order(0, 0)) == list(range(10))
    assert order(0, 1) == order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)
    assert order(0, 5, shuffle=False) == list(range(10))


def test_sampler_shares_without_gap_over_processes():
    shares = []
    for rank in range(3):
        sampler = AddressedSampler(range(10), seed=1)
        sampler.rank, sampler.world_size = rank, 3
        shares.append([address.index for address in sampler])
        assert len(shares[-1]) == len(sampler) == 4
    assert set(sum(shares, [])) == set(range(10))


def test_infinite_sampler_goes_on_with_the_next_epoch():
    sampler = AddressedSampler(range(4), seed=1, infinite=True)
    stream = iter(sampler)
    got = [next(stream) for _ in range(9)]
    assert [address.epoch for address in got] == [0] * 4 + [1] * 4 + [2]
    sampler = AddressedSampler(range(4), seed=1)
    sampler.set_epoch(1)
    assert [a.index for a in got[4:8]] == [a.index for a in sampler]
