"""Names for other libraries, and the way back."""

import pytest
import torch

from mmmoco.convert.anatomy import below
from mmmoco.convert.exporting import TARGETS, rename_backbone
from mmmoco.convert.importing import import_weights, recognise

from . import layouts


def backbone_of(state):
    return below(import_weights(state).weights, 'backbone.')


def nets():
    return {
        'resnet': backbone_of(layouts.resnet().state_dict()),
        'vit': backbone_of(layouts.vit().state_dict()),
    }


RECOGNISED = {
    'torchvision': {'resnet': 'resnet', 'vit': 'torchvision-vit'},
    'timm': {'resnet': 'resnet', 'vit': 'timm-vit'},
    'mmseg': {'resnet': 'openmmlab', 'vit': 'mmseg-vit'},
    'detectron2': {'resnet': 'detectron2'},
}


@pytest.mark.parametrize('target', TARGETS)
def test_there_and_back_bit_by_bit(target):
    for family, backbone in nets().items():
        if (target, family) == ('detectron2', 'vit'):
            with pytest.raises(ValueError, match='no ViT'):
                rename_backbone(backbone, target)
            continue
        theirs = rename_backbone(backbone, target)
        assert len(theirs) == len(backbone)
        name = RECOGNISED.get(target, {}).get(family, 'openmmlab')
        assert recognise(theirs).name == name
        back = backbone_of(theirs)
        assert back.keys() == backbone.keys()
        for key, value in backbone.items():
            assert torch.equal(back[key], value), key


def test_names_of_detectron2():
    """By key and shape, as its ResNet-C4 and FPN have them."""
    backbone = backbone_of(layouts.resnet(50).state_dict())
    theirs = rename_backbone(backbone, 'detectron2')
    expected = {
        'stem.conv1.weight': (64, 3, 7, 7),
        'stem.conv1.norm.weight': (64,),
        'res2.0.shortcut.weight': (256, 64, 1, 1),
        'res2.0.shortcut.norm.running_var': (256,),
        'res3.3.conv2.weight': (128, 128, 3, 3),
        'res3.3.conv2.norm.bias': (128,),
        'res4.5.conv3.norm.running_mean': (1024,),
        'res5.2.conv3.weight': (2048, 512, 1, 1),
    }
    for name, shape in expected.items():
        assert tuple(theirs[name].shape) == shape
    assert not any('bn' in k or 'layer' in k for k in theirs)
    assert torch.equal(
        theirs['res5.0.conv1.norm.bias'], backbone['layer4.0.bn1.bias']
    )


@pytest.mark.parametrize('target', ['mmseg', 'torchvision', 'timm'])
def test_a_convolutional_stem_exists_only_here(target):
    source = layouts.mocov3('vit', stem=True)[0]['state_dict']
    source = {k.removeprefix('module.'): v for k, v in source.items()}
    backbone = backbone_of(source)
    with pytest.raises(ValueError, match='convolutional stem'):
        rename_backbone(backbone, target)
    assert len(rename_backbone(backbone, 'mmpretrain')) == len(backbone)


def test_layer_scale_has_no_place_in_mmseg():
    backbone = backbone_of(layouts.dinov2())
    with pytest.raises(ValueError, match='gamma1'):
        rename_backbone(backbone, 'mmseg')
    assert len(rename_backbone(backbone, 'timm')) == len(backbone)


def test_other_networks_stay_within_openmmlab():
    plain = {'stages.0.conv.weight': torch.ones(4, 3, 3, 3)}
    assert list(rename_backbone(plain, 'mmdet')) == [
        'backbone.stages.0.conv.weight'
    ]
    for target in ('torchvision', 'timm', 'detectron2'):
        with pytest.raises(ValueError, match='--to mmpretrain'):
            rename_backbone(plain, target)
