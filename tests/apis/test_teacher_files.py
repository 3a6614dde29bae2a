"""Files of DINOv2 and DINOv3 from import to export, with their licence."""

import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.registry import DefaultScope

import mmmoco
from mmmoco.apis.exchange.jobs import export_backbone, import_checkpoint
from mmmoco.engine import checkpoint_io
from mmmoco.engine.checkpoint_io import layouts
from mmmoco.engine.pretrained import initialize
from mmmoco.registry import MODELS

from ..conftest import optional
from ..convert.teacher_layouts import SMALL, file_of, network

pytestmark = pytest.mark.slow
VIT2, VIT3 = 'vit_small_patch14_reg4_dinov2', 'vit_small_patch16_dinov3_qkvb'
KINDS = {VIT2: 'dinov2', VIT3: 'dinov3', 'convnext_tiny': 'convnext'}
LICENSE = 'dinov3-license'
X = torch.randn(2, 3, 112, 112, generator=torch.manual_seed(0))


def imported(tmp_path, name, suffix='.pth', monkeypatch=None):
    """Import a file as its authors write it; return timm's network, too."""
    net = network(name, **SMALL[KINDS[name]])
    source = tmp_path / 'theirs.pth'
    torch.save(file_of(net.state_dict(), 'original'), source)
    out = tmp_path / f'ours{suffix}'
    heads = 2 if name == VIT2 else None
    report = import_checkpoint(str(source), str(out), num_heads=heads)
    return net, str(out), str(report)


def features(net, x):
    out = net.forward_features(x)
    if out.dim() == 4:
        return net.forward_head(out, pre_logits=True)
    return out[:, 0]


@torch.no_grad()
@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
@pytest.mark.parametrize('name', KINDS)
def test_an_imported_file_tells_everything(name, suffix, tmp_path):
    net, path, report = imported(tmp_path, name, suffix)
    licensed = name != VIT2
    assert (LICENSE in report) == licensed
    assert 'mean [123.675, 116.28, 103.53]' in report
    dropped = ('mask_token', 'bias_mask', 'periods', 'norms.3.weight')
    source = torch.load(tmp_path / 'theirs.pth')
    for key in source:
        assert key in report or not any(d in key for d in dropped), key
    meta = checkpoint_io.read(path)['meta']
    assert meta.get('license') == (LICENSE if licensed else None)
    own = mmmoco.get_model(None, path).extract_feat(X)
    torch.testing.assert_close(own, features(net, X), atol=1e-4, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize('name', KINDS)
def test_a_licence_goes_with_the_weights(name, tmp_path):
    net, path, _ = imported(tmp_path, name)
    out = export_backbone(path, str(tmp_path / 'out'))
    head, body = (out.path / 'README.md').read_text().split('---\n')[1:]
    head = yaml.safe_load(head)
    if name == VIT2:
        assert head['license'] == 'unknown' and 'license_name' not in head
    else:
        assert head['license'] == 'other' and head['license_name'] == LICENSE
        assert f'`{LICENSE}` ({head["license_link"]})' in body
        again = export_backbone(path, str(tmp_path / 'mit'), license='mit')
        assert any(LICENSE in note for note in again.notes)
        assert not any(LICENSE in note for note in out.notes)
        file = export_backbone(path, str(tmp_path / 'f'), to='mmpretrain')
        assert file.notes == (f'the weights are under {LICENSE}',)
        assert checkpoint_io.read(file.path)['meta']['license'] == LICENSE
    if name != 'convnext_tiny':
        timm = optional('timm')
        folder = f'local-dir:{out.path}'
        theirs = timm.create_model(folder, pretrained=True).eval()
        torch.testing.assert_close(theirs(X), features(net, X))
        assert theirs.pretrained_cfg['license'] == head.get(
            'license_name', 'unknown'
        )


@torch.no_grad()
def test_large_files_are_read_once(tmp_path, monkeypatch):
    """Import, and a network that starts from the imported file."""
    calls, load = [], layouts.load

    def counted(file, *args):
        calls.append(file.name)
        return load(file, *args)

    monkeypatch.setattr(layouts, 'load', counted)
    net, path, _ = imported(tmp_path, VIT3)
    assert calls == [str(tmp_path / 'theirs.pth')]
    told = checkpoint_io.read(path)['meta']['imported']['model']
    del calls[:]
    init = dict(type='Pretrained', checkpoint=path, prefix='backbone.')
    with DefaultScope.overwrite_default_scope('mmmoco'):
        student = MODELS.build(Config({**told, 'init_cfg': init}).to_dict())
    initialize(student)
    own = student.eval()(X)[-1]
    torch.testing.assert_close(own, features(net, X), atol=1e-4, rtol=0)
    assert calls.count(path) == 2  # Its weights, and what it tells.
