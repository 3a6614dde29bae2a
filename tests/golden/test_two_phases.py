"""The two phases of MoCo v2: accumulation, skipped steps, and what is kept.

The steps themselves stand in ``test_moco.py``.
"""

import pytest
import torch

from . import ours, plain
from .ours import STEPS, C, batches, close, optim_wrapper, train_step
from .plain import normalise

K = 24


def build_model():
    return ours.build(dict(type='Queue', size=K, feat_dim=C))


def test_accumulation_equals_algorithm_1_on_the_larger_batch():
    """Three micro-batches of 4 look up the same queue, then one step.

    BatchNorm sees the micro-batch, in the paper's sense the GPU's batch, so
    the transcription encodes them apart too.
    """
    model = build_model()
    paper = plain.MoCo(
        ours.encoder(model), ours.SGD, model.dictionary.keys, 0.2
    )
    wrapper = optim_wrapper(model, accumulation=3)
    wrapper.initialize_count_status(model, 0, 3 * STEPS)
    for step, group in enumerate(batches(STEPS, 12).unbind()):
        if step:
            paper.momentum_update(0.9)
        parts = group.split(4, dim=1)
        keys, losses = [], []
        for views in parts:
            loss, k = paper.loss(*map(normalise, views), None)
            losses.append(loss)
            keys.append(k)
        # One mean over all twelve samples of the larger batch.
        total = torch.stack(losses).mean()
        paper.sgd.step(torch.autograd.grad(total, paper.learnt))
        paper.store(*keys)

        for i, (views, expected) in enumerate(zip(parts, losses, strict=True)):
            log = train_step(model, wrapper, views, 3 * step + i)
            close([log['loss']], [expected])
            assert wrapper.stepped == (i == 2)
        close(ours.parameters(*ours.query_parts(model)), paper.parameters)
        ours.check_queue(model, paper.ring)


def snapshot(model):
    return {
        name: value.clone()
        for name, value in model.state_dict().items()
        if 'running_' not in name and 'num_batches' not in name
    }


def test_non_finite_gradient_leaves_everything_untouched():
    model = build_model()
    wrapper = optim_wrapper(model)
    good = batches(2, 8)
    train_step(model, wrapper, good[0], 0)
    before = snapshot(model)
    poison = model.neck.mlp[2].weight.register_hook(
        lambda grad: grad * float('nan')
    )

    train_step(model, wrapper, good[1], 1)

    assert not wrapper.stepped and wrapper.skipped == 1
    for name, value in model.state_dict().items():
        if name in before:
            assert torch.equal(value, before[name]), name
    poison.remove()
    train_step(model, wrapper, good[1], 2)
    assert wrapper.stepped
    # The keys of the skipped step were forgotten, not enqueued late.
    assert int(model.dictionary.ptr) == 16


def test_skipped_accumulation_forgets_all_its_micro_batches():
    model = build_model()
    wrapper = optim_wrapper(model, accumulation=2)
    views = batches(4, 4)
    poison = model.neck.mlp[2].weight.register_hook(
        lambda grad: grad * float('inf')
    )
    before = snapshot(model)
    train_step(model, wrapper, views[0], 0)
    poison.remove()
    train_step(model, wrapper, views[1], 1)
    assert not wrapper.stepped
    for name, value in model.state_dict().items():
        if name in before:
            assert torch.equal(value, before[name]), name
    train_step(model, wrapper, views[2], 2)
    train_step(model, wrapper, views[3], 3)
    assert wrapper.stepped and int(model.dictionary.ptr) == 8


def test_loss_changes_no_state_and_a_repeat_replaces_what_it_staged():
    model = build_model()
    views = batches(1, 8)[0]
    before = snapshot(model)
    data = {'view_q': normalise(views[0]), 'view_k': normalise(views[1])}
    ids = torch.arange(8)
    model(data, ids, mode='loss')
    model(data, ids, mode='loss')
    for name, value in model.state_dict().items():
        if name in before:
            assert torch.equal(value, before[name]), name
    model.commit_keys()
    assert int(model.dictionary.ptr) == 8


def test_key_encoder_never_gets_a_gradient():
    model = build_model()
    wrapper = optim_wrapper(model)
    train_step(model, wrapper, batches(1, 8)[0], 0)
    assert all(not p.requires_grad for p in model.key_encoder.parameters())
    assert all(p.grad is None for p in model.key_encoder.parameters())


def test_training_without_the_hooks_is_refused():
    model = build_model()
    model._announced.clear()
    views = batches(1, 8)[0]
    data = {'view_q': normalise(views[0]), 'view_k': normalise(views[1])}
    with pytest.raises(RuntimeError, match='KeyEncoderUpdateHook'):
        model(data, mode='loss')


def test_bfloat16_on_the_cpu_stays_near_float32():
    plain, mixed = build_model(), build_model()
    mixed.load_state_dict(plain.state_dict())
    views = batches(1, 8)[0]
    expected = train_step(plain, optim_wrapper(plain), views, 0)['loss']
    wrapper = optim_wrapper(mixed, dtype='bfloat16')
    actual = train_step(mixed, wrapper, views, 0)['loss']
    assert wrapper.stepped
    assert actual.dtype == torch.float32
    assert abs(actual - expected) / expected < 0.02
    assert actual != expected  # Otherwise autocast was not on.
