"""LARS against its formula, tensor by tensor."""

import pytest
import torch
from torch import nn

from mmmoco.engine.optim import LARS

from ..comparison import Comparison, check


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2)
    )


def all_comparisons(steps=50):
    """Every tensor after every step."""
    model, worst = net(), 0.0
    lr, momentum, decay, trust = 0.5, 0.9, 0.01, 0.001
    optimizer = LARS(
        model.parameters(),
        lr=lr,
        momentum=momentum,
        weight_decay=decay,
        trust=trust,
    )
    weights = [p.detach().double().clone() for p in model.parameters()]
    buffers = [torch.zeros_like(w) for w in weights]
    for step in range(steps):
        for group in optimizer.param_groups:
            group['lr'] = lr / (step + 1)  # a schedule
        model(torch.randn(8, 3, 4, 4)).square().sum().backward()
        for p, w, b in zip(model.parameters(), weights, buffers, strict=True):
            d = p.grad.double()
            if w.ndim > 1:
                d = d + decay * w
                d = d * trust * w.norm() / d.norm()
            b.mul_(momentum).add_(d)
            w.sub_(lr / (step + 1) * b)
        optimizer.step()
        optimizer.zero_grad()
        for p, w in zip(model.parameters(), weights, strict=True):
            apart = (p.detach().double() - w).abs().max()
            worst = max(worst, float(apart / w.abs().max().clamp(min=1.0)))
    yield Comparison(
        'LARS',
        'its formula in double precision',
        worst,
        5e-5,
        'of the largest value, at least 1',
        f'{steps} steps',
    )


def test_steps_follow_the_formula():
    check(all_comparisons())


def test_exclusion_goes_by_rank_not_by_name():
    """A one-dimensional tensor moves as by SGD without decay."""
    flat = nn.Parameter(torch.ones(3))
    matrix = nn.Parameter(torch.ones(3, 1))
    optimizer = LARS([flat, matrix], lr=1.0, weight_decay=0.5)
    for p in (flat, matrix):
        p.grad = torch.full_like(p, 0.25)
    optimizer.step()
    torch.testing.assert_close(flat.data, torch.full((3,), 0.75))
    # (0.25 + 0.5) * trust * |w| / |0.75 w|
    torch.testing.assert_close(matrix.data, torch.full((3, 1), 1 - 0.001))


def test_zeros_do_not_divide():
    zero = nn.Parameter(torch.zeros(2, 2))
    still = nn.Parameter(torch.ones(2, 2))
    optimizer = LARS([zero, still], lr=1.0, momentum=0.0)
    zero.grad = torch.ones(2, 2)
    still.grad = torch.zeros(2, 2)
    optimizer.step()
    assert (zero == -1).all() and (still == 1).all()


def test_state_survives_and_wrong_values_do_not():
    model, twin = net(), net()
    optimizer = LARS(model.parameters(), lr=0.1)
    model(torch.randn(8, 3, 4, 4)).sum().backward()
    optimizer.step()
    other = LARS(twin.parameters(), lr=0.3)
    other.load_state_dict(optimizer.state_dict())
    assert other.param_groups[0]['lr'] == 0.1
    states = list(other.state.values())
    assert all('momentum_buffer' in s for s in states) and states
    with pytest.raises(ValueError, match='trust=-1'):
        LARS(model.parameters(), lr=0.1, trust=-1)


def test_it_is_found_by_its_name():
    from mmmoco.registry import OPTIMIZERS

    built = OPTIMIZERS.build(
        dict(type='LARS', params=net().parameters(), lr=0.1)
    )
    assert type(built) is LARS


class OneByOne(LARS):
    """The same formula, parameter by parameter."""

    def _move(self, grads, group):
        for p, grad in grads.items():
            direction = grad
            if p.ndim > 1:
                direction = grad.add(p, alpha=group['weight_decay'])
                size, change = p.norm(), direction.norm()
                ratio = group['trust'] * size / change
                usable = (size > 0) & (change > 0)
                direction = direction * torch.where(usable, ratio, 1.0)
            state = self.state[p]
            if 'momentum_buffer' not in state:
                state['momentum_buffer'] = torch.zeros_like(p)
            buffer = state['momentum_buffer']
            buffer.mul_(group['momentum']).add_(direction)
            p.add_(buffer, alpha=-group['lr'])


def test_lists_change_no_digit():
    ours, other = net(), net()
    options = dict(lr=0.5, weight_decay=0.01)
    steppers = [
        kind(
            [
                {'params': [p for p in m.parameters() if p.ndim > 1]},
                {
                    'params': [p for p in m.parameters() if p.ndim == 1],
                    'lr': 1,
                },
                {'params': [nn.Parameter(torch.ones(2))]},  # no gradient
            ],
            **options,
        )
        for kind, m in ((LARS, ours), (OneByOne, other))
    ]
    for _ in range(6):
        x = torch.randn(8, 3, 4, 4)
        for model, stepper in zip((ours, other), steppers, strict=True):
            model(x).square().sum().backward()
            stepper.step()
            stepper.zero_grad()
        for a, b in zip(ours.parameters(), other.parameters(), strict=True):
            assert torch.equal(a, b)
