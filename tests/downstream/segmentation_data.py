"""Digit scenes in the layouts of the segmentation data sets, and options
that make the shipped configs small enough for them."""

import os
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from mmmoco.apis.data.digit_export import export_scenes
from mmmoco.datasets.digit_scenes import DigitScenes

TRAIN, VAL = 4, 2
SIDE = 64


def write_scenes(folder):
    """Write Cityscapes, VOC2012 and ADE20K into a folder; return it."""
    scenes = {
        split: DigitScenes(
            split=split, size=SIDE, digits_per_image=(1, 3), num_scenes=number
        )
        for split, number in (('train', TRAIN), ('val', VAL))
    }
    city = Path(folder) / 'cityscapes'
    export_scenes(city, scenes)
    voc = Path(folder) / 'VOC2012'
    lists = voc / 'ImageSets' / 'Segmentation'
    for place in (
        lists,
        *(voc / name for name in VOC_FOLDERS),
        *(
            Path(folder) / 'ade' / kind / split
            for kind in ('images', 'annotations')
            for split in ADE_SPLITS.values()
        ),
    ):
        place.mkdir(parents=True)
    for split in ('train', 'val'):
        names = []
        for image in sorted(
            (city / 'leftImg8bit' / split).rglob('*_leftImg8bit.png')
        ):
            name = image.name.removesuffix('_leftImg8bit.png')
            name = f'{split}_{name}'
            names.append(name)
            label = Path(
                str(image)
                .replace('leftImg8bit/', 'gtFine/')
                .replace('_leftImg8bit', '_gtFine_labelTrainIds')
            )
            pixels = Image.open(image)
            pixels.save(voc / 'JPEGImages' / f'{name}.jpg')
            ade = Path(folder) / 'ade'
            pixels.save(ade / 'images' / ADE_SPLITS[split] / f'{name}.jpg')
            classes = np.asarray(Image.open(label))
            for part in VOC_FOLDERS[1:]:
                shutil.copyfile(label, voc / part / f'{name}.png')
            # ADE20K counts from 1.
            Image.fromarray(classes + 1).save(
                ade / 'annotations' / ADE_SPLITS[split] / f'{name}.png'
            )
        if split == 'train':
            half = len(names) // 2
            (lists / 'train.txt').write_text('\n'.join(names[:half]))
            (lists / 'aug.txt').write_text('\n'.join(names[half:]))
        else:
            (lists / 'val.txt').write_text('\n'.join(names))
    return Path(folder)


VOC_FOLDERS = ('JPEGImages', 'SegmentationClass', 'SegmentationClassAug')
ADE_SPLITS = {'train': 'training', 'val': 'validation'}
DATA = {'voc12aug': 'VOC2012', 'cityscapes': 'cityscapes', 'ade20k': 'ade'}


def small_options(cfg):
    """Return the ``--cfg-options`` that shrink a config's images to 32."""
    size = '(32, 32)'
    found = {'model.data_preprocessor.size': size}
    if cfg.model.test_cfg.mode == 'slide':
        found['model.test_cfg.crop_size'] = size
        found['model.test_cfg.stride'] = '(24, 24)'
    for loader in ('train', 'val', 'test'):
        place = f'{loader}_dataloader'
        found[f'{place}.num_workers'] = 0
        dataset = cfg[place].dataset
        parts = {f'{place}.dataset': dataset}
        if 'datasets' in dataset:
            parts = {
                f'{place}.dataset.datasets.{i}': part
                for i, part in enumerate(dataset.datasets)
            }
        for name, part in parts.items():
            for i, step in enumerate(part.pipeline):
                step_name = f'{name}.pipeline.{i}'
                if 'Resize' in step.type:
                    found[f'{step_name}.scale'] = f'({SIDE}, {SIDE})'
                if step.type == 'RandomCrop':
                    found[f'{step_name}.crop_size'] = size
                if step.type == 'Pad':
                    found[f'{step_name}.size'] = size
    found['train_dataloader.batch_size'] = 2
    return ['--cfg-options', *(f'{k}={v}' for k, v in found.items())]


def environment(root):
    """Return the environment of a script that shall use this Python."""
    import sys

    return {
        **os.environ,
        'VIRTUAL_ENV': sys.prefix,
        'PYTHONPATH': str(root),
        'OMP_NUM_THREADS': '1',
    }
