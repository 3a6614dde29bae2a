"""view_size: the crop of any config, and what depends on it, in one option."""

import pytest
from mmengine.config import Config

import mmmoco
from mmmoco.apis import load_config
from mmmoco.apis.config.option_values import places
from mmmoco.registry import bare_type, dicts_in

OWN = [n for n in mmmoco.list_configs() if not n.startswith('benchmarks/')]
VIEWS = 'train_dataloader.dataset.pipeline.1.views'


def crops(cfg):
    parts = [cfg.train_dataloader.dataset, cfg.model.data_preprocessor]
    for step in dicts_in(parts):
        if bare_type(step).endswith('RandomResizedCrop'):
            yield step['size']


def leaves(cfg):
    return {
        place: value
        for place, value in places(dict(cfg.items()))
        if not isinstance(value, dict | list)
    }


@pytest.mark.parametrize('moved', [False, True])
@pytest.mark.parametrize('name', OWN)
def test_every_config_takes_it(name, moved):
    """Nothing but sizes changes; views, network and k-NN agree."""
    options = {'device_views': True} if moved else {}
    if moved and name.startswith('demo/'):
        options = {}  # They have been on the device before.
    old = load_config(name, options)
    new = load_config(name, {'view_size': 128, **options})
    before, after = leaves(old), leaves(new)
    assert before.keys() == after.keys()
    changed = {p for p in before if before[p] != after[p]}
    assert {p.rpartition('.')[2] for p in changed} <= {'size', 'img_size'}
    assert max(crops(new)) == 128
    was = max(crops(old))
    patch = new.model.backbone.get('patch_size', 1)
    for size, before in zip(crops(new), crops(old), strict=True):
        assert size % patch == 0
        assert abs(size - before * 128 / was) <= patch / 2
    if old.model.backbone.get('img_size') == was:
        assert new.model.backbone.img_size == 128
    for split in ('bank', 'query') if 'knn' in new else ():
        shown = [
            step
            for step in new.knn[split].dataset.get('pipeline', [])
            if 'size' in step
        ]
        assert not shown or shown[-1].size == 128


def test_other_options_come_after_it():
    cfg = load_config(
        'mocov2_r50_8xb32',
        {f'{VIEWS}.view_q.0.size': 64, 'view_size': 96},
    )
    assert list(crops(cfg)) == [64, 96]
    assert [s.size for s in cfg.knn.bank.dataset.pipeline[2:4]] == [110, 96]


def test_a_file_may_say_it_and_what_is_written_says_sizes(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(
        "_base_ = 'mmmoco::mocov3_vit-s_8xb128_300e.py'\nview_size = 96\n"
    )
    cfg = load_config(str(path))
    assert set(crops(cfg)) == {96} and 'view_size' not in cfg
    cfg.dump(tmp_path / 'written.py')
    again = load_config(str(tmp_path / 'written.py'))
    assert leaves(again) == leaves(cfg)


def test_height_and_width():
    cfg = load_config('mocov3_vit-s_8xb128_300e', {'view_size': (96, 160)})
    assert set(crops(cfg)) == {(96, 160)}
    assert cfg.model.backbone.img_size == (96, 160)


@pytest.mark.parametrize(
    ('name', 'size', 'said'),
    [
        ('mocov3_vit-s_8xb128_300e', 100, 'take 96'),
        ('mocov3_vit-s_8xb128_300e', (96, 90), 'take 96'),
        ('mocov2_r50_8xb32', 0, 'whole number'),
        ('mocov2_r50_8xb32', 'large', 'whole number'),
        ('mocov2_r50_8xb32', 0.5, 'whole number'),
        ('mocov2_r50_8xb32', (1, 2, 3), 'whole number'),
        ('mocov2_r50_8xb32', True, 'whole number'),
    ],
)
def test_sizes_that_are_none(name, size, said):
    with pytest.raises(ValueError, match=said) as found:
        load_config(name, {'view_size': size})
    assert 'view_size=' in str(found.value)


def test_a_config_without_crops():
    with pytest.raises(ValueError, match='no crop of a known kind'):
        load_config(Config(dict(model=dict(type='MoCoV2'), view_size=96)))
