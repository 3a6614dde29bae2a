"""What an evaluation sees against what the training saw."""

import copy
import json

import pytest
import torch

import mmmoco
from mmmoco.apis import list_configs, load_config
from mmmoco.engine.evaluation.preprocessing import (
    Preprocessing,
    compare,
    compare_evaluation,
    compare_start,
    differences,
    preprocessing_of,
    preprocessing_of_checkpoint,
    preprocessing_of_training,
    preprocessor_of,
)

from ..conftest import optional

RGB = dict(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
PIPELINE = [
    dict(type='mmmoco.LoadRGB'),
    dict(type='mmmoco.ToPIL'),
    dict(type='mmpretrain.torchvision/Resize', size=256),
    dict(type='mmpretrain.torchvision/CenterCrop', size=224),
    dict(type='mmmoco.PackImage'),
]


def splits_of(cfg):
    given = preprocessor_of(cfg)
    return {
        f'knn.{name}': preprocessing_of(
            given, cfg.knn[name].dataset.get('pipeline')
        )
        for name in ('bank', 'query')
    }


def test_shipped_configs_evaluate_as_they_train():
    """And the comparison finds something to compare in them."""
    for name in ('mmdet', 'mmseg', 'mmcv._ext'):
        optional(name)
    compared = 0
    for name in list_configs():
        cfg = load_config(name)
        training = preprocessing_of_training(cfg)
        if 'knn' in cfg:
            assert compare(training, splits_of(cfg)) == [], name
            compared += training.crop is not None
    assert compared > 15


def changed(key):
    """Preprocessor and pipeline, one thing of them otherwise."""
    given, steps = copy.deepcopy(dict(RGB)), copy.deepcopy(PIPELINE)
    if key == 'swapped channels':
        given = {name: values[::-1] for name, values in given.items()}
    elif key == 'doubled std':
        given['std'] = tuple(2 * v for v in given['std'])
    elif key == 'no mean':
        given['mean'] = (0.0, 0.0, 0.0)
    elif key == 'small numbers':
        given = {n: tuple(v / 255 for v in x) for n, x in given.items()}
    elif key == 'BGR':
        steps[0] = dict(type='LoadImageFromFile')
    elif key == 'range of 16 bits':
        steps[0]['range'] = (0, 4095)
    elif key == 'floats':
        steps.insert(4, dict(type='mmpretrain.torchvision/ToTensor'))
    elif key == 'crop':
        steps[3]['size'] = 192
    elif key == 'resize':
        steps[2]['size'] = 224
    elif key == 'interpolation':
        steps[2]['interpolation'] = 'bicubic'
    return given, steps


NAMED = {
    'swapped channels': ['mean', 'std'],
    'doubled std': ['std'],
    'no mean': ['mean'],
    'small numbers': ['mean', 'std'],
    'BGR': ['channel_order'],
    'range of 16 bits': ['input_range'],
    'floats': ['mean', 'std', 'value_range'],
    'crop': ['crop'],
    'resize': ['resize'],
    'interpolation': ['interpolation'],
}


@pytest.mark.parametrize('key', NAMED)
def test_each_difference_is_named_with_both_values(key):
    right = preprocessing_of(RGB, PIPELINE)
    assert differences(right, right, ('a', 'b')) == []
    wrong = preprocessing_of(*changed(key))
    lines = differences(right, wrong, ('the training', 'here'))
    names = [line.split(':')[0] for line in lines]
    assert set(names) == set(NAMED[key]) or (
        key == 'swapped channels' and names == ['mean']
    )
    for line in lines:
        assert 'in the training' in line and 'in here' in line
    if key == 'swapped channels':
        assert 'the channels are swapped' in lines[0]
        assert '[123.675, 116.28, 103.53]' in lines[0]
        assert '[103.53, 116.28, 123.675]' in lines[0]
    if key == 'doubled std':
        assert '58.395' in lines[0] and '116.79' in lines[0]


def test_equal_preprocessing_in_other_words():
    right = preprocessing_of(RGB, PIPELINE)
    # mmpretrain's words, another unit, and the red of DINO.
    theirs = preprocessing_of(
        dict(**RGB, to_rgb=True),
        [
            dict(type='LoadImageFromFile'),
            dict(type='ResizeEdge', scale=256, edge='short'),
            dict(type='CenterCrop', crop_size=224),
            dict(type='PackInputs'),
        ],
    )
    given, steps = changed('small numbers')
    steps.insert(4, dict(type='mmpretrain.torchvision/ToTensor'))
    unit = preprocessing_of(given, steps)
    dino = right._replace(std=(0.228 * 255, 57.12, 57.375))
    for other in (theirs, unit, dino):
        assert differences(right, other, ('a', 'b')) == []
    assert differences(Preprocessing(), right, ('a', 'b')) == []


def test_imported_files_tell_their_values():
    told = dict(
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        channel_order='rgb',
        value_range=255,
    )
    found = preprocessing_of_checkpoint({'preprocessing': told})
    assert (
        differences(found, preprocessing_of(RGB, PIPELINE), ('a', 'b')) == []
    )
    swapped = preprocessing_of(*changed('BGR'))
    (line,) = differences(found, swapped, ('the file', 'here'))
    assert line == 'channel_order: rgb in the file, bgr in here'
    unit = {n: [v / 255 for v in RGB[n]] for n in RGB}
    told = dict(**unit, channel_order='rgb', value_range=1)
    found = preprocessing_of_checkpoint({'preprocessing': told})
    assert (
        differences(found, preprocessing_of(RGB, PIPELINE), ('a', 'b')) == []
    )


@pytest.mark.parametrize('text', ['import os', 'a = f()', 'x = [', 7, ''])
def test_a_config_that_cannot_be_read_tells_nothing(text, tmp_path):
    assert preprocessing_of_checkpoint({'cfg': text}) is None
    assert preprocessing_of_checkpoint({}) is None


def test_a_checkpoint_tells_how_it_was_trained(tmp_path, small_config, capsys):
    """Its config is text; the evaluation's differs in both values."""
    cfg = small_config()
    path = tmp_path / 'epoch_1.pth'
    state = mmmoco.get_model(cfg).state_dict()
    torch.save({'state_dict': state, 'meta': {'cfg': cfg.pretty_text}}, path)
    assert compare_evaluation(cfg, str(path)) == []
    other = copy.deepcopy(cfg)
    other.model.data_preprocessor.std = (128.0,)
    lines = compare_evaluation(other, str(path))
    assert lines == ['std: 64 in the training, 128 in the evaluation']
    assert lines[0] in capsys.readouterr().out
    torch.save({'state_dict': state}, path)
    assert compare_evaluation(other, str(path)) == []
    assert 'does not tell' in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize('start', ['init_cfg', 'load_from'])
def test_a_training_names_what_its_start_saw_otherwise(
    tmp_path, small_config, runner_of, start
):
    """Weights of another preprocessing are trained on; the log says so."""
    cfg = small_config()
    path = tmp_path / 'imported.pth'
    state = mmmoco.get_model(cfg).state_dict()
    told = dict(
        mean=[0.5], std=[0.5], channel_order='rgb', value_range=1
    )  # 127.5 and 127.5; the demo divides by 64
    torch.save({'state_dict': state, 'meta': {'preprocessing': told}}, path)
    if start == 'load_from':
        cfg.load_from = str(path)
    else:
        cfg.model.backbone.init_cfg = dict(
            type='Pretrained', checkpoint=str(path), prefix='backbone.'
        )
    assert compare_start(cfg) == [
        "std: 0.5 in 'imported.pth', 64 in this training",
        "value_range: 1 in 'imported.pth', 255 in this training",
    ]
    runner_of(cfg).train()
    logs = ''.join(p.read_text() for p in (tmp_path / 'run').rglob('*.log'))
    assert logs.count("std: 0.5 in 'imported.pth'") == 1
    told.update(std=[64 / 255])
    torch.save({'state_dict': state, 'meta': {'preprocessing': told}}, path)
    assert compare_start(cfg) == []


@pytest.mark.slow
def test_a_deviation_stands_in_log_and_results(
    tmp_path, small_config, runner_of
):
    """Bank and query that are seen otherwise, watched during a training."""
    cfg = small_config(knn=True)
    crop = dict(type='mmpretrain.torchvision/CenterCrop', size=12)
    cfg.knn.query.dataset.pipeline = [crop, dict(type='PackImage')]
    runner_of(cfg).train()
    line = 'crop: 16 in the training, 12 in knn.query'
    lines = (tmp_path / 'run/results.jsonl').read_text().splitlines()
    remarks = [json.loads(text)['remarks'] for text in lines]
    assert all(r['eyes'] == [line] for r in remarks) and remarks
    logs = ''.join(p.read_text() for p in (tmp_path / 'run').rglob('*.log'))
    assert logs.count(line) == 1
