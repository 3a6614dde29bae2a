import pytest
import torch

from mmmoco.models.preprocessors import (
    BatchBrightnessContrast,
    BatchRandomResizedCrop,
    ViewAugmentor,
)

CROP = dict(type='BatchRandomResizedCrop', size=8, scale=(0.4, 1.0))
LIGHT = dict(type='BatchBrightnessContrast', brightness=0.4, contrast=0.4)


def augmentor():
    view = dict(source='image', ops=[CROP, LIGHT])
    return ViewAugmentor(
        mean=(100,), std=(50,), views=dict(view_q=view, view_k=view)
    )


def batch(n=6):
    draws = torch.Generator().manual_seed(0)
    image = torch.randint(
        0, 256, (n, 1, 12, 12), dtype=torch.uint8, generator=draws
    )
    return {'inputs': {'image': image}, 'ids': torch.arange(n), 'labels': 1}


def test_views_depend_on_the_address_alone():
    made = augmentor()
    made.set_address(seed=1, step=5, rank=0)
    first = made(batch(), True)['inputs']
    made.set_address(seed=1, step=6, rank=0)
    other = made(batch(), True)['inputs']
    fresh = augmentor()
    fresh.set_address(seed=1, step=5, rank=0)
    again = fresh(batch(), True)['inputs']
    assert set(first) == {'view_q', 'view_k'}
    for name in first:
        assert torch.equal(first[name], again[name])
        assert not torch.equal(first[name], other[name])
    assert not torch.equal(first['view_q'], first['view_k'])
    fresh.set_address(seed=1, step=5, rank=1)
    assert not torch.equal(
        fresh(batch(), True)['inputs']['view_q'], first['view_q']
    )


def test_evaluation_only_normalises():
    out = augmentor()(batch(), False)
    expected = (batch()['inputs']['image'].float() - 100) / 50
    assert torch.equal(out['inputs']['image'], expected)
    assert out['labels'] == 1 and torch.equal(out['ids'], torch.arange(6))


def test_ready_views_are_only_normalised():
    ready = ViewAugmentor(mean=(0,), std=(255,))
    view = batch()['inputs']['image']
    out = ready({'inputs': {'view_q': view}, 'ids': torch.arange(6)}, True)
    assert torch.equal(out['inputs']['view_q'], view.float() / 255)


def test_full_crop_is_the_resized_image():
    crop = BatchRandomResizedCrop(size=12, scale=(1.0, 1.0), ratio=(1.0, 1.0))
    x = batch()['inputs']['image'].float()
    torch.testing.assert_close(
        crop(x, torch.Generator()), x, rtol=0, atol=1e-3
    )


def test_crops_have_the_drawn_area_and_stay_inside():
    # An image whose grey level is its own x coordinate tells what was cut.
    side = 64
    ramp = torch.arange(side).float().view(1, 1, 1, side)
    x = ramp.expand(500, 1, side, side)
    crop = BatchRandomResizedCrop(16, scale=(0.25, 0.5), ratio=(1.0, 1.0))
    out = crop(x, torch.Generator().manual_seed(0))
    assert out.min() >= 0 and out.max() <= side - 1
    step = (out[:, 0, 0, -1] - out[:, 0, 0, 0]) / 15 * 16 / side
    area = step**2
    assert area.min() >= 0.25 - 0.01 and area.max() <= 0.5 + 0.01
    assert abs(area.mean() - 0.375) < 0.01
    centre = out[:, 0, 0].mean(1) / side
    assert abs(centre.mean() - 0.5) < 0.02


def test_flip_mirrors_about_half_of_the_samples():
    crop = BatchRandomResizedCrop(8, (1.0, 1.0), (1.0, 1.0), flip=0.5)
    ramp = torch.arange(8).float().view(1, 1, 1, 8).expand(400, 1, 8, 8)
    out = crop(ramp, torch.Generator().manual_seed(0))
    flipped = out[:, 0, 0, 0] > out[:, 0, 0, -1]
    assert 0.42 < flipped.float().mean() < 0.58


def test_brightness_and_contrast_by_hand():
    x = torch.tensor([100.0, 200.0]).view(1, 1, 1, 2)
    draws = torch.Generator().manual_seed(3)
    out = BatchBrightnessContrast(0.4, 0.4)(x, draws)
    draws = torch.Generator().manual_seed(3)
    b = 0.6 + 0.8 * torch.rand(1, generator=draws).item()
    c = 0.6 + 0.8 * torch.rand(1, generator=draws).item()
    bright = (x * b).clamp(0, 255)
    mean = bright.mean()
    expected = (mean + c * (bright - mean)).clamp(0, 255)
    torch.testing.assert_close(out, expected)
    same = BatchBrightnessContrast(0.4, 0.4, prob=0.0)
    torch.testing.assert_close(same(x, torch.Generator()), x)


def test_shuffled_views_travel_before_the_operations():
    """On one process the exchange is a permutation of the batch."""
    made, plain = augmentor(), augmentor()
    for each in (made, plain):
        each.set_address(seed=1, step=5, rank=0)
    made.shuffled_views = ('view_k',)
    out = made(batch(), True)
    order = out['shuffle_plan'].take
    assert sorted(order.tolist()) == list(range(6)) != order.tolist()
    moved = batch()
    moved['inputs']['image'] = moved['inputs']['image'][order]
    expected = plain(moved, True)['inputs']['view_k']
    assert torch.equal(out['inputs']['view_k'], expected)
    query = plain(batch(), True)
    assert torch.equal(out['inputs']['view_q'], query['inputs']['view_q'])
    assert 'shuffle_plan' not in {**query, **made(batch(), False)}


def test_mistakes_are_named():
    with pytest.raises(ValueError, match='3 channels.*1 values'):
        augmentor().normalise(torch.zeros(2, 3, 4, 4))
    with pytest.raises(KeyError, match='image'):
        augmentor()({'inputs': {'img': torch.zeros(1)}, 'ids': 0}, True)
    with pytest.raises(ValueError, match='std'):
        ViewAugmentor(mean=(1,), std=(0,))
    with pytest.raises(ValueError, match='scale'):
        BatchRandomResizedCrop(8, scale=(0.0, 1.0))


def test_a_batch_is_cut_to_rectangles():
    crop = BatchRandomResizedCrop((4, 12), (1.0, 1.0), (1.0, 1.0))
    x = torch.arange(8.0).view(1, 1, 8, 1).expand(2, 1, 8, 8)
    assert crop.shape_after(x.shape) == (2, 1, 4, 12)
    drawn = crop.draw(2, torch.Generator())
    made = crop.act(x, **crop.prepare(drawn, x.shape))
    torch.testing.assert_close(
        made[0, 0, :, 5], torch.tensor([0.5, 2.5, 4.5, 6.5])
    )
    with pytest.raises(ValueError, match='height, width'):
        BatchRandomResizedCrop((4, 4, 4))
