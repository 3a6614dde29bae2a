import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mmmoco.datasets import AddressedSampler, DigitScenes, SampleAddress
from mmmoco.datasets import digit_scenes as module
from mmmoco.datasets.digit_painter import source_digits, source_split
from mmmoco.functional import nearest, vote
from mmmoco.registry import DATASETS


@pytest.fixture(scope='module')
def train():
    return DigitScenes('train')


@pytest.fixture(scope='module')
def val():
    return DigitScenes('val')


@pytest.fixture(scope='module')
def crowded():
    return DigitScenes(size=48, digits_per_image=(2, 4), num_scenes=40)


def test_no_digit_is_in_both_splits(train, val):
    seen, unseen = set(train.source_ids.flat), set(val.source_ids.flat)
    assert not seen & unseen
    assert len(seen) == 1437 and len(unseen) == 360
    assert seen | unseen == set(range(1797))
    assert len(train) == 3 * 1437 and len(val) == 3 * 360


def test_further_digits_come_from_the_same_split(crowded):
    assert set(crowded.source_ids.flat) - {-1} <= set(source_split('train'))
    for index in range(len(crowded)):
        ids = [digit.source_id for digit in crowded.annotations(index)]
        row = crowded.source_ids[index]
        assert ids == row[: len(ids)].tolist()
        assert (row[len(ids) :] == -1).all()


def test_the_split_is_the_same_for_every_seed(val):
    other = DigitScenes('val', seed=5, scenes_per_digit=1)
    np.testing.assert_array_equal(other.source_ids, val.source_ids[:360])
    assert not torch.equal(other.images, val.images[:360])


def test_the_split_keeps_the_share_of_every_class():
    labels = source_digits()[1]
    shares = np.bincount(labels[source_split('train')]) / np.bincount(labels)
    assert (abs(shares - 0.8) < 0.01).all()


def test_a_scene_depends_on_seed_split_and_index_alone(train, val):
    few = DigitScenes('train', num_scenes=5)
    assert torch.equal(few.images, train.images[:5])
    assert not torch.equal(few.images, val.images[:5])
    image, digits = train.painter.draw(4)
    assert torch.equal(torch.from_numpy(image), train.images[4])
    assert digits[0].label == train.labels[4]


def test_scenes_of_one_digit_differ(train):
    assert train.source_ids[0] == train.source_ids[1437]
    assert not torch.equal(train.images[0], train.images[1437])


@pytest.mark.parametrize('channels', [1, 3])
def test_samples_have_the_common_form(channels):
    dataset = DigitScenes(num_scenes=4, channels=channels)
    sample = dataset[2]
    image = sample['inputs']['image']
    assert image.shape == (channels, 16, 16) and image.dtype == torch.uint8
    assert all(torch.equal(c, dataset.images[2]) for c in image)
    assert sample['ids'] == 2 and sample['labels'] == dataset.labels[2]
    assert type(sample['ids']) is int and type(sample['labels']) is int
    assert dataset.metainfo['classes'][sample['labels']] == str(
        source_digits()[1][dataset.source_ids[2, 0]]
    )


def test_changing_a_sample_leaves_the_data_set_alone():
    dataset = DigitScenes(num_scenes=2, channels=1)
    before = dataset.images.clone()
    dataset[0]['inputs']['image'].zero_()
    assert torch.equal(dataset.images, before)


def test_indices_and_addresses():
    dataset = DigitScenes(num_scenes=3)
    address = SampleAddress(index=1, epoch=4, seed=2)
    assert dataset[address]['ids'] == 1
    assert dataset[np.int64(1)]['ids'] == 1
    assert dataset[-1]['ids'] == 2
    with pytest.raises(IndexError):
        dataset[3]


def test_one_channel_pipeline_and_batches_agree():
    plain = DigitScenes(num_scenes=6, channels=1)
    piped = DigitScenes(
        num_scenes=6, channels=1, pipeline=[dict(type='mmmoco.PackImage')]
    )
    batches = [
        list(
            DataLoader(
                dataset, batch_size=4, sampler=AddressedSampler(dataset)
            )
        )
        for dataset in (plain, piped)
    ]
    for a, b in zip(*batches, strict=True):
        assert torch.equal(a['inputs']['image'], b['inputs']['image'])
        assert torch.equal(a['ids'], b['ids'])
        assert torch.equal(a['labels'], b['labels'])
        assert a['ids'].dtype == a['labels'].dtype == torch.int64


def test_a_pipeline_receives_rgb_by_default():
    dataset = DigitScenes(
        num_scenes=1, pipeline=[dict(type='mmmoco.PackImage')]
    )
    assert dataset[0]['inputs']['image'].shape == (3, 16, 16)


