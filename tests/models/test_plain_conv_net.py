import pytest
import torch
from mmengine.model import revert_sync_batchnorm
from torch import nn

from mmmoco.models.backbones import PlainConvNet
from mmmoco.registry import MODELS


def test_feature_maps_of_the_chosen_stages():
    net = MODELS.build(dict(type='PlainConvNet', out_indices=(0, 2, 3)))
    maps = net(torch.rand(2, 3, 16, 16))
    assert isinstance(maps, tuple)
    assert [tuple(m.shape) for m in maps] == [
        (2, 16, 16, 16),
        (2, 64, 4, 4),
        (2, 128, 2, 2),
    ]


def test_the_last_stage_is_the_default():
    (last,) = PlainConvNet(in_channels=1)(torch.rand(1, 1, 33, 21))
    assert last.shape == (1, 128, 5, 3)


def test_state_dict_has_plain_names():
    net = PlainConvNet(channels=(4, 8), strides=(1, 2), out_indices=(1,))
    norm = ['weight', 'bias', 'running_mean', 'running_var']
    norm.append('num_batches_tracked')
    assert list(net.state_dict()) == [
        f'stages.{stage}.{name}'
        for stage in range(2)
        for name in ['conv.weight', *(f'bn.{n}' for n in norm)]
    ]


def test_it_is_four_convolutions_with_batch_norm_and_relu():
    net = PlainConvNet(in_channels=1).eval()
    x = torch.randn(2, 1, 16, 16)
    state = net.state_dict()
    y = x
    for i, stride in enumerate((1, 2, 2, 2)):
        p = f'stages.{i}.'
        y = nn.functional.conv2d(
            y, state[p + 'conv.weight'], stride=stride, padding=1
        )
        y = nn.functional.batch_norm(
            y,
            state[p + 'bn.running_mean'],
            state[p + 'bn.running_var'],
            state[p + 'bn.weight'],
            state[p + 'bn.bias'],
        ).relu()
    torch.testing.assert_close(net(x)[0], y)


@pytest.mark.parametrize('frozen', [-1, 0, 2])
def test_frozen_stages_neither_learn_nor_move(frozen):
    net = PlainConvNet(frozen_stages=frozen).train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    net(torch.rand(4, 3, 16, 16))[0].sum().backward()
    torch.optim.SGD(
        [p for p in net.parameters() if p.requires_grad], lr=1.0
    ).step()
    for key, value in net.state_dict().items():
        stage = int(key.split('.')[1])
        assert torch.equal(value, before[key]) == (stage <= frozen), key


def test_norm_eval_keeps_the_statistics():
    net = PlainConvNet(norm_eval=True).train()
    before = net.stages[0].bn.running_mean.clone()
    net(torch.rand(4, 3, 16, 16))
    assert torch.equal(net.stages[0].bn.running_mean, before)
    assert net.training and net.stages[0].bn.weight.requires_grad


def test_other_norm_layers():
    net = PlainConvNet(norm_cfg=dict(type='mmmoco.SplitBN', num_splits=2))
    assert net.state_dict().keys() == PlainConvNet().state_dict().keys()
    assert net.stages[3].bn.num_splits == 2
    synced = PlainConvNet(norm_cfg=dict(type='SyncBN'))
    assert synced.state_dict().keys() == PlainConvNet().state_dict().keys()
    revert_sync_batchnorm(synced)(torch.rand(2, 3, 16, 16))


def test_weights_come_from_a_prefix_of_a_checkpoint(tmp_path):
    trained = PlainConvNet()
    state = {f'backbone.{k}': v for k, v in trained.state_dict().items()}
    file = tmp_path / 'model.pth'
    torch.save({'state_dict': state}, file)
    net = PlainConvNet(
        init_cfg=dict(
            type='Pretrained', checkpoint=str(file), prefix='backbone.'
        )
    )
    net.init_weights()
    for key, value in net.state_dict().items():
        assert torch.equal(value, state[f'backbone.{key}'])


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(channels=(8, 8)), '2 channels but 4 strides'),
        (dict(channels=(), strides=()), '0 channels'),
        (dict(out_indices=(4,)), 'out_indices.*0 to 3'),
        (dict(out_indices=()), 'out_indices'),
        (dict(frozen_stages=4), 'frozen_stages=4'),
    ],
)
def test_arguments_that_do_not_fit(kwargs, message):
    with pytest.raises(ValueError, match=message):
        PlainConvNet(**kwargs)
