"""SIGTERM within a fine-tuning, and the same command again: bit-equal.

Whatever the library, the loop, the sampler and the workers are.
"""

import json
import os
import signal
from copy import deepcopy

import pytest
import torch

from mmmoco.apis import load_config
from mmmoco.apis.data.digit_export import export_scenes
from mmmoco.apis.training.jobs import train
from mmmoco.datasets.digit_scenes import DigitScenes
from mmmoco.engine import checkpoint_io
from mmmoco.engine.hooks.preemption_hook import PreemptionHook
from mmmoco.engine.preemption import MARKER

pytestmark = [pytest.mark.downstream, pytest.mark.slow]

BENCHMARKS = 'benchmarks'
DETECTOR = f'{BENCHMARKS}/mmdetection/demo_digits/retinanet_1xb16_500i'
SEGMENTOR = f'{BENCHMARKS}/mmsegmentation/demo_digits/fcn_1xb16_500i'
IMAGES = 12
DRAWS = {
    DETECTOR: [
        dict(type='RandomFlip', prob=0.5),
        dict(type='RandomChoiceResize', scales=[(40, 40), (56, 56)]),
    ],
    SEGMENTOR: [
        dict(type='RandomResize', scale=(48, 48), ratio_range=(0.8, 1.5)),
        dict(type='RandomCrop', crop_size=(40, 40)),
    ],
}
EPOCHS = dict(
    train_cfg=dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=2),
    default_hooks=dict(checkpoint=dict(by_epoch=True, interval=1)),
    log_processor=dict(by_epoch=True),
)
SHUFFLED = dict(sampler=dict(type='DefaultSampler', shuffle=True))
BUCKETS = dict(batch_sampler=dict(type='AspectRatioBatchSampler'))
WORKERS = dict(num_workers=2, persistent_workers=True)


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp('data') / 'scenes'
    sizes = {'train': IMAGES, 'val': 2}
    export_scenes(
        root,
        {
            split: DigitScenes(
                split=split, size=48, digits_per_image=(1, 3), num_scenes=n
            )
            for split, n in sizes.items()
        },
    )
    # Some are upright to a sampler that groups by the sides.
    path = root / 'annotations' / 'instances_train.json'
    content = json.loads(path.read_text())
    for image in content['images'][::3]:
        image['width'] -= 1
    path.write_text(json.dumps(content))
    return root


def config(name, scenes, loader, settings):
    cfg = load_config(name)
    data = cfg.train_dataloader
    data.dataset.data_root = str(scenes)
    *load, pack = data.dataset.pipeline
    data.dataset.pipeline = [*load, *DRAWS[name], pack]
    for part in ('dataloader', 'evaluator', 'cfg'):
        cfg[f'val_{part}'] = cfg[f'test_{part}'] = None
    changes = dict(train_dataloader=dict(batch_size=2, **loader), **settings)
    cfg.merge_from_dict(deepcopy(changes))
    cfg.param_scheduler = [dict(type='LinearLR', end=9, by_epoch=False)]
    cfg.model.backbone.init_cfg = None
    cfg.custom_hooks = None  # What a config of another library has.
    cfg.train_cfg.pop('val_interval', None)
    if 'max_iters' in cfg.train_cfg:
        cfg.train_cfg.update(max_iters=9)
    return cfg


def stopped_at(step, monkeypatch):
    seen = []

    def step_done(self):
        seen.append(0)
        if len(seen) == step:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(PreemptionHook, 'step_done', step_done)


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return all(map(same, one, other))
    return one == other


@pytest.mark.parametrize(
    'name, loader, settings',
    [
        (DETECTOR, {}, {}),
        (DETECTOR, SHUFFLED | BUCKETS | WORKERS, {}),
        (DETECTOR, SHUFFLED | BUCKETS, EPOCHS),
        (SEGMENTOR, SHUFFLED | WORKERS, EPOCHS),
    ],
    ids=lambda value: '-'.join(value) if isinstance(value, dict) else None,
)
def test_stopped_and_started_again(
    name, loader, settings, scenes, tmp_path, monkeypatch
):
    def run(work_dir):
        cfg = config(name, scenes, loader, settings)
        return train(cfg, work_dir=str(tmp_path / work_dir), seed=3)

    undisturbed = run('whole')
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stop:
        stopped_at(8, patch)
        run('parts')
    assert stop.value.code == 0
    assert (tmp_path / 'parts' / MARKER).is_file()
    parts = run('parts')
    assert not (tmp_path / 'parts' / MARKER).exists()
    assert parts.iterations == undisturbed.iterations >= 9
    states = [
        checkpoint_io.read(done.checkpoint) for done in (undisturbed, parts)
    ]
    for key in ('state_dict', 'optimizer', 'param_schedulers'):
        assert same(*(state[key] for state in states)), key


def test_the_comparison_can_fail(scenes, tmp_path):
    states = [
        checkpoint_io.read(
            train(
                config(DETECTOR, scenes, {}, {}),
                work_dir=str(tmp_path / str(seed)),
                seed=seed,
            ).checkpoint
        )
        for seed in (3, 4)
    ]
    assert not same(*(state['state_dict'] for state in states))
