"""The hooks in real runs of the real runner, cut down to seconds."""

import json
import math
import os
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from mmmoco.engine import checkpoint_io
from mmmoco.engine.bare_model import bare_model
from mmmoco.registry import HOOKS


def epochs_of(runner):
    return sorted(f for f in os.listdir(runner.work_dir) if f.endswith('.pth'))


def test_a_run_logs_saves_and_moves_the_key_encoder(small_config, runner_of):
    cfg = small_config(knn=True)
    runner = runner_of(cfg)
    model = bare_model(runner)
    runner.train()
    query, key = model.backbone, model.key_encoder.backbone
    moved = [
        not torch.equal(a, b)
        for a, b in zip(query.parameters(), key.parameters(), strict=True)
    ]
    assert any(moved)
    assert int(model.dictionary.ptr) == 0  # 4 x 16 keys filled 64 slots
    assert epochs_of(runner) == ['epoch_1.pth']

    path = os.path.join(runner.log_dir, 'vis_data', 'scalars.json')
    lines = [json.loads(x) for x in Path(path).read_text().splitlines()]
    step = next(line for line in lines if 'loss' in line)
    for name in ('lr', 'm', 'pos_sim', 'neg_sim', 'top1', 'grad_norm'):
        assert name in step, name
    assert step['m'] == pytest.approx(0.99)
    knn = next(line for line in lines if 'knn/top1' in line)
    assert 0 <= knn['knn/top1'] <= knn['knn/top5'] <= 100

    result = json.loads((Path(runner.work_dir) / 'results.jsonl').read_text())
    assert result['task'] == 'knn' and result['epoch'] == 1
    assert result['iteration'] is None  # The run counts in epochs
    assert result['metrics']['top1'] == pytest.approx(knn['knn/top1'])
    assert set(result) == {
        'task', 'protocol', 'checkpoint', 'checkpoint_hash', 'epoch',
        'iteration', 'metrics', 'published', 'config_hash', 'seed', 'remarks',
        'machine', 'time',
    }  # fmt: skip


def test_the_same_seed_gives_the_same_run(small_config, runner_of):
    states = []
    for _ in range(2):
        runner = runner_of(small_config())
        runner.train()
        states.append(bare_model(runner).state_dict())
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_cosine_m_belongs_to_the_coming_iteration(small_config, runner_of):
    runner = runner_of(small_config(**{'model.m_schedule': 'cosine'}))
    runner.train()
    m = runner.message_hub.get_scalar('train/m').data[0]
    expected = [
        1 - 0.01 * (1 + math.cos(math.pi * (t + 1) / 4)) / 2 for t in range(4)
    ]
    assert m.tolist() == pytest.approx(expected)


def test_checkpoints_wait_for_the_end_of_an_accumulation(
    small_config, runner_of
):
    runner = runner_of(
        small_config(
            **{
                'train_dataloader.dataset.num_scenes': 48,  # 3 iterations
                'optim_wrapper.accumulative_counts': 2,
                'train_cfg.max_epochs': 2,
            }
        )
    )
    runner.train()
    # The end of epoch 1 lies inside an accumulation: saved one step later.
    assert epochs_of(runner) == ['epoch_2.pth', 'iter_4.pth']


def test_outdated_checkpoints_go_after_the_new_one_is_there(
    small_config, runner_of, monkeypatch
):
    runner = runner_of(
        small_config(
            **{
                'train_cfg.max_epochs': 3,
                'default_hooks.checkpoint.max_keep_ckpts': 1,
            }
        )
    )
    present = []
    save = runner.save_checkpoint

    def watched(*args, **kwargs):
        save(*args, **kwargs)
        present.append(epochs_of(runner))

    monkeypatch.setattr(runner, 'save_checkpoint', watched)
    runner.train()
    assert present[1] == ['epoch_1.pth', 'epoch_2.pth']
    assert epochs_of(runner) == ['epoch_3.pth']
    pointer = (Path(runner.work_dir) / 'last_checkpoint').read_text()
    assert pointer.endswith('epoch_3.pth')


def test_resume_at_an_epochs_end_equals_not_having_stopped(
    small_config, runner_of
):
    options = {'train_cfg.max_epochs': 2, 'model.m_schedule': 'cosine'}
    whole = runner_of(small_config(**options))
    whole.train()
    expected = checkpoint_io.read(os.path.join(whole.work_dir, 'epoch_2.pth'))
    os.remove(os.path.join(whole.work_dir, 'epoch_2.pth'))
    cfg = small_config(**options)
    cfg.resume = True
    cfg.load_from = os.path.join(whole.work_dir, 'epoch_1.pth')
    resumed = runner_of(cfg)
    resumed.train()
    for name, value in bare_model(resumed).state_dict().items():
        assert torch.equal(value, expected['state_dict'][name]), name


@pytest.mark.parametrize(
    'hook', ['KeyEncoderUpdateHook', 'DictionaryUpdateHook']
)
def test_update_hooks_say_which_model_is_none_of_ours(hook):
    runner = Mock(model=torch.nn.Linear(2, 2))
    with pytest.raises(RuntimeError, match=f'Linear is no .*{hook}'):
        HOOKS.build(dict(type=hook)).before_train(runner)


def test_weights_without_key_encoder_give_it_a_copy(small_config, runner_of):
    first = runner_of(small_config())
    first.train()
    state = bare_model(first).state_dict()
    path = os.path.join(first.work_dir, 'backbone.pth')
    whole = ('back', 'neck')
    checkpoint_io.write(
        {'state_dict': {k: state[k] for k in state if k[:4] in whole}}, path
    )
    cfg = small_config(**{'optim_wrapper.optimizer.lr': 0.0})
    cfg.load_from = path
    second = runner_of(cfg)
    second.train()
    model = bare_model(second)
    for name, value in model.backbone.named_parameters():
        own = model.key_encoder.backbone.get_parameter(name)
        torch.testing.assert_close(own, value)
        torch.testing.assert_close(value, state[f'backbone.{name}'])


def test_another_optimizer_wrapper_is_named(small_config, runner_of):
    cfg = small_config(**{'optim_wrapper.type': 'OptimWrapper'})
    with pytest.raises(RuntimeError, match='ContrastOptimWrapper'):
        runner_of(cfg).train()


def test_batch_over_the_queue_is_refused_before_training(
    small_config, runner_of
):
    cfg = small_config(**{'model.dictionary.size': 8})
    runner = runner_of(cfg)
    with pytest.raises(ValueError, match='16 keys.*only 8'):
        runner.train()
    assert runner.iter == 0


def test_queue_over_the_data_set_warns(small_config, runner_of):
    runner = runner_of(small_config(**{'model.dictionary.size': 128}))
    runner.train()
    log = next(
        os.path.join(runner.log_dir, f)
        for f in os.listdir(runner.log_dir)
        if f.endswith('.log')
    )
    text = Path(log).read_text()
    assert text.count('only 64 images') == 1
    assert 'SplitBN in 4 parts' in text


def test_lr_scales_by_the_effective_batch(small_config, runner_of):
    cfg = small_config(
        **{
            'optim_wrapper.accumulative_counts': 2,
            'auto_scale_lr.base_batch_size': 64,
            'auto_scale_lr.enable': True,
            'param_scheduler': [],
        }
    )
    stated = cfg.optim_wrapper.optimizer.lr
    runner = runner_of(cfg)
    runner.train()
    group = runner.optim_wrapper.optimizer.param_groups[0]
    assert group['lr'] == pytest.approx(stated * 16 * 2 / 64)
