"""Small models of mmmoco, and the comparison with a transcription."""

import torch

from mmmoco.engine.optim import ContrastOptimWrapper
from mmmoco.registry import MODELS

from ..comparison import Comparison
from . import plain

C, STEPS = 8, 6
SGD = dict(lr=0.06, momentum=0.9, decay=1e-3)

LINEAR = dict(
    type='mmpretrain.LinearNeck',
    in_channels=8,
    out_channels=C,
    gap_dim=2,
    norm_cfg=None,
)
MLP = dict(
    type='mmpretrain.MoCoV2Neck',
    in_channels=8,
    hid_channels=8,
    out_channels=C,
)


def conv_net(norm='BN', **norm_options):
    return dict(
        type='PlainConvNet',
        in_channels=3,
        channels=(4, 8),
        strides=(1, 2),
        out_indices=(1,),
        norm_cfg=dict(type=norm, **norm_options),
    )


def build(dictionary, type='MoCoV2', tau=0.2, neck=MLP, **options):
    torch.manual_seed(0)
    loss = dict(type='InfoNCE', temperature=tau)
    cfg = dict(
        type=type,
        backbone=conv_net(),
        neck=neck,
        dictionary=dictionary,
        loss=loss,
        m=0.9,
        data_preprocessor=dict(
            type='ViewAugmentor', mean=(128,) * 3, std=(64,) * 3
        ),
    )
    model = MODELS.build(cfg | options)
    model.init_weights()
    model.train()
    for hook in model.needs:
        model.announce(hook)
    return model


def query_parts(model):
    parts = [model.backbone, model.neck]
    return [*parts, model.predictor] if hasattr(model, 'predictor') else parts


def weights(*modules):
    return [v for m in modules for v in m.state_dict().values()]


def parameters(*modules):
    return [p for m in modules for p in m.parameters()]


def optim_wrapper(model, accumulation=1, lr=SGD['lr'], **kwargs):
    return ContrastOptimWrapper(
        optimizer=torch.optim.SGD(
            [p for p in model.parameters() if p.requires_grad],
            lr=lr,
            momentum=SGD['momentum'],
            weight_decay=SGD['decay'],
        ),
        accumulative_counts=accumulation,
        **kwargs,
    )


def batches(steps, batch, seed=1):
    draws = torch.Generator().manual_seed(seed)
    shape = (steps, 2, batch, 3, 8, 8)
    return torch.randint(0, 256, shape, generator=draws, dtype=torch.uint8)


def train_step(
    model, wrapper, views, step, ids=None, names=('view_q', 'view_k')
):
    """What the runner and the two update hooks do in one iteration."""
    model.set_address(seed=0, step=step, rank=0)
    data = {
        'inputs': dict(zip(names, views, strict=True)),
        'ids': torch.arange(len(views[0])) if ids is None else ids,
    }
    log = model.train_step(data, wrapper)
    if wrapper.stepped:
        model.update_key_encoder(model.momentum_at((step + 1) / STEPS))
        model.commit_keys()
    elif wrapper.should_update():
        model.discard_keys()
    return log


#: What float32 may add up to, in the unit of a tensor's largest value if
#: that is above 1; gradients are sums of many terms.
BOUND, GRADIENTS = 2e-5, 1.1e-4

#: Where steps of a small network without a predictor are followed.
EXACT = 1e-5


def close(actual, expected, bound=BOUND):
    """Fail beyond the bound; else return the largest difference."""
    actual, expected = list(actual), list(expected)
    assert len(actual) == len(expected)
    largest = 0.0
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=bound * unit_of(b))
        apart = (a.detach() - b.detach()).abs().max() / unit_of(b)
        largest = max(largest, float(apart))
    return largest


def unit_of(tensor):
    return max(1.0, float(tensor.detach().abs().max()))


def follow(model, paper, ids=None, batch=8, m=lambda step: 0.9, **names):
    """Train both side by side; yield the difference after every step.

    The paper moves the key encoder before the key pass; at the first step
    both encoders are equal.
    """
    wrapper, grads = optim_wrapper(model, lr=paper.sgd.lr), []
    wrapper.optimizer.register_step_pre_hook(
        lambda *_: grads.append(
            [p.grad.clone() for p in model.parameters() if p.requires_grad]
        )
    )
    parts = query_parts(model)
    for step, views in enumerate(batches(STEPS, batch)):
        seen = [0.0]
        if paper.f_k is not None:
            if step:
                paper.momentum_update(m(step))
            keys = parameters(model.key_encoder)
            seen.append(close(keys, paper.f_k.parameters()))
        row = torch.arange(batch) if ids is None else ids[step]
        paper.now = step
        loss, expected = paper.step(*map(plain.normalise, views), row)
        log = train_step(model, wrapper, views, step, row, **names)
        seen.append(close([log['loss']], [loss]))
        seen.append(close(grads.pop(), expected, GRADIENTS))
        seen.append(close(parameters(*parts), paper.parameters))
        yield max(seen)
    assert step + 1 == STEPS


def comparison(what, against, seen, over=f'{STEPS} steps', bound=GRADIENTS):
    """Loss, gradients, weights, key encoder and dictionary in one row."""
    return Comparison(
        what,
        against,
        max(seen),
        bound,
        'of the largest value, at least 1',
        over,
    )


def encoder(model, head=plain.mlp_head, **options):
    """The transcribed encoder of v1 or v2, with the model's weights."""
    f = torch.nn.Sequential(plain.ConvNet(**options), head(8, C))
    return plain.take_weights(f, weights(model.backbone, model.neck))


def check_queue(model, ring):
    assert int(model.dictionary.ptr) == ring.ptr
    return close([model.dictionary.keys], [ring.keys])
