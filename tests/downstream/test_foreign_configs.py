"""tools/train.py and test.py run the configs of the other libraries.

On embedded scenes, written to disk in each library's layout.
"""

import runpy
import sys
from pathlib import Path

import pytest

from mmmoco.apis.probing.jobs import test as run_test
from mmmoco.apis.training.jobs import train

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.downstream, pytest.mark.slow]

LOADER = 'batch_size=2, num_workers=0, persistent_workers=False'

MMPRETRAIN = """
_base_ = 'mmpretrain::resnet/resnet18_8xb32_in1k.py'
model = dict(head=dict(num_classes=10, topk=(1, 5)))
data = dict(
    {loader},
    dataset=dict(_delete_=True, type='CustomDataset', data_root='{root}',
                 data_prefix='PART', with_label=True, pipeline=[
        dict(type='LoadImageFromFile'), dict(type='Resize', scale=(32, 32)),
        dict(type='PackInputs')]))
images = data['dataset']
train_dataloader = data | dict(dataset=images | dict(data_prefix='train'))
val_dataloader = data | dict(dataset=images | dict(data_prefix='val'))
test_dataloader = val_dataloader
"""

MMDET = """
_base_ = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
classes = tuple('0123456789')
model = dict(
    backbone=dict(init_cfg=None),
    bbox_head=dict(num_classes=10),
    test_cfg=dict(score_thr=0.0, max_per_img=5))
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(96, 96), keep_ratio=True),
    dict(type='PackDetInputs')]
train_dataloader = dict({loader}, dataset=dict(
    data_root='{root}', ann_file='annotations/instances_train.json',
    data_prefix=dict(img='train/'), metainfo=dict(classes=classes),
    pipeline=pipeline))
pipeline[-1] = dict(type='PackDetInputs')
val_dataloader = dict({loader}, dataset=dict(
    data_root='{root}', ann_file='annotations/instances_val.json',
    data_prefix=dict(img='val/'), metainfo=dict(classes=classes),
    pipeline=[*pipeline[:1], pipeline[2], pipeline[1], dict(
        type='PackDetInputs', meta_keys=(
            'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file='{root}/annotations/instances_val.json')
test_evaluator = val_evaluator
"""

MMSEG = """
_base_ = 'mmseg::fcn/fcn_r18-d8_4xb2-80k_cityscapes-512x1024.py'
crop = (64, 64)
model = dict(
    pretrained=None,
    data_preprocessor=dict(size=crop))
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomCrop', crop_size=crop),
    dict(type='PackSegInputs')]
train_dataloader = dict({loader}, dataset=dict(
    data_root='{root}', pipeline=pipeline))
val_dataloader = dict({loader}, dataset=dict(
    data_root='{root}', pipeline=[
        dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
        dict(type='PackSegInputs')]))
val_dataloader['batch_size'] = 1
test_dataloader = val_dataloader
"""


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    """Written by tools/make_digit_scenes.py, as a user would."""
    out = tmp_path_factory.mktemp('data') / 'scenes'
    argv = [
        'make_digit_scenes.py', str(out), '--num-train', '12', '--num-val',
        '10', '--size', '96', '--seed', '0',
    ]  # fmt: skip
    old, sys.argv = sys.argv, argv
    try:
        runpy.run_path(
            str(ROOT / 'tools' / 'make_digit_scenes.py'), run_name='__main__'
        )
    except SystemExit as stop:
        assert not stop.code
    finally:
        sys.argv = old
    return out


@pytest.mark.parametrize(
    'text', [MMPRETRAIN, MMDET, MMSEG], ids=['mmpretrain', 'mmdet', 'mmseg']
)
def test_train_validate_save_and_test(text, scenes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = tmp_path / 'config.py'
    config.write_text(
        text.replace('{root}', str(scenes)).replace('{loader}', LOADER)
    )
    work = str(tmp_path / 'run')
    train(str(config), work_dir=work, max_iters=2)
    checkpoint = tmp_path / 'run' / 'iter_2.pth'
    assert checkpoint.is_file()
    logs = list((tmp_path / 'run').glob('*/*.log'))
    assert '(val)' in ''.join(log.read_text() for log in logs)
    run_test(str(checkpoint), config=str(config), work_dir=work)
    logs = list((tmp_path / 'run').glob('*/*.log'))
    assert '(test)' in ''.join(log.read_text() for log in logs)
