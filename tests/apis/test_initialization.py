"""One switch for what downstream models start from."""

import copy

import pytest
import torch
from mmengine.config import Config

from mmmoco.apis import cli
from mmmoco.apis.config.initialization import initialize
from mmmoco.apis.training.jobs import train
from mmmoco.engine.checkpoint_io import CheckpointError

PRETRAINED = dict(type='Pretrained', checkpoint='', prefix='backbone.')
C4 = dict(
    model=dict(
        type='FasterRCNN',
        backbone=dict(type='ResNet', depth=50, init_cfg=PRETRAINED),
        neck=[dict(type='FPN', init_cfg=dict(type='Xavier'))],
        roi_head=dict(
            shared_head=dict(
                type='ResLayerExtraNorm',
                depth=50,
                init_cfg=[dict(type='Kaiming'), PRETRAINED],
            )
        ),
    ),
    custom_hooks=[
        dict(type='mmmoco.VerifyPretrainedHook'),
        dict(type='EMAHook'),
    ],
)


@pytest.fixture
def config():
    return Config(copy.deepcopy(C4))


def parts_of(cfg):
    backbone = cfg.model.backbone.init_cfg
    return backbone, cfg.model.roi_head.shared_head.init_cfg[-1]


@pytest.mark.parametrize(
    'key, prefix', [('backbone.conv1.weight', 'backbone.'), ('conv1.w', None)]
)
def test_every_part_gets_the_file_and_its_prefix(
    config, tmp_path, key, prefix
):
    path = str(tmp_path / 'x.pth')
    torch.save({'state_dict': {key: torch.ones(1)}}, path)
    initialize(config, path)
    for part in parts_of(config):
        assert part.type == 'Pretrained'
        assert part.checkpoint == path
        assert part.get('prefix') == prefix
    assert config.model.neck[0].init_cfg == dict(type='Xavier')
    assert len(config.custom_hooks) == 2
    text = config.initialization
    assert 'model.backbone, model.roi_head.shared_head' in text
    assert path in text and (prefix or 'no prefix') in text


@pytest.mark.parametrize('source', ['supervised', 'random'])
def test_a_teacher_keeps_its_own_file(config, source):
    net = dict(init_cfg=dict(type='Pretrained', checkpoint='t.pth'))
    teachers = [net, dict(type='Teacher', backbone=net)]
    config.model.teacher = copy.deepcopy(teachers)
    initialize(config, source)
    assert config.model.teacher == teachers
    config.model = dict(teacher=net)
    with pytest.raises(ValueError, match='nothing would be initialised'):
        initialize(config, source)


def test_supervised_weights_are_those_of_torchvision(config):
    initialize(config, 'supervised')
    for part in parts_of(config):
        assert part.checkpoint == 'torchvision://resnet50'
        assert 'prefix' not in part
    assert len(config.custom_hooks) == 2


def test_random_loads_nothing_and_verifies_nothing(config):
    initialize(config, 'random')
    assert config.model.backbone.init_cfg is None
    head = config.model.roi_head.shared_head
    assert head.init_cfg == [dict(type='Kaiming')]
    assert [hook.type for hook in config.custom_hooks] == ['EMAHook']
    assert 'random' in config.initialization


@pytest.mark.parametrize(
    'backbone', [dict(type='mmpretrain.VisionTransformer'), dict(depth=26)]
)
def test_no_supervised_weights_for_what_torchvision_lacks(config, backbone):
    config.model.backbone.update(backbone)
    with pytest.raises(ValueError, match=r'model\.backbone is a .*--init FI'):
        initialize(config, 'supervised')


def test_parts_of_two_depths(config):
    config.model.backbone.depth = 18
    with pytest.raises(ValueError, match='resnet18, torchvision://resnet50'):
        initialize(config, 'supervised')


def test_a_file_that_is_not_there_or_no_checkpoint(config, tmp_path):
    before = copy.deepcopy(config.model.to_dict())
    with pytest.raises(FileNotFoundError, match=r"'gone\.pth' does not exist"):
        initialize(config, 'gone.pth')
    path = tmp_path / 'x.pth'
    path.write_text('no weights')
    with pytest.raises(CheckpointError, match='no checkpoint'):
        initialize(config, str(path))
    assert config.model.to_dict() == before


@pytest.mark.parametrize(
    'argv, message',
    [
        (['--init', 'random'], '--init random: the model of this config has'),
        (['--init', 'gone.pth'], '--init gone.pth: the model of this config'),
        (['--init', 'random', '--load-from', 'x'], 'give one of them'),
    ],
)
def test_the_tool_says_so_in_one_line(argv, message, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(train, ['demo/mocov2_digits', *argv])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error and 'Traceback' not in error
