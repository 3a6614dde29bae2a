"""What several test files share: small runs of the real runner."""

import copy

import pytest
import torch
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer

SMALL = {
    'train_dataloader.batch_size': 16,
    'train_dataloader.dataset.num_scenes': 64,
    'model.dictionary.size': 64,
    'model.backbone.channels': (4, 8),
    'model.backbone.strides': (1, 2),
    'model.backbone.out_indices': (1,),
    'model.neck.in_channels': 8,
    'model.neck.hid_channels': 8,
    'default_hooks.logger.interval': 1,
    'default_hooks.checkpoint.interval': 1,
    'train_cfg.max_epochs': 1,
    'schedule': 'keep',  # That of the demo, cut off.
    'knn.bank.dataset.num_scenes': 40,
    'knn.query.dataset.num_scenes': 20,
}


def pytest_runtest_setup(item):
    if item.get_closest_marker('gpu') and not torch.cuda.is_available():
        pytest.skip('no GPU')


@pytest.fixture(autouse=True)
def forget_global_instances():
    """mmengine keeps loggers and scopes by name; no test sees another's."""
    yield
    for manager in (MMLogger, MessageHub, Visualizer, DefaultScope):
        manager._instance_dict.clear()


@pytest.fixture
def small_config(tmp_path):
    """Return a function that makes the demo's config tiny and applies more.

    Without k-NN, unless ``knn=True``.
    """
    from mmmoco.apis import load_config

    def make(knn=False, **options):
        cfg = load_config('demo/mocov2_digits', copy.deepcopy(SMALL))
        cfg.work_dir = str(tmp_path / 'run')
        cfg.overwrite = True  # Tests train there again and again.
        kept = [h for h in cfg.custom_hooks if h.type != 'KNNHook']
        if knn:
            kept.append(dict(type='KNNHook', interval=1))
        cfg.custom_hooks = kept
        cfg.merge_from_dict(options)
        return cfg

    return make


@pytest.fixture
def runner_of():
    """Return a function that builds a runner with a name of its own."""
    from mmmoco.apis.training.runner import build_runner

    counter = iter(range(1000))

    def build(cfg):
        import time

        cfg.experiment_name = f'test_{time.time_ns()}_{next(counter)}'
        return build_runner(cfg)

    return build
