"""What must hold for all inputs: hypothesis looks for one that breaks it."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mmmoco.convert import resnet, vit
from mmmoco.convert.positions import resize_positions
from mmmoco.datasets.addressed import AddressedSampler
from mmmoco.datasets.shard_stream import shuffled
from mmmoco.datasets.transforms.loading import decode_rgb
from mmmoco.datasets.transforms.pipeline import build_pipeline
from mmmoco.functional import seed_global_generators
from mmmoco.functional.exchange import shuffle_plan
from mmmoco.models.dictionaries.queue import Queue

# The same examples in every run, and few of them.
settings.register_profile(
    'repeatable',
    derandomize=True,
    max_examples=30,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile('repeatable')

sizes = st.integers(1, 40)


# The queue


@given(
    size=st.integers(1, 12),
    batches=st.lists(st.integers(1, 12), max_size=8),
)
def test_the_queue_holds_the_newest_keys_in_order(size, batches):
    """Against a list, whatever the batches, with a step's end or none."""
    queue = Queue(size=size, feat_dim=2)
    start = queue.keys.T.tolist()
    newest, number = [], 0
    for batch in batches:
        batch = min(batch, size)
        k = torch.arange(number, number + batch).float()
        k = torch.stack([k, -k], 1)
        number += batch
        queue.stage(k, torch.zeros(batch, dtype=torch.long), slot=number)
        if batch % 5 == 0:  # A skipped step leaves nothing.
            queue.discard()
            continue
        newest += k.tolist()
        queue.commit()
    place, expected = 0, list(start)
    for key in newest:
        expected[place % size] = key
        place += 1
    assert queue.keys.T.tolist() == expected
    assert int(queue.ptr) == place % size


# Shuffles


@given(
    items=st.lists(st.integers(), max_size=60),
    size=st.integers(1, 70),
    seed=st.integers(0, 2**31),
)
def test_the_shuffle_buffer_loses_and_doubles_nothing(items, size, seed):
    draws = np.random.default_rng(seed)
    found = list(shuffled(list(enumerate(items)), size, draws))
    assert sorted(found) == list(enumerate(items))
    for place, (origin, _) in enumerate(found):
        assert origin - place < size  # None comes before it was read.


@given(
    n=st.integers(1, 60),
    world=st.integers(1, 5),
    epoch=st.integers(0, 3),
    skip=st.integers(0, 70),
    seed=st.integers(0, 2**31),
)
def test_samplers_share_an_epoch_and_jump_into_it(n, world, epoch, skip, seed):
    everything = []
    for rank in range(world):
        sampler = AddressedSampler(range(n), seed=seed)
        sampler.rank, sampler.world_size = rank, world
        sampler.set_epoch(epoch)
        share = list(sampler)
        assert len(share) == len(sampler)
        sampler.skip(skip)
        assert list(sampler) == share[skip:]
        assert list(sampler) == share  # The jump counts once.
        sampler.infinite = True
        sampler.set_epoch(0)
        sampler.skip(skip)
        endless = iter(sampler)
        first = next(endless)
        assert first.epoch == skip // len(sampler)
        everything += [address.index for address in share]
    assert set(everything) == set(range(n))
    assert len(everything) - n < world


@given(batch=st.integers(1, 64), seed=st.integers(0, 99), step=sizes)
def test_the_permutation_of_the_keys_is_undone(batch, seed, step):
    """On one process; tests/dist has several."""
    plan = shuffle_plan(batch, seed, step, torch.device('cpu'))
    taken = plan.take.tolist()
    assert sorted(taken) == list(range(batch))
    again = shuffle_plan(batch, seed, step, torch.device('cpu'))
    assert again.take.tolist() == taken


# Transforms

PIPELINES = [
    [dict(type='FastRandomResizedCrop', size=7)],
    [dict(type='FastRandomResizedCrop', size=9, scale=(0.01, 1.0))],
]


