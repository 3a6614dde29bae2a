"""Heads warmed up, queue filled, falls stopped: real runs of seconds."""

import copy
import os
from pathlib import Path

import pytest
import torch
from mmpretrain.models import VisionTransformer

from mmmoco.apis import load_config
from mmmoco.engine import checkpoint_io
from mmmoco.engine.bare_model import bare_model
from mmmoco.engine.evaluation.agreement import NeighbourAgreement
from mmmoco.engine.hooks.drop_guard_hook import FellBelowStart
from mmmoco.engine.optim import ContrastOptimWrapper
from mmmoco.engine.without_memory import build_without_memory
from mmmoco.two_phase import layer_depths
from tests.conftest import results

LAYER_WISE = {
    'optim_wrapper.constructor': 'mmpretrain.'
    'LearningRateDecayOptimWrapperConstructor',
    'optim_wrapper.paramwise_cfg': dict(layer_decay_rate=0.5),
}


def images(count=40):
    loader = load_config('demo/mocov2_digits').knn.bank
    loader.dataset.num_scenes = count
    return loader


def agreement(k=5):
    return dict(
        type='DropGuardHook',
        evaluation=dict(type='NeighbourAgreement', k=k),
        margin=None,
        bank=images(),
        query=images(),
    )


@pytest.fixture
def run_with(small_config, runner_of):
    """Return a function that builds a run of 4 iterations an epoch."""

    def build(*hooks, **options):
        cfg = small_config(**options)
        cfg.custom_hooks = [*cfg.custom_hooks, *copy.deepcopy([*hooks])]
        return runner_of(cfg)

    return build


def states(folder):
    return sorted(f for f in os.listdir(folder) if f.endswith('.pth'))


@pytest.mark.parametrize(
    'optimizer',
    [
        dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=0.1),
        dict(type='AdamW', lr=0.1, weight_decay=0.5),
        dict(type='LARS', lr=0.1, weight_decay=0.1),
    ],
)
@pytest.mark.parametrize('accumulation', [1, 2])
def test_a_frozen_backbone_stays_bit_for_bit(
    run_with, optimizer, accumulation
):
    runner = run_with(
        dict(type='HeadWarmupHook', iterations=4),
        **{
            'optim_wrapper.optimizer': dict(_delete_=True, **optimizer),
            'optim_wrapper.accumulative_counts': accumulation,
            'train_cfg.max_epochs': 2,
        },
    )
    model = bare_model(runner)
    seen = []

    def look(*_, **__):
        own = {n: p.detach().clone() for n, p in model.named_parameters()}
        state = runner.optim_wrapper.optimizer.state
        known = [p in state for p in model.backbone.parameters()]
        seen.append((own, known))

    step = runner.call_hook

    def watched(name, **kwargs):
        step(name, **kwargs)
        if name in ('before_train', 'after_train_iter'):
            look()

    runner.call_hook = watched
    runner.train()
    start = seen[0][0]
    for own, known in seen[1:5]:
        assert not any(known)
        for name, value in own.items():
            # Its average has nothing to follow, either.
            same = torch.equal(value, start[name])
            assert same or 'backbone.' not in name, name
    heads = [n for n in start if n.startswith('neck.')]
    assert any(not torch.equal(seen[4][0][n], start[n]) for n in heads)
    assert all(seen[-1][1])
    assert not torch.equal(
        seen[-1][0]['backbone.stages.0.conv.weight'],
        start['backbone.stages.0.conv.weight'],
    )


def test_a_queue_is_filled_with_keys_and_nothing_else_changes(run_with):
    found = {}
    for name, hooks in {'off': [], 'on': [dict(type='FillQueueHook')]}.items():
        runner = run_with(*hooks, **{'model.dictionary.size': 40})
        model = bare_model(runner)
        states = []
        step = runner.call_hook

        def watched(point, step=step, states=states, model=model, **kwargs):
            step(point, **kwargs)
            if point == 'before_train':
                states.append(copy.deepcopy(model.state_dict()))

        runner.call_hook = watched
        runner.train()
        found[name] = states[0]
    off, on = found['off'], found['on']
    changed = {n for n in off if not torch.equal(off[n], on[n])}
    assert changed == {'dictionary.keys', 'dictionary.ptr'}
    # Three batches of 16 in 40 places.
    assert int(on['dictionary.ptr']) == 8
    moved = (on['dictionary.keys'] != off['dictionary.keys']).any(0)
    assert moved.all()
    assert torch.allclose(
        on['dictionary.keys'].norm(dim=0), torch.ones(40), atol=1e-5
    )


