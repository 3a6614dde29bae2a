"""MoCo v2 against a plain transcription of the paper's algorithm 1.

The transcription uses only torch: encoders are its own modules, the queue is
a tensor, the optimizer step is written out. Nothing of mmmoco is called in
it, except that both start from the same weights and see the same views.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmmoco.engine.optim import ContrastOptimWrapper
from mmmoco.registry import MODELS

M, TAU, K, C, LR, MOMENTUM, DECAY = 0.9, 0.2, 24, 8, 0.06, 0.9, 1e-3
STEPS = 5


def build_model(norm='BN', m=M):
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type='MoCoV2',
            backbone=dict(
                type='PlainConvNet',
                in_channels=3,
                channels=(4, 8),
                strides=(1, 2),
                out_indices=(1,),
                norm_cfg=dict(type=norm),
            ),
            neck=dict(
                type='mmpretrain.MoCoV2Neck',
                in_channels=8,
                hid_channels=8,
                out_channels=C,
            ),
            dictionary=dict(type='Queue', size=K, feat_dim=C),
            loss=dict(type='InfoNCE', temperature=TAU),
            m=m,
            data_preprocessor=dict(
                type='ViewAugmentor', mean=(128,) * 3, std=(64,) * 3
            ),
        )
    )
    model.init_weights()
    model.train()
    for hook in model.needs:
        model.announce(hook)
    return model


def optim_wrapper(model, accumulation=1, **kwargs):
    return ContrastOptimWrapper(
        optimizer=torch.optim.SGD(
            [p for p in model.parameters() if p.requires_grad],
            lr=LR,
            momentum=MOMENTUM,
            weight_decay=DECAY,
        ),
        accumulative_counts=accumulation,
        **kwargs,
    )


def batches(steps, batch, seed=1):
    draws = torch.Generator().manual_seed(seed)
    shape = (steps, 2, batch, 3, 8, 8)
    return torch.randint(0, 256, shape, generator=draws, dtype=torch.uint8)


def train_step(model, wrapper, views, step):
    """What the runner and the two update hooks do in one iteration."""
    model.set_address(seed=0, step=step, rank=0)
    data = {
        'inputs': {'view_q': views[0], 'view_k': views[1]},
        'ids': torch.arange(len(views[0])),
    }
    log = model.train_step(data, wrapper)
    if wrapper.stepped:
        model.update_key_encoder(model.momentum_at(0.0))
        model.commit_keys()
    elif wrapper.should_update():
        model.discard_keys()
    return log


class Encoder(nn.Module):
    """f_q and f_k of the paper, in plain torch."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 8, 3, 2, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.fc1 = nn.Linear(8, 8)
        self.fc2 = nn.Linear(8, C)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = x.mean((2, 3))
        return F.normalize(self.fc2(F.relu(self.fc1(x))), dim=1)

    def take(self, model):
        pairs = zip(
            self.state_dict().values(),
            [
                *model.backbone.state_dict().values(),
                *model.neck.state_dict().values(),
            ],
            strict=True,
        )
        for own, other in pairs:
            own.copy_(other)
        return self


class Paper:
    """Algorithm 1, with the SGD of its text written out."""

    def __init__(self, model):
        self.f_q = Encoder().take(model)
        self.f_k = copy.deepcopy(self.f_q)
        self.queue = model.dictionary.keys.clone()  # CxK
        self.ptr = 0
        self.velocity = [None] * len(list(self.f_q.parameters()))

    def key_pass(self, x_k):
        with torch.no_grad():
            return self.f_k(x_k)

    def momentum_update(self):
        for p_k, p_q in zip(
            self.f_k.parameters(), self.f_q.parameters(), strict=True
        ):
            p_k.data = M * p_k.data + (1 - M) * p_q.data

    def loss(self, x_q, k):
        q = self.f_q(x_q)
        l_pos = torch.einsum('nc,nc->n', q, k)[:, None]
        l_neg = torch.einsum('nc,ck->nk', q, self.queue)
        logits = torch.cat([l_pos, l_neg], 1) / TAU
        return -F.log_softmax(logits, 1)[:, 0].mean()

    def sgd(self, grads):
        for i, (p, g) in enumerate(
            zip(self.f_q.parameters(), grads, strict=True)
        ):
            g = g + DECAY * p.data
            v = self.velocity[i]
            self.velocity[i] = g if v is None else MOMENTUM * v + g
            p.data = p.data - LR * self.velocity[i]

    def enqueue(self, k):
        for key in k:
            self.queue[:, self.ptr] = key
            self.ptr = (self.ptr + 1) % K


def normalise(x):
    return (x.float() - 128) / 64


def assert_equal_states(model, paper):
    ours = [*model.backbone.parameters(), *model.neck.parameters()]
    for a, b in zip(ours, paper.f_q.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        model.dictionary.keys, paper.queue, rtol=1e-5, atol=1e-5
    )
    assert int(model.dictionary.ptr) == paper.ptr


def keys_of(model):
    return [
        *model.key_encoder.backbone.parameters(),
        *model.key_encoder.neck.parameters(),
    ]


@pytest.mark.parametrize('batch', [8, 10])  # 10 wraps around inside K = 24
def test_steps_equal_algorithm_1(batch):
    model = build_model()
    paper, wrapper = Paper(model), optim_wrapper(model)
    grads = []
    hook = wrapper.optimizer.register_step_pre_hook
    hook(lambda *_: grads.append([p.grad.clone() for p in trainable(model)]))
    for step, views in enumerate(batches(STEPS, batch)):
        # The paper moves f_k first; at the first step both are equal.
        if step:
            paper.momentum_update()
        for a, b in zip(keys_of(model), paper.f_k.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
        k = paper.key_pass(normalise(views[1]))
        expected = paper.loss(normalise(views[0]), k)
        expected_grads = torch.autograd.grad(
            expected, list(paper.f_q.parameters())
        )
        paper.sgd(expected_grads)
        paper.enqueue(k)

        log = train_step(model, wrapper, views, step)

        torch.testing.assert_close(log['loss'], expected, rtol=1e-5, atol=1e-5)
        for a, b in zip(grads.pop(), expected_grads, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        assert_equal_states(model, paper)


def trainable(model):
    return [p for p in model.parameters() if p.requires_grad]


def test_accumulation_equals_algorithm_1_on_the_larger_batch():
    """Three micro-batches of 4 look up the same queue, then one step.

    BatchNorm sees the micro-batch, in the paper's sense the GPU's batch, so
    the transcription encodes them apart too.
    """
    model = build_model()
    paper, wrapper = Paper(model), optim_wrapper(model, accumulation=3)
    wrapper.initialize_count_status(model, 0, 3 * STEPS)
    for step, group in enumerate(batches(STEPS, 12).unbind()):
        if step:
            paper.momentum_update()
        parts = group.split(4, dim=1)
        keys, losses = [], []
        for views in parts:
            keys.append(paper.key_pass(normalise(views[1])))
            losses.append(paper.loss(normalise(views[0]), keys[-1]))
        # One mean over all twelve samples of the larger batch.
        total = torch.stack(losses).mean()
        paper.sgd(torch.autograd.grad(total, list(paper.f_q.parameters())))
        paper.enqueue(torch.cat(keys))

        for i, (views, expected) in enumerate(zip(parts, losses, strict=True)):
            log = train_step(model, wrapper, views, 3 * step + i)
            torch.testing.assert_close(
                log['loss'], expected, rtol=1e-5, atol=1e-5
            )
            assert wrapper.stepped == (i == 2)
        assert_equal_states(model, paper)


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
