import torch
from torch import nn

from mmmoco.models.encoders import KeyEncoder


def query():
    torch.manual_seed(0)
    return {
        'backbone': nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)),
        'neck': nn.Linear(2, 2),
    }


def test_copies_are_frozen_and_stay_in_train_mode():
    modules = query()
    keys = KeyEncoder(**modules)
    assert all(not p.requires_grad for p in keys.parameters())
    nn.Module.eval(keys)
    assert all(m.training for m in keys.modules())
    for name, module in modules.items():
        state = getattr(keys, name).state_dict()
        for key, value in module.state_dict().items():
            assert torch.equal(state[key], value)


def test_only_parameters_are_averaged():
    modules = query()
    keys = KeyEncoder(**modules)
    with torch.no_grad():
        for module in modules.values():
            for parameter in module.parameters():
                parameter.add_(1.0)
        modules['backbone'][1].running_mean.fill_(7.0)
    before = [p.clone() for p in keys.parameters()]
    keys.update(modules, 0.75)
    for old, new in zip(before, keys.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.25)
    assert torch.equal(keys.backbone[1].running_mean, torch.zeros(2))


def test_copy_from_takes_buffers_too():
    modules = query()
    keys = KeyEncoder(**modules)
    with torch.no_grad():
        modules['neck'].weight.fill_(3.0)
        modules['backbone'][1].running_mean.fill_(7.0)
    keys.copy_from(modules)
    assert (keys.neck.weight == 3).all()
    assert (keys.backbone[1].running_mean == 7).all()


def test_names_of_the_state_dict():
    names = set(KeyEncoder(**query()).state_dict())
    assert {'backbone.0.weight', 'neck.bias'} <= names
