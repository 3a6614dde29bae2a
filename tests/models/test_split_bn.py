from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmmoco.models.norms import SplitBN


def pair(splits=4, channels=3):
    torch.manual_seed(0)
    ours = SplitBN(channels, num_splits=splits)
    plain = nn.BatchNorm2d(channels)
    nn.init.normal_(ours.weight)
    nn.init.normal_(ours.bias)
    plain.load_state_dict(ours.state_dict())
    return ours, plain


def test_every_split_is_normalised_by_itself():
    ours, plain = pair()
    x = torch.randn(8, 3, 5, 5, requires_grad=True)
    out = ours(x)
    means, variances = [], []
    for split in range(4):
        rows = slice(2 * split, 2 * split + 2)
        reference = nn.BatchNorm2d(3, momentum=1.0)
        reference.load_state_dict(plain.state_dict())
        torch.testing.assert_close(out[rows], reference(x[rows]))
        means.append(reference.running_mean)
        variances.append(reference.running_var)
    torch.testing.assert_close(
        ours.running_mean, 0.1 * torch.stack(means).mean(0)
    )
    torch.testing.assert_close(
        ours.running_var, 0.9 + 0.1 * torch.stack(variances).mean(0)
    )
    (grad,) = torch.autograd.grad(out.square().sum(), x)
    assert torch.isfinite(grad).all()


def test_one_split_and_evaluation_are_batch_norm():
    x = torch.randn(6, 3, 4, 4)
    ours, plain = pair(splits=1)
    assert torch.equal(ours(x), plain(x))
    assert torch.equal(ours.running_var, plain.running_var)
    ours, plain = pair(splits=4)
    ours.eval(), plain.eval()
    assert torch.equal(ours(x), plain(x))


def test_channels_last_gives_the_same():
    ours, _ = pair()
    other, _ = pair()
    x = torch.randn(8, 3, 4, 4)
    out = other(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(ours(x), out)
    torch.testing.assert_close(ours.running_var, other.running_var)


def test_state_dict_is_that_of_batch_norm():
    ours, plain = pair()
    assert list(ours.state_dict()) == list(plain.state_dict())
    plain.load_state_dict(ours.state_dict())
    assert isinstance(ours, nn.modules.batchnorm._BatchNorm)


def test_an_odd_batch_says_what_to_change():
    ours, _ = pair(splits=4)
    with pytest.raises(ValueError, match='batch of 6.*4.*num_splits'):
        ours(torch.randn(6, 3, 4, 4))
    with pytest.raises(ValueError, match='at least 1'):
        SplitBN(3, num_splits=0)


def test_named_from_a_config_of_openmmlab():
    from mmcv.cnn import build_norm_layer

    name, layer = build_norm_layer(
        dict(type='mmmoco.SplitBN', num_splits=2), 8, postfix=1
    )
    assert name == 'bn1' and isinstance(layer, SplitBN)
    assert layer.num_splits == 2


def three_steps(norm, way, images):
    """Outputs, gradients and statistics of both ways to compute it."""
    found = []
    for x in images:
        x = x.clone(memory_format=torch.preserve_format).requires_grad_()
        statistics = torch.zeros(2, norm.num_splits, norm.num_features)
        output = way(norm, x, statistics)
        if norm.track_running_stats:
            norm._update_running_stats(*statistics.mean(1))
        output.square().mul(
            torch.arange(norm.num_features).view(1, -1, *[1] * (x.dim() - 2))
        ).sum().backward()
        found += [output, x.grad, statistics]
    return found + [p.grad for p in norm.parameters()] + list(norm.buffers())


@pytest.mark.parametrize('layout', ['N×C', 'N×C×H×W', 'channels_last'])
@pytest.mark.parametrize(
    'options',
    [
        {},
        {'momentum': None},
        {'affine': False},
        {'track_running_stats': False},
    ],
    ids=str,
)
def test_all_parts_at_once_are_the_parts_one_by_one(layout, options):
    """What a GPU computes is what a CPU does, to the last digits."""
    torch.manual_seed(1)
    for splits, width, rows in ((2, 3, 4), (4, 8, 12), (8, 5, 16)):
        shape = (rows, width) if layout == 'N×C' else (rows, width, 5, 3)
        images = 3 * torch.randn(3, *shape) + 1
        if layout == 'channels_last':
            images = [
                x.contiguous(memory_format=torch.channels_last) for x in images
            ]
        norms = [SplitBN(width, num_splits=splits, **options) for _ in '12']
        for norm in norms:
            if norm.affine:
                with torch.no_grad():
                    norm.weight.copy_(torch.linspace(-1, 2, width))
                    norm.bias.copy_(torch.linspace(1, -1, width))
        one, other = (
            three_steps(norm, way, images)
            for norm, way in zip(
                norms,
                (SplitBN._part_by_part, SplitBN._all_parts_at_once),
                strict=True,
            )
        )
        for a, b in zip(one, other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=2e-5)
            assert a.stride() == b.stride()  # The memory format is kept.


def test_a_gpu_gets_one_normalisation_whatever_the_splits():
    """On the meta device, which goes a GPU's way."""
    shape, norm = (16, 4, 3, 3), SplitBN(4, num_splits=8).to('meta')
    with mock.patch.object(F, 'batch_norm', wraps=F.batch_norm) as spy:
        output = norm(torch.empty(shape, device='meta'))
    assert output.shape == shape and spy.call_count == 1
    with mock.patch.object(F, 'batch_norm', wraps=F.batch_norm) as spy:
        pair(splits=4)[0](torch.randn(8, 3, 2, 2))
    assert spy.call_count == 4