def test_a_run_without_a_queue_is_told_so(run_with):
    with pytest.raises(RuntimeError, match='FillQueueHook: MoCo .* no queue'):
        run_with(
            dict(type='FillQueueHook'),
            **{
                'model.dictionary': dict(
                    _delete_=True, type='InBatch', key_grad=True
                )
            },
        ).train()


@pytest.mark.parametrize('iterations', [2, 6])
def test_going_on_equals_not_having_stopped(run_with, iterations):
    hooks = [
        dict(type='HeadWarmupHook', iterations=iterations),
        dict(type='FillQueueHook'),
        dict(type='DropGuardHook', margin=None),
        agreement(),
    ]
    options = {**LAYER_WISE, 'train_cfg.max_epochs': 2}
    whole = run_with(*hooks, **options)
    whole.train()
    folder = Path(whole.work_dir)
    expected = checkpoint_io.read(folder / 'epoch_2.pth')
    figures = results(folder)
    kept = states(folder)
    (folder / 'results.jsonl').unlink()
    for name in ('epoch_2.pth', 'best_agreement_iter_8.pth'):
        (folder / name).unlink()
    resumed = run_with(
        *hooks,
        **options,
        resume=True,
        load_from=str(folder / 'epoch_1.pth'),
    )
    resumed.train()
    for name, value in bare_model(resumed).state_dict().items():
        assert torch.equal(value, expected['state_dict'][name]), name
    later = [(x['task'], x['epoch'], x['metrics']) for x in figures]
    again = [(x['task'], x['epoch'], x['metrics']) for x in results(folder)]
    assert again == later[4:]
    assert states(folder) == kept


def test_the_guard_stops_a_fall_at_the_best_network(run_with, monkeypatch):
    series = iter([50.0, 60.0, 55.0, 44.0])
    monkeypatch.setattr(
        'mmmoco.engine.hooks.evaluation_hook.EvaluationHook.evaluate',
        lambda *_: {'top1': next(series)},
    )
    runner = run_with(
        dict(type='DropGuardHook', margin=5.0), **{'train_cfg.max_epochs': 9}
    )
    with pytest.raises(FellBelowStart) as stopped:
        runner.train()
    line = str(stopped.value)
    assert line.startswith(
        'Stopped at iteration 12: k-NN is 44.00 %, 6.00 below the start '
        '(50.00 %), and 5 are allowed. k-NN: best at iteration 4, 60.00 %'
    )
    assert 'best_knn_iter_4.pth' in line and '--allow-drop' in line
    best = Path(runner.work_dir, 'best_knn_iter_4.pth')
    content = checkpoint_io.read(best)
    assert content['meta']['iter'] == 4 and 'optimizer' not in content
    assert [*Path(runner.work_dir).glob('best_*')] == [best]


@pytest.mark.parametrize(
    ('series', 'margin', 'said'),
    [
        ([50.0, 49.0, 48.0], 5.0, 'nothing was better than the start, '),
        ([50.0, 9.0, 8.0], None, 'nothing was better than the start, '),
        ([50.0, 49.0, 51.0], 5.0, 'best at iteration 8, 51.00 % (start 50'),
    ],
)
def test_the_start_counts_as_the_best(
    run_with, monkeypatch, caplog, series, margin, said
):
    given = iter(series)
    monkeypatch.setattr(
        'mmmoco.engine.hooks.evaluation_hook.EvaluationHook.evaluate',
        lambda *_: {'top1': next(given)},
    )
    runner = run_with(
        dict(type='DropGuardHook', margin=margin),
        **{'train_cfg.max_epochs': 2},
    )
    lines = []
    runner.logger.info = lambda text, **_: lines.append(text)
    runner.train()
    assert any(said in line for line in lines)


@pytest.mark.parametrize(
    ('series', 'margin', 'said'),
    [
        ([50.0, float('nan')], 99.0, 'k-NN is nan %'),
        ([50.0, float('nan')], None, None),
        ([float('nan')], 99.0, 'of the start is no number'),
        ([float('nan')], None, 'of the start is no number'),
    ],
)
def test_not_a_number_is_a_fall(run_with, monkeypatch, series, margin, said):
    given = iter(series)
    monkeypatch.setattr(
        'mmmoco.engine.hooks.evaluation_hook.EvaluationHook.evaluate',
        lambda *_: {'top1': next(given)},
    )
    runner = run_with(dict(type='DropGuardHook', margin=margin))
    if said is None:
        runner.train()
    else:
        with pytest.raises(FellBelowStart, match=said) as stopped:
            runner.train()
        assert 'iter_-1' not in str(stopped.value)
    kept = [f.name for f in Path(runner.work_dir).glob('best_*')]
    assert kept == ['best_knn_iter_0.pth'] * (series[0] == 50)