@given(
    height=sizes,
    width=sizes,
    seed=st.integers(0, 2**31),
    which=st.sampled_from(range(len(PIPELINES))),
)
def test_crops_have_their_size_and_repeat(height, width, seed, which):
    draws = np.random.default_rng(seed)
    image = draws.integers(0, 256, (height, width, 3), dtype=np.uint8)
    before = image.copy()
    pipeline = build_pipeline(PIPELINES[which])
    results = []
    for _ in range(2):
        seed_global_generators(seed, 0, 0, 'view')
        results.append(pipeline({'img': image})['img'])
    size = PIPELINES[which][0]['size']
    assert results[0].shape == (size, size, 3)
    assert results[0].dtype == np.uint8
    assert np.array_equal(*results)
    assert np.array_equal(image, before)


@given(
    height=sizes,
    width=sizes,
    mode=st.sampled_from(['L', 'LA', 'P', 'RGB', 'RGBA', 'CMYK', 'I;16', '1']),
    kind=st.sampled_from(['png', 'tiff', 'bmp', 'webp', 'jpeg']),
    seed=st.integers(0, 99),
)
def test_any_image_becomes_rgb_or_an_oserror(height, width, mode, kind, seed):
    import io

    draws = np.random.default_rng(seed)
    pixels = draws.integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    try:
        if mode == 'I;16':
            deep = pixels[..., 0].astype(np.uint16) * 257
            Image.fromarray(deep).save(file, kind)
        else:
            Image.fromarray(pixels).convert(mode).save(file, kind)
    except (OSError, ValueError, KeyError):
        return  # The format cannot hold the mode.
    found = decode_rgb(file.getvalue(), 'x')
    assert found.shape == (height, width, 3) and found.dtype == np.uint8


@given(data=st.binary(max_size=200), cut=st.integers(0, 300))
def test_broken_bytes_are_an_oserror(data, cut):
    import io

    file = io.BytesIO()
    Image.new('RGB', (9, 9), 'red').save(file, 'png')
    for content in (data, file.getvalue()[: min(cut, 40)]):
        with pytest.raises(OSError, match="'x'"):
            decode_rgb(content, 'x')


# Checkpoints and converters

NAMES = st.text('abc.1', min_size=1, max_size=8)


@given(
    weights=st.dictionaries(NAMES, st.lists(st.floats(width=32), max_size=4)),
    facts=st.dictionaries(
        NAMES, st.one_of(st.integers(-(2**60), 2**60), st.text(), st.none())
    ),
)
def test_a_checkpoint_comes_back_as_it_was(tmp_path_factory, weights, facts):
    from mmmoco.engine import checkpoint_io

    path = tmp_path_factory.mktemp('a') / 'a.pth'
    state = {k: torch.tensor(v) for k, v in weights.items()}
    checkpoint_io.write({'state_dict': state, 'meta': facts}, path)
    found = checkpoint_io.read(path)
    assert found['meta'] == facts
    assert list(found['state_dict']) == list(state)
    for name, value in state.items():
        assert found['state_dict'][name].numpy().tobytes() == (
            value.numpy().tobytes()
        )


TABLES = {
    'detectron2': resnet.DETECTRON2,
    'children': resnet.CHILDREN,
    'timm': vit.TIMM,
    'mmseg': vit.MMSEG,
    'torchvision': vit.TORCHVISION,
}


@given(
    name=st.sampled_from(sorted(TABLES)),
    row=st.integers(0, 99),
    i=st.integers(0, 99),
    j=st.integers(1, 3),
    p=st.sampled_from(['weight', 'bias', 'running_mean', 'conv1.weight']),
)
def test_a_name_that_was_translated_comes_back(name, row, i, j, p):
    rows = TABLES[name].rows
    theirs, ours = (
        side.format(i=i, j=j, s=j, p=p) for side in rows[row % len(rows)]
    )
    assert TABLES[name].to_theirs(ours) == theirs
    assert TABLES[name].to_ours(theirs) == ours


@given(old=st.integers(1, 9), new=st.integers(1, 9), width=st.integers(1, 5))
def test_positions_keep_the_class_token_and_their_mean(old, new, width):
    given = torch.ones(1, 1 + old * old, width)
    given[:, 0] = 7.0
    found = resize_positions(given, new)
    assert found.shape == (1, 1 + new * new, width)
    assert torch.equal(found[:, 0], given[:, 0])
    torch.testing.assert_close(found[:, 1:], torch.ones(1, new * new, width))