def test_ground_truth_of_several_digits(crowded):
    labels = source_digits()[1]
    counts = set()
    for index in range(len(crowded)):
        digits = crowded.annotations(index)
        counts.add(len(digits))
        assert crowded.labels[index] == digits[0].label
        masks = np.stack([digit.mask for digit in digits])
        assert masks.sum(0).max() == 1
        for digit in digits:
            assert digit.label == labels[digit.source_id]
            rows, columns = digit.mask.nonzero()
            x, y, width, height = digit.bbox
            assert (x, y) == (columns.min(), rows.min())
            assert x + width == columns.max() + 1
            assert y + height == rows.max() + 1
            assert digit.area == len(rows) > 0
    assert counts <= {2, 3, 4} and len(counts) > 1


def test_the_digits_are_where_the_masks_say(crowded):
    for index in range(len(crowded)):
        image = crowded.images[index].numpy().astype(float)
        digits = crowded.annotations(index)
        canvas = np.median(image[~np.any([d.mask for d in digits], axis=0)])
        for digit in digits:
            assert image[digit.mask].mean() > canvas + 30


def test_digits_hardly_overlap():
    dataset = DigitScenes(
        size=48, digits_per_image=6, num_scenes=30, max_overlap=0
    )
    for index in range(len(dataset)):
        taken = np.zeros((48, 48), int)
        for digit in dataset.annotations(index):
            x, y, width, height = digit.bbox
            taken[y : y + height, x : x + width] += 1
        assert taken.max() == 1


def test_raw_pixels_do_not_solve_the_task(train, val):
    bank, queries = (d.images.flatten(1).float() for d in (train, val))
    found = nearest(bank, queries, 20)
    votes = vote(found, torch.tensor(train.labels), 10)
    top1 = (votes.argmax(1) == torch.tensor(val.labels)).float().mean()
    assert 0.55 < top1 < 0.7


def test_the_cache_is_read_and_keyed_by_the_arguments(tmp_path, monkeypatch):
    kwargs = dict(num_scenes=4, cache_dir=tmp_path / 'data')
    drawn = DigitScenes(**kwargs)
    assert [f.suffix for f in (tmp_path / 'data').iterdir()] == ['.npz']
    DigitScenes(seed=1, **kwargs)
    assert len(list((tmp_path / 'data').iterdir())) == 2

    def refuse(*_):
        raise AssertionError('drawn again')

    monkeypatch.setattr(module, '_draw', refuse)
    cached = DigitScenes(**kwargs)
    assert torch.equal(cached.images, drawn.images)
    assert cached.labels == drawn.labels
    np.testing.assert_array_equal(cached.source_ids, drawn.source_ids)


@pytest.mark.parametrize('keep', [0, 20, 500])
def test_a_damaged_cache_is_drawn_again(tmp_path, keep):
    drawn = DigitScenes(num_scenes=4, cache_dir=tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:keep])
    again = DigitScenes(num_scenes=4, cache_dir=tmp_path)
    assert torch.equal(again.images, drawn.images)
    assert len(file.read_bytes()) == len(whole)


def test_it_is_registered_and_pickled():
    dataset = DATASETS.build(
        dict(type='DigitScenes', num_scenes=2, scale=[0.6, 0.8])
    )
    assert dataset.painter.scale == (0.6, 0.8)
    again = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(again.images, dataset.images)


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(split='test'), "split='test'.*'train' or 'val'"),
        (dict(size=8), 'size=8.*at least 12'),
        (dict(size=16, digits_per_image=2), 'size=16.*at least 24'),
        (dict(digits_per_image=0), 'digits_per_image'),
        (dict(digits_per_image=(3, 2)), 'digits_per_image'),
        (dict(scale=(0.9, 0.5)), 'scale'),
        (dict(scale=(0.5, 1.5)), 'scale'),
        (dict(scale=(0.5,)), 'scale'),
        (dict(noise=(5, -5)), 'noise'),
        (dict(background=(0, 300)), 'background'),
        (dict(max_slant=90), 'max_slant=90'),
        (dict(max_overlap=1.0), 'max_overlap'),
        (dict(channels=4), 'channels=4.*1 .*or 3'),
        (dict(num_scenes=0), 'num_scenes=0'),
        (dict(scenes_per_digit=0), 'num_scenes=0'),
    ],
)
def test_wrong_arguments_name_value_and_mend(kwargs, message):
    with pytest.raises(ValueError, match=message):
        DigitScenes(**kwargs)
