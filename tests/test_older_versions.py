"""What stands in for newer torch and Python does the same as they."""

import hashlib
import io
import re

import pytest
import torch
from torch import nn

from mmmoco import older_versions
from tests.import_graph import ROOT, sources

from .conftest import optional


@pytest.fixture(params=['as installed', 'older'])
def age(request, monkeypatch):
    if request.param == 'older':
        for owner, name in (
            (torch.nn.utils, 'get_total_norm'),
            (torch.nn.utils, 'clip_grads_with_norm_'),
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


def test_clipping(age):
    x = nn.Parameter(torch.zeros(2, 8))
    x.grad = torch.full((2, 8), 1.5)
    norm = older_versions.get_total_norm([x.grad])
    older_versions.clip_by_norm([x], 7.0, norm)
    assert torch.equal(x.grad, torch.full((2, 8), 1.5))
    older_versions.clip_by_norm([x], 3.0, norm)
    assert x.grad.norm().item() == pytest.approx(3.0)


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


def test_note():
    error = ValueError('a fault')
    older_versions.add_note(error, 'here')
    older_versions.add_note(error, 'there')
    assert error.__notes__ == ['here', 'there']


def test_every_file_is_of_the_oldest_python():
    """Of syntax and libraries; what is called on an object mypy sees."""
    vermin = optional('vermin')
    (floor,) = re.findall(
        r"python_requires='>=([\d.]+)'", (ROOT / 'setup.py').read_text()
    )
    settings = (ROOT / 'pyproject.toml').read_text()
    assert f"target-version = 'py{floor.replace('.', '')}'" in settings
    assert f"python_version = '{floor}'" in settings
    oldest = tuple(map(int, floor.split('.')))

    def newer(text):
        return vermin.detect(text)[1] > oldest

    assert newer('import hashlib; hashlib.file_digest')
    folders = ('mmmoco', 'tools', 'demo', 'benchmarks', 'configs', 'tests')
    folders += ('projects',)
    files = [path for name in folders for path in sources(ROOT / name)]
    assert len(files) > 500
    assert not [path for path in files if newer(path.read_text())]
