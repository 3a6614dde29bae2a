"""Classes against annotation, heads and masks: what is said, each kind."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement, PixelData
from torch import nn

from mmmoco.convert.anatomy import called
from mmmoco.engine.checkpoint_io import CheckpointError, Fit, load
from mmmoco.engine.checkpoint_io.fitting import require
from mmmoco.engine.class_checks import (
    check_classes,
    check_labels,
    emptied_explained,
)
from mmmoco.engine.endings import ExpectedEnd

NAMES = ['cat', 'dog', 'cow']


class DenseHead(nn.Module):
    ignore_index = 255

    def __init__(self, num_classes):
        super().__init__()
        self.num_classes = num_classes


def model_of(count):
    model = nn.Module()
    model.decode_head = model.head = DenseHead(count)
    return model


@pytest.fixture
def file(tmp_path):
    path = tmp_path / 'a.json'
    path.write_text(json.dumps({'categories': [{'name': n} for n in NAMES]}))
    return str(path)


def data_of(file, classes):
    matched = [n for n in NAMES if n in classes]
    part = SimpleNamespace(
        metainfo=dict(classes=tuple(classes)), ann_file=file, cat_ids=matched
    )
    return SimpleNamespace(dataset=SimpleNamespace(datasets=[part]))


@pytest.mark.parametrize(
    'classes, heads, words',
    [
        (NAMES, 3, None),
        (['cat', 'cow'], 2, None),
        (['cat', 'bird', 'cow'], 3, r'a\.json has no class bird, of the 3'),
        (['dog', 'cat', 'cow'], 3, r"classes=\('cat', 'dog', 'cow'\)"),
        (NAMES, 2, 'decode_head.num_classes is 2, and train has 3'),
        (NAMES, 5, None),
    ],
)
def test_names_order_and_number(classes, heads, words, file, capsys):
    arguments = data_of(file, classes), model_of(heads), 'train'
    if words:
        with pytest.raises(ValueError, match=words) as error:
            check_classes(*arguments)
        assert '\n' not in str(error.value)
    else:
        check_classes(*arguments)
        said = ''.join(capsys.readouterr())
        assert ('the rest learns nothing' in said) == (heads > len(classes))


@pytest.mark.parametrize(
    'classes, words',
    [
        (['bird'], 'the config has the classes bird, the file cat, dog, cow; '
                   'none of them match'),
        (['cat'], 'cat of them match'),
        (None, "its type's classes, the file cat, dog, cow"),
    ],
)  # fmt: skip
def test_an_emptied_data_set_tells_both_sides(classes, words, file):
    loader = dict(dataset=dict(dataset=dict(ann_file=file)))
    if classes:
        loader['dataset']['dataset']['metainfo'] = dict(classes=classes)
    with (
        pytest.raises(ValueError, match=words) as error,
        emptied_explained(loader, 'train_dataloader'),
    ):
        np.concatenate([])
    assert file in str(error.value) and '\n' not in str(error.value)
    with (
        pytest.raises(ValueError, match='^another$'),
        emptied_explained(loader, 'train_dataloader'),
    ):
        raise ValueError('another')


@pytest.mark.parametrize('worst', [2, 255, 3])
@pytest.mark.parametrize('field', ['gt_sem_seg', 'gt_label'])
def test_a_label_beyond_the_classes_names_its_file(field, worst):
    labels = torch.tensor([[0, 1], [2, worst]])
    sample = BaseDataElement(
        metainfo=dict(seg_map_path='m.png', img_path='m.png')
    )
    value = PixelData(data=labels[None])
    sample.set_data({field: value if field == 'gt_sem_seg' else labels})
    batch = dict(data_samples=[sample])
    if worst == 3:
        with pytest.raises(ExpectedEnd, match=r'^m\.png: label 3 in 1'):
            check_labels(batch, model_of(3))
    else:
        check_labels(batch, model_of(3))
    check_labels(batch, nn.Module())


def test_networks_are_called_by_their_names():
    import torchvision.models as models

    for depth in (18, 34, 50, 101):
        with torch.device('meta'):
            state = getattr(models, f'resnet{depth}')().state_dict()
        names = [f'encoder_q.{name}' for name in state]
        assert called(names) == f'ResNet-{depth}'
        assert called([n for n in names if 'layer4' not in n]) is None
    vit = [f'backbone.layers.{i}.ln1.weight' for i in range(6)]
    assert called(vit) == 'ViT of 6 blocks'
    assert called(['backbone.stages.0.conv.weight']) is None
    assert called(['layers.0.ln1.weight', 'layers.x.y']) == 'ViT of 1 blocks'


def test_weights_that_cannot_be_downloaded(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))

    def fail(*_):
        raise OSError('no route to host')

    monkeypatch.setattr(torch.hub, 'download_url_to_file', fail)
    with pytest.raises(CheckpointError) as error:
        load('torchvision://resnet50')
    line = str(error.value)
    assert '\n' not in line and 'no route to host' in line
    assert f'into {tmp_path}/hub/checkpoints' in line and '--init FILE' in line
    assert 'Put resnet50-' in line


@pytest.mark.parametrize('own, theirs', [(50, 101), (101, 50)])
def test_another_depth_is_said_in_words(own, theirs):
    import torchvision.models as models

    with torch.device('meta'):
        states = [
            getattr(models, f'resnet{depth}')().state_dict()
            for depth in (own, theirs)
        ]
    fit = Fit.of(*states)
    words = [f'a ResNet-{theirs} file, a ResNet-{own} model']
    assert fit.other_network() == words
    with pytest.raises(CheckpointError, match=words[0]):
        require(fit, 'ResNet', 'a.pth', needed=(), allow_extra=('*',))
    require(fit, 'ResNet', 'a.pth', needed=(), partial=True)
    assert Fit.of(states[0], states[0]).other_network() == []
