"""One switch moves what follows the crops from the workers to the device."""

import pytest
from mmengine.config import Config

from mmmoco.apis import list_configs, load_config
from mmmoco.apis.config.device_views import COUNTERPARTS, move_views
from mmmoco.datasets.transforms.pipeline import build_pipeline
from mmmoco.registry import BATCH_AUGMENTS

ON = {'device_views': True}


def views_of(cfg):
    return cfg.train_dataloader.dataset.pipeline[-1]['views']


@pytest.mark.parametrize('name', list_configs(r'^(moco|distill)(?!.*band)'))
def test_every_config_can_switch(name):
    here, there = load_config(name), load_config(name, ON)
    assert 'views' not in here.model.data_preprocessor
    moved = there.model.data_preprocessor['views']
    assert set(moved) == set(views_of(here))
    for view, ops in views_of(here).items():
        kept = views_of(there)[view]
        batch_ops = moved[view]['ops']
        assert moved[view]['source'] == view
        assert len(kept) == 1 and len(kept) + len(batch_ops) == len(ops)
        for op, other in zip(ops[1:], batch_ops):
            assert other['type'] == f'mmmoco.{COUNTERPARTS[op["type"]]}'
            arguments = {k: v for k, v in op.items() if k != 'type'}
            assert arguments == {k: v for k, v in other.items() if k != 'type'}
            BATCH_AUGMENTS.build(dict(other))
        build_pipeline([dict(op) for op in kept])


def test_a_moved_config_moves_no_further():
    cfg = load_config('mocov2_r50_8xb32', ON)
    again = Config.fromstring(cfg.dump(), '.py')
    move_views(again)
    assert again.to_dict() == cfg.to_dict()


def test_what_has_no_counterpart_stays_in_the_worker():
    cfg = load_config('mocov2_r50_8xb32')
    foreign = dict(type='mmpretrain.RandomErasing')
    views = views_of(cfg)
    views['view_q'] = [*views['view_q'][:2], foreign, *views['view_q'][2:]]
    views['view_k'] = [*views['view_k'], foreign]
    cfg.device_views = True
    move_views(cfg)
    kept = {name: len(ops) for name, ops in views_of(cfg).items()}
    assert kept == {'view_q': 3, 'view_k': 6}
    assert list(cfg.model.data_preprocessor['views']) == ['view_q']


def test_a_config_without_views_is_refused():
    with pytest.raises(ValueError, match='device_views=True'):
        load_config('demo/mocov2_digits', ON)
