"""What is known of bands stands in one place, and all else follows it."""

import numpy as np
import pytest
import torch

from mmmoco.apis import load_config
from mmmoco.apis.config.image_steps import steps_of
from mmmoco.apis.preflight import sample_batch
from mmmoco.datasets.band_presets import PRESETS
from mmmoco.datasets.transforms.pipeline import build_pipeline
from mmmoco.registry import MODELS, bare_type, dicts_in, in_scope_of

from .names import OWN

NAME = 'mocov2_r50_1xb64_bands'
BANDS = [n for n in OWN if n.endswith('_bands')]


def step(cfg, name):
    steps = dicts_in(cfg.train_dataloader)
    return next(s for s in steps if bare_type(s) == name)


@pytest.mark.parametrize('name', BANDS)
@pytest.mark.parametrize('preset', PRESETS)
def test_every_preset_goes_everywhere(name, preset):
    cfg = load_config(name, {'multiband.preset': preset})
    known = PRESETS[preset]
    count = len(known['bands'].split())
    assert cfg.model.backbone.in_channels == count
    seen = cfg.model.data_preprocessor
    assert len(seen.mean) == len(seen.std) == count
    assert step(cfg, 'LoadBands').get('nodata') == known.get('nodata')
    scale = step(cfg, 'ScaleBands')
    if 'mean' in known:
        raw = [
            low + m / 255 * (high - low)
            for low, high, m in zip(scale.low, scale.high, seen.mean)
        ]
        np.testing.assert_allclose(raw, known['mean'], rtol=1e-3, atol=0.1)
    else:
        assert scale.low == list(known['low'])


def test_values_of_ones_own_take_the_place_of_the_preset(tmp_path):
    """From raw files to what the network sees: mean 0, spread 1."""
    draws = np.random.default_rng(0)
    mean, std = np.array([500.0, -3.0]), np.array([90.0, 0.5])
    for i in range(4):
        raw = mean + std * draws.normal(size=(32, 32, 2))
        raw = np.concatenate([np.zeros((32, 32, 1)), raw], 2)
        raw[:9, :9] = -1e4
        np.save(tmp_path / f'{i}.npy', raw.astype(np.float32))
    options = {
        'multiband.mean': mean.tolist(),
        'multiband.std': std.tolist(),
        'multiband.bands': [1, 2],
        'multiband.nodata': -1e4,
        'train_dataloader.dataset.data_root': str(tmp_path),
        'train_dataloader.dataset.exclude': ('*_mask.npy',),
        'view_size': 32,
    }
    cfg = load_config(NAME, options)
    assert sample_batch.draw(cfg)['inputs']['view_q'].shape == (1, 2, 32, 32)
    again = load_config(cfg)  # As a resumed run and a checkpoint have it.
    assert again.model.to_dict() == cfg.model.to_dict()
    see = build_pipeline(steps_of(cfg))
    seen = see(dict(img_path=str(tmp_path / '0.npy'), sample_idx=0))
    image = seen['inputs']['image'][None]
    with in_scope_of(cfg):
        eyes = MODELS.build(cfg.model.data_preprocessor)
    x = eyes(dict(inputs=dict(image=image)))['inputs']['image']
    x = x[..., x.shape[-2] // 2 :, :]
    torch.testing.assert_close(
        x.std((0, 2, 3)), torch.ones(2), atol=0.15, rtol=0
    )
    assert x.mean((0, 2, 3)).abs().max() < 0.2


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'multiband.preset': 'sentinel3'}, 'there are sentinel2-l1c'),
        ({'multiband.preset': None}, 'mean and std.*or a preset'),
        ({'multiband.mean': [1.0]}, 'mean and std.*or a preset'),
        (
            {'multiband.mean': [1.0, 2.0], 'multiband.std': [1.0]},
            '2 of mean, 1 of std',
        ),
        ({'multiband.bands': [0, 1]}, '13 of mean.*2 of bands'),
        ({'multiband.means': [1.0]}, 'multiband.means'),
    ],
)
def test_what_is_wrong_is_told(options, words):
    with pytest.raises((KeyError, ValueError), match=words):
        load_config(NAME, options)


@pytest.mark.parametrize('name', OWN)
def test_preflight_has_images_for_every_config(name, tmp_path, monkeypatch):
    """Without its data: as many channels, within its range."""
    monkeypatch.chdir(tmp_path)
    cfg = load_config(name)
    views = sample_batch.draw(cfg)['inputs']
    channels = len(cfg.model.data_preprocessor.mean)
    for view in views.values():
        assert view.shape[1] == channels and view.float().std() > 1
