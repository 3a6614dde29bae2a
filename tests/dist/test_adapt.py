"""Warm-up, a filled queue and the guard over two processes."""

import pytest
import torch

from .launching import launch
from .test_two_processes import TRAIN_AND_DUMP

pytestmark = pytest.mark.dist

CONFIG = """
_base_ = 'mmmoco::demo/mocov2_digits.py'
model = dict(dictionary=dict(size=200))
train_dataloader = dict(batch_size=32, dataset=dict(num_scenes=512))
knn = dict(
    bank=dict(dataset=dict(num_scenes=41)),
    query=dict(dataset=dict(num_scenes=21)),
)
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='HeadWarmupHook', iterations=2),
    dict(type='FillQueueHook'),
    dict(type='DropGuardHook', margin=None),
    dict(
        type='DropGuardHook',
        evaluation=dict(type='NeighbourAgreement', k=3),
        margin=100.0,
    ),
]
"""


def test_both_processes_have_one_queue_and_one_verdict(tmp_path):
    script, config = tmp_path / 'train.py', tmp_path / 'adapt.py'
    script.write_text(TRAIN_AND_DUMP)
    config.write_text(CONFIG)
    output = launch(
        *(script, tmp_path, config, '--work-dir', tmp_path / 'run'),
        *('--max-iters', 4, '--seed', 0),
    )
    first, second = (torch.load(tmp_path / f'rank{i}.pth') for i in range(2))
    for name, value in first.items():
        if 'running_' not in name:
            assert torch.equal(value, second[name]), name
    # Four batches of 64 filled it, and four steps came behind.
    assert int(first['dictionary.ptr']) == 8 * 64 % 200
    assert 'The queue holds 200 keys' in output
    assert '41 in the bank, 41 queries' in output
    kept = [path.name for path in (tmp_path / 'run').glob('best_*')]
    assert len(kept) == 2 and 'best_agreement_iter_4.pth' in kept
