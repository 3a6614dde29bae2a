"""Runs of mmengine that take no time, and what they leave."""

import itertools
import multiprocessing

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Tiny(BaseModel):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 2)

    def forward(self, inputs, mode='loss'):
        return {'loss': self.layer(inputs).square().mean()}


class Points(Dataset):
    metainfo = {
        'classes': ('a', 'b'),
        'palette': np.arange(6, dtype=np.uint8).reshape(2, 3),
        'ratio': np.float64(0.5),
    }

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return {'inputs': torch.full((3,), float(index))}


_counter = itertools.count()


def make_runner(work_dir, max_iters=2, **options):
    options.setdefault('model', Tiny())
    return Runner(
        work_dir=str(work_dir),
        train_dataloader=DataLoader(Points(), batch_size=2),
        train_cfg=dict(by_epoch=False, max_iters=max_iters),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
        param_scheduler=dict(type='LinearLR', by_epoch=False, end=4),
        default_hooks=dict(
            checkpoint=dict(
                type='CheckpointHook',
                by_epoch=False,
                interval=1,
                published_keys=['meta', 'state_dict'],
            )
        ),
        custom_hooks=[dict(type='EMAHook')],
        randomness=dict(seed=1),
        log_level='ERROR',
        experiment_name=f'checkpoint_io_{next(_counter)}',
        **options,
    )


def assert_same(one, other):
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_same(*pair)
    elif isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    elif isinstance(one, np.ndarray | np.generic):
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)
    elif isinstance(one, HistoryBuffer):
        for mine, theirs in zip(one.data, other.data, strict=True):
            assert_same(mine, theirs)
        assert one.max_length == other.max_length
    else:
        assert one == other


def alone(function, *arguments):
    # The threads that OpenMP started before the fork do not exist here.
    torch.set_num_threads(1)
    function(*arguments)


def fork(function, *arguments):
    process = multiprocessing.get_context('fork').Process(
        target=alone, args=(function, *arguments), daemon=True
    )
    process.start()
    return process


def damage_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
