"""Every place of a checkpoint, with every kind of damage.

Either the resume is refused in one line that names the place, or the run goes
on exactly as it would have: the place did not matter.
"""

import copy
import math
import os

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader

from mmmoco.apis import load_config
from mmmoco.apis.training.runner import build_runner
from mmmoco.engine import checkpoint_io
from mmmoco.engine.bare_model import bare_model
from mmmoco.engine.checkpoint_io import CheckpointError
from mmmoco.engine.resume_check import (
    check_optimizers,
    check_state,
    fit_state,
)
from tests.conftest import SMALL

DELETED = object()
VALUES = {
    'deleted': DELETED,
    'None': None,
    'text': 'x',
    'nan': math.nan,
    'negative': -5,
    'huge': 10**12,
    'larger': 1e30,
    'true': True,
    'list': [],
    'dictionary': {},
}


def tensors_like(value):
    """Tensors that do not belong in the place of this one."""
    yield 'longer', torch.zeros(value.numel() + 1)
    yield 'empty', torch.zeros(0)
    yield 'complex', value.to(torch.complex64)
    if value.is_floating_point():
        yield 'nans', torch.full_like(value, math.nan)
        yield 'whole', value.long()
    else:
        yield 'beyond', torch.full_like(value, 10**6)
        yield 'below', torch.full_like(value, -1)


def places(node, path=()):
    """Yield the path of everything below a node, as a way to reach it."""
    if isinstance(node, dict):
        keys = list(node)
    elif isinstance(node, list):
        keys = range(len(node))
    else:
        return
    for key in keys:
        yield (*path, key)
        yield from places(node[key], (*path, key))


def at(tree, path):
    for key in path:
        tree = tree[key]
    return tree


def damage(tree, path, value):
    """Put a value to a place; lists are lost as a whole entry."""
    parent = at(tree, path[:-1])
    if value is DELETED:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value


def damages(tree, path):
    """Yield name and value of each damage at a place."""
    old = at(tree, path)
    for name, value in VALUES.items():
        if type(value) is not type(old) or value != old:
            yield name, copy.copy(value)
    if isinstance(old, torch.Tensor):
        yield from tensors_like(old)


def copied(tree):
    """Copy a checkpoint, but for its tensors: nobody writes into those."""
    tensors = (at(tree, path) for path in places(tree))
    shared = {id(x): x for x in tensors if isinstance(x, torch.Tensor)}
    return copy.deepcopy(tree, shared)


class Bench:
    """A small run, resumed from its first epoch again and again."""

    def __init__(self, cfg, patch):
        first = build_runner(cfg)
        first.train()
        self.path = os.path.join(first.work_dir, 'epoch_1.pth')
        self.good = checkpoint_io.read(self.path)
        self.given = None
        patch.setattr(
            CheckpointLoader,
            'load_checkpoint',
            lambda *_, **__: copy.deepcopy(self.given),
        )
        cfg.train_cfg.max_epochs = 2
        cfg.resume, cfg.load_from = True, self.path
        self.given = self.good
        self.runner = build_runner(cfg)
        self.runner.train()
        self.expected = self.facts()

    def refusal(self, checkpoint):
        """Return the line with which it is refused, or None."""
        try:
            check_state(self.runner, checkpoint, 'file')
            weights = checkpoint_io.state_dict_of(checkpoint)
            fit_state(bare_model(self.runner), weights, 'file')
            check_optimizers(self.runner, checkpoint, 'file')
        except CheckpointError as error:
            return str(error)
        return None

    def goes_on_exactly(self, checkpoint):
        self.given = checkpoint
        self.runner.resume(self.path)
        wrapper, loop = self.runner.optim_wrapper, self.runner.train_loop
        wrapper.initialize_count_status(
            self.runner.model, loop.iter, loop.max_iters
        )
        loop.run()
        found = self.facts()
        return [
            name
            for name, value in self.expected.items()
            if not torch.equal(torch.as_tensor(value), found[name])
        ]

    def facts(self):
        """All that decides what comes next, as tensors by name."""
        runner = self.runner
        wrapper = runner.optim_wrapper
        facts = dict(bare_model(runner).state_dict())
        for number, state in wrapper.state_dict()['state'].items():
            for name, value in state.items():
                facts[f'{number}.{name}'] = torch.as_tensor(value)
        facts['lr'] = torch.tensor(wrapper.get_lr()['lr'])
        facts['place'] = torch.tensor([runner.epoch, runner.iter, runner.seed])
        return {name: value.clone() for name, value in facts.items()}


@pytest.fixture(scope='module')
def bench(tmp_path_factory):
    cfg = load_config('demo/mocov2_digits', copy.deepcopy(SMALL))
    cfg.work_dir = str(tmp_path_factory.mktemp('run'))
    cfg.custom_hooks = [h for h in cfg.custom_hooks if h.type != 'KNNHook']
    with pytest.MonkeyPatch.context() as patch:
        yield Bench(cfg, patch)