def test_the_guard_watches_the_images_of_the_training(run_with):
    own = images()
    own.dataset = dict(split='val')
    guard = agreement() | dict(bank=own, query=own)
    runner = run_with(guard, **{'train_dataloader.dataset.num_scenes': 48})
    runner.train()
    found = results(Path(runner.work_dir))
    assert {r['protocol']['bank'] for r in found} == {48}


@pytest.mark.parametrize('accumulation', [1, 2])
@pytest.mark.parametrize('taken', [True, False])
def test_a_skipped_step_is_none_of_the_backbone(
    run_with, monkeypatch, accumulation, taken
):
    def run(**options):
        return run_with(
            dict(type='HeadWarmupHook', iterations=2),
            **{
                'optim_wrapper.accumulative_counts': accumulation,
                'default_hooks.checkpoint.interval': 1,
                'train_cfg.max_epochs': 2,
                **options,
            },
        )

    first = run()
    agree = ContrastOptimWrapper._all_agree
    if not taken:  # After the heads', none is.
        monkeypatch.setattr(
            ContrastOptimWrapper,
            '_all_agree',
            lambda own, *x: agree(own, *x) and first.iter < 2,
        )
    first.train()
    monkeypatch.undo()
    folder = Path(first.work_dir)
    (folder / 'epoch_2.pth').unlink()
    second = run(resume=True, load_from=str(folder / 'epoch_1.pth'))
    second.train()
    assert second.iter == 8


@pytest.mark.parametrize(
    ('hook', 'words'),
    [
        (dict(type='HeadWarmupHook', iterations=-1), 'at least 0'),
        (dict(type='HeadWarmupHook', iterations=4), 'learn nothing'),
        (dict(type='DropGuardHook', margin=-1), 'at least 0'),
        (agreement(k=0), 'at least 1'),
        (agreement(k=40), 'holds 40 images only'),
    ],
)
def test_what_makes_no_sense_is_refused(run_with, hook, words):
    with pytest.raises(ValueError, match=words):
        run_with(hook).train()


@pytest.mark.parametrize(
    'told',
    [
        None,
        {},
        {'samples': [1], 'neighbours': [[1]]},
        {
            'samples': torch.zeros(4, dtype=torch.int32),
            'neighbours': torch.zeros(4, 3, dtype=torch.int32),
        },
        {
            'samples': torch.zeros(4, dtype=torch.int32),
            'neighbours': torch.zeros(4, 5),
        },
    ],
)
def test_neighbours_of_a_strange_checkpoint_are_refused(told):
    with pytest.raises(ValueError, match='no such neighbours'):
        NeighbourAgreement(k=5).recall(told)


def test_depths_are_those_of_mmpretrain_where_it_has_some():
    vit = VisionTransformer(arch='deit-tiny', img_size=32)
    found = layer_depths(name for name, _ in vit.named_parameters())
    for name, depth in found.items():
        theirs, count = vit.get_layer_depth(name)
        # The last norm has the rate of the heads there.
        assert theirs == (count - 1 if name.startswith('ln1') else depth)


@pytest.mark.parametrize('depth', [18, 50])
def test_a_resnet_has_lower_rates_the_deeper_it_gets(depth):
    cfg = load_config('mocov2_r50_8xb32', {'model.backbone.depth': depth})
    cfg.model.neck.hid_channels = 8
    cfg.model.dictionary.size = 8
    model = build_without_memory(cfg)
    depths = {
        name: model.get_layer_depth(name)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    (count,) = {count for _, count in depths.values()}
    stages = [depths[f'backbone.{x}.weight'][0] for x in (
        'conv1', 'layer1.0.conv1', 'layer2.0.conv1', 'layer3.0.conv1',
        'layer4.1.conv1',
    )]  # fmt: skip
    assert stages[0] == 0 and stages == sorted(set(stages))
    heads = {depths[n][0] for n in depths if not n.startswith('backbone.')}
    assert heads == {count - 1} and stages[-1] < count - 1
