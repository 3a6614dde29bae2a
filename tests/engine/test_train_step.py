"""A loop of one's own does what the runner and its hooks do."""

import copy
import re
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import DefaultScope, init_default_scope
from mmengine.runner import Runner

import mmmoco
from mmmoco.engine.bare_model import bare_model
from mmmoco.engine.optim import ContrastOptimWrapper
from mmmoco.registry import MODELS

DESIGN = Path(__file__).parents[2] / 'docs' / 'design.md'


class Notes(Hook):
    """What the run began with, and what it was given."""

    def before_train(self, runner):
        self.start = copy.deepcopy(bare_model(runner).state_dict())
        self.batches = []

    def before_train_iter(self, runner, batch_idx, data_batch):
        self.batches.append(copy.deepcopy(data_batch))


def test_it_ends_where_the_runner_does(small_config, runner_of):
    """With accumulation, a schedule of m and permuted keys."""
    cfg = small_config(
        **{
            'model.m_schedule': 'cosine',
            'model.m': 0.9,
            'optim_wrapper.accumulative_counts': 3,  # of 4 iterations
            'param_scheduler': [],
        }
    )
    runner, notes = runner_of(cfg), Notes()
    runner.register_hook(notes)
    runner.train()
    expected = bare_model(runner).state_dict()

    model = MODELS.build(cfg.model).train()
    model.load_state_dict(notes.start)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    step = mmmoco.TrainStep(
        model, wrapper, total=len(notes.batches), seed=runner.seed
    )
    stepped = []
    for batch in notes.batches:
        assert step(batch)['loss'] > 0
        stepped.append(wrapper.stepped)
    assert stepped == [False, False, True, True]
    for name, value in model.state_dict().items():
        assert torch.equal(value, expected[name]), name
    moved = [n for n in expected if not expected[n].equal(notes.start[n])]
    assert {'key_encoder.neck.mlp.0.weight', 'dictionary.keys'} <= set(moved)


def test_a_skipped_step_leaves_no_keys_behind(small_config):
    cfg = small_config()
    init_default_scope('mmmoco')
    model = MODELS.build(cfg.model).train()
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    step = mmmoco.TrainStep(model, wrapper, total=2)
    keys = model.dictionary.keys.clone()
    batch = batches(cfg)[0]
    with torch.no_grad():
        model.neck.mlp[0].bias.fill_(float('nan'))
    step(batch)
    assert not wrapper.stepped and not model.dictionary._staged
    assert torch.equal(model.dictionary.keys, keys)


def batches(cfg):
    with DefaultScope.overwrite_default_scope('mmmoco'):
        return list(Runner.build_dataloader(cfg.train_dataloader, seed=0))


def loop_of_the_docs():
    text = DESIGN.read_text(encoding='utf-8')
    text = text[text.index('## A loop of your own') :]
    return re.search(r'```python\n(.*?)```', text, re.S).group(1)


@pytest.mark.slow
def test_the_loop_of_the_docs_runs_as_it_is_pasted(
    tmp_path, monkeypatch, capfd
):
    """In another folder, with nothing that is there before."""
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(loop_of_the_docs(), names)
    assert names['train_step'].done == len(names['loader']) == 33
    assert names['log']['loss'] > 0
    assert len(capfd.readouterr().out.splitlines()) < 5


def test_the_loop_of_the_docs_runs(small_config):
    cfg = small_config()
    code, replaced = re.subn(r'(?m)^cfg = .*$', '', loop_of_the_docs())
    names = {'cfg': cfg}
    before = mmmoco.get_model(cfg).dictionary.ptr
    exec(code, names)
    assert replaced == 1
    assert names['train_step'].done == len(names['loader']) == 4
    assert names['model'].dictionary.ptr == (before + 4 * 16) % 64
    loss = names['log']['loss']
    assert loss > 0 and not loss.requires_grad


def parts_of(small_config):
    model = mmmoco.get_model(small_config())
    wanted = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(wanted, lr=0.1)
    return model, ContrastOptimWrapper(optimizer=optimizer)


def test_what_it_cannot_train_is_refused(small_config):
    model, wrapper = parts_of(small_config)
    with pytest.raises(TypeError, match='Linear is no pre-training model'):
        mmmoco.TrainStep(torch.nn.Linear(1, 1), wrapper, total=1)
    plain = OptimWrapper(optimizer=wrapper.optimizer)
    with pytest.raises(TypeError, match='give a ContrastOptimWrapper'):
        mmmoco.TrainStep(model, plain, total=1)
    for total, done in ((0, 0), (-1, 0), (2, 2), (2, -1)):
        with pytest.raises(ValueError, match=f'total={total}'):
            mmmoco.TrainStep(model, wrapper, total, done=done)


def test_a_model_of_get_model_is_trained_in_training_mode(small_config):
    model, wrapper = parts_of(small_config)
    assert not model.training
    mmmoco.TrainStep(model, wrapper, total=1).begin()
    assert model.training
