"""What an iteration asks of a GPU, counted by benchmarks/launches.py."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

PATH = Path(__file__).parents[2] / 'benchmarks' / 'launches.py'


@pytest.fixture(scope='module')
def launches():
    spec = importlib.util.spec_from_file_location('launches', PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules['launches'] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules['launches']


def test_the_counter_counts(launches):
    x = torch.ones(3, device='meta')
    host = torch.ones(3)

    def act():
        y = x + x.view(3, 1)  # one
        torch._foreach_add_([x, x], [x, x])  # one
        torch._foreach_mul_([x, x], list(x.unbind()[:2]))  # two
        host.to('meta'), y.copy_(host[:1])  # two copies
        float(y.sum()), x.tolist(), x.to('cpu')  # one, and three waits
        torch.empty_like(x), host + host, x[1:]

    found = launches.count(act)
    assert found.totals() == {'launches': 5, 'copies': 2, 'waits': 3}


def test_an_iteration_waits_twice(launches):
    """For the decision to step, and for what is logged: with all hooks."""
    found = launches.iterations(number=7, skip=3)
    assert [one['waits'] for one in found] == [2] * len(found) and found


def test_a_split_batch_is_launched_about_as_one(launches):
    """Per layer: two copies, the statistics, weight and bias repeated."""

    def step(norm):
        layers = [nn.Conv2d(8, 8, 1), norm] * 1
        net = nn.Sequential(*layers).to('meta')
        x = torch.empty(16, 8, 4, 4, device='meta')
        return launches.count(lambda: net(x).sum().backward()).totals()

    from mmmoco.models.norms import SplitBN

    plain = step(nn.BatchNorm2d(8))['launches']
    for splits in (2, 8, 16):
        split = step(SplitBN(8, num_splits=splits))['launches']
        assert split - plain <= 12


def has_norms_of_shapes():
    try:
        torch._foreach_norm([torch.empty(1, device='meta')])
    except NotImplementedError:  # torch 2.1
        return False
    return True


@pytest.mark.skipif(
    not has_norms_of_shapes(), reason='this torch has no norms on meta'
)
def test_lars_has_one_launch_for_a_matrix(launches):
    from mmmoco.engine.optim import LARS

    net = nn.Sequential(*[nn.Linear(4, 4) for _ in range(30)]).to('meta')
    optimizer = LARS(net.parameters(), lr=0.1)
    for p in net.parameters():
        p.grad = torch.empty_like(p)
    optimizer.step()
    assert launches.count(optimizer.step).totals() == {
        'launches': pytest.approx(30 + 20, abs=15),
        'copies': 0,
        'waits': 0,
    }


@pytest.mark.parametrize(
    'config', ['mocov2_r50_8xb32', 'mocov3_vit-s_8xb128_300e']
)
def test_the_parameters_of_a_view_travel_in_one_copy(launches, config):
    for found in launches.views(config).values():
        totals = found.totals()
        assert totals['copies'] == 1 and totals['waits'] == 0
        assert totals['launches'] <= 100
