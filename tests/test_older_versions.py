"""What stands in for newer torch and Python does the same as they."""

import hashlib
import io

import pytest
import torch
from torch import nn

from mmmoco import older_versions


@pytest.fixture(params=['as installed', 'older'])
def age(request, monkeypatch):
    if request.param == 'older':
        for owner, name in (
            (torch.nn.utils, 'get_total_norm'),
            (nn.Module, 'register_load_state_dict_pre_hook'),
        ):
            monkeypatch.delattr(owner, name, raising=False)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('older', [False, True])
def test_autocast(monkeypatch, dtype, older):
    def ask(device='cpu'):
        with monkeypatch.context() as patch:
            if older:
                patch.delattr(torch, 'get_autocast_dtype', raising=False)
            return older_versions.autocasts_to(dtype, device)

    assert not ask()
    with torch.autocast('cpu', torch.bfloat16):
        assert ask() == (dtype == torch.bfloat16)
        assert not ask('cuda')


def test_norm(age):
    tensors = [torch.full((2, 8), 1.5), torch.zeros(3, 1), torch.ones(())]
    norm = older_versions.get_total_norm(tensors)
    assert norm.item() == pytest.approx(37**0.5)
    assert not older_versions.get_total_norm([])


def test_hook(age):
    seen = []
    model = nn.Sequential(nn.Linear(2, 2))

    def hook(module, state_dict, prefix, *_):
        seen.append((module, list(state_dict), prefix))

    handle = older_versions.before_loading(model, hook)
    model.load_state_dict(model.state_dict())
    assert seen == [(model, ['0.weight', '0.bias'], '')]
    handle.remove()
    model.load_state_dict(model.state_dict())
    assert len(seen) == 1


def test_digest():
    data = bytes(range(256)) * 3000
    expected = hashlib.sha256(data).hexdigest()
    assert older_versions.sha256_of(io.BytesIO(data)) == expected


def test_scaler():
    scaler = older_versions.GradScaler('cuda', init_scale=4.0, enabled=False)
    assert not scaler.is_enabled()
