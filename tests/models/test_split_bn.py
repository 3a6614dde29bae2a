import pytest
import torch
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