def named(place, line):
    """Whether a line names a place, or the nearest that has a name."""
    return any(
        str(key) in line for key in place if not isinstance(key, int)
    ) and not line.count('\n')


@pytest.mark.slow
def test_any_damage_is_named_or_does_not_matter(bench):
    good = bench.good
    top = [p for p in places(good) if p[0] != 'state_dict' or len(p) == 1]
    tried, refused = 0, 0
    harmless = {}
    for path in top:
        for kind, value in damages(good, path):
            checkpoint = copied(good)
            damage(checkpoint, path, value)
            line = bench.refusal(checkpoint)
            tried += 1
            if line is None:
                harmless.setdefault(kind, []).append((path, value))
            else:
                refused += 1
                assert named(path, line), (path, kind, line)
    assert tried > 1000 and refused > 600, (tried, refused)
    never = {
        ('meta',), ('meta', 'iter'), ('meta', 'seed'), ('message_hub',),
        ('optimizer',), ('optimizer', 'state'), ('optimizer', 'param_groups'),
        ('optimizer', 'param_groups', 0, 'lr'), ('param_schedulers',),
        ('optimizer', 'state', 3), ('state_dict',),
    }  # fmt: skip
    through = [
        (path, kind)
        for kind, found in harmless.items()
        for path, _ in found
        if path in never
    ]
    assert not through
    # One run for all the damages of a kind that are let through.
    assert bench.goes_on_exactly(good) == []
    for kind, found in harmless.items():
        checkpoint = copy.deepcopy(good)
        paths = [path for path, _ in found]
        for path, value in found:
            if not any(path[:n] in paths for n in range(1, len(path))):
                damage(checkpoint, path, value)
        differs = bench.goes_on_exactly(checkpoint)
        assert differs == [], (kind, differs, paths)


def test_any_damage_of_a_weight_is_named(bench):
    weights = bench.good['state_dict']
    for name, value in weights.items():
        for kind, new in damages(bench.good, ('state_dict', name)):
            counter = name.endswith('num_batches_tracked')
            if counter and kind in ('deleted', 'beyond', 'below'):
                continue  # Nothing is computed from it.
            checkpoint = {**bench.good, 'state_dict': dict(weights)}
            damage(checkpoint, ('state_dict', name), new)
            line = bench.refusal(checkpoint)
            assert line is not None and name in line, (name, kind, line)
        assert value is weights[name]


def test_one_weight_that_moved_is_seen(bench):
    """The comparison above can fail."""
    changed = copy.deepcopy(bench.good)
    changed['optimizer']['state'][3]['momentum_buffer'] += 1e-3
    assert '3.momentum_buffer' in bench.goes_on_exactly(changed)


@pytest.mark.parametrize(
    'history',
    [
        None,
        'x',
        [0.1],
        np.array(['x']),
        np.zeros((2, 2)),
        np.array([None]),
    ],
)
def test_a_history_of_anything_else(bench, history):
    broken = copy.deepcopy(bench.good)
    buffer = HistoryBuffer([1.0], [1])
    buffer._log_history = history
    broken['message_hub']['log_scalars']['train/loss'] = buffer
    line = bench.refusal(broken)
    assert 'message_hub.log_scalars.train/loss' in line


@pytest.mark.parametrize('kind', ['AdamW', 'mmmoco.LARS', 'RMSprop'])
def test_what_other_optimizers_keep(kind, small_config, runner_of):
    cfg = small_config()
    cfg.optim_wrapper.optimizer = dict(type=kind, lr=1e-3)
    cfg.param_scheduler = []
    runner = runner_of(cfg)
    runner.train()
    path = os.path.join(runner.work_dir, 'epoch_1.pth')
    good = checkpoint_io.read(path)
    check_optimizers(runner, copy.deepcopy(good), 'file')
    kept = good['optimizer']['state'][2]
    assert kept
    for name, value in kept.items():
        for new in (DELETED, None, 'x', math.nan, torch.zeros(7), -1):
            broken = copy.deepcopy(good)
            damage(broken, ('optimizer', 'state', 2, name), new)
            with pytest.raises(CheckpointError, match=rf'state\[2\]\.{name}'):
                check_optimizers(runner, broken, 'file')
        assert value is kept[name]


def test_files_of_older_versions_resume(bench):
    """They lack what those versions did not write."""
    old = copy.deepcopy(bench.good)
    del old['meta']['processes']
    del old['message_hub']['runtime_info']['kept_checkpoints']
    for name in ('skipped_steps', 'skipped_in_a_row'):
        del old['optimizer'][name]
    for group in old['optimizer']['param_groups']:
        for name in ('fused', 'differentiable'):  # Since torch 2.3.
            group.pop(name, None)
    for name in list(old['state_dict']):
        if name.endswith('num_batches_tracked'):
            del old['state_dict'][name]
    assert bench.refusal(copy.deepcopy(old)) is None
    differs = bench.goes_on_exactly(old)
    assert [n for n in differs if 'num_batches' not in n] == []
