import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

from mmmoco.apis import cli
from mmmoco.apis.data import digit_export
from mmmoco.apis.data.digit_export import (
    BACKGROUND,
    export_scenes,
    label_image,
    number_or_range,
    run_lengths,
)
from mmmoco.apis.data.jobs import make_digit_scenes
from mmmoco.datasets import DigitScenes

from ..conftest import optional

TOOL = Path(__file__).parents[2] / 'tools' / 'make_digit_scenes.py'
NUMBERS = {'train': 6, 'val': 4}


@pytest.fixture(scope='module')
def scenes():
    return {
        split: DigitScenes(
            split, size=40, digits_per_image=(1, 3), num_scenes=number
        )
        for split, number in NUMBERS.items()
    }


@pytest.fixture(scope='module')
def folder(scenes, tmp_path_factory):
    out = tmp_path_factory.mktemp('data') / 'scenes'
    export_scenes(out, scenes, image_format='png')
    return out


def read(file):
    image = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    assert image is not None, file
    return image


def contents(folder):
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob('*')
        if file.is_file()
    }


@pytest.mark.parametrize('split', NUMBERS)
def test_image_folders_hold_the_scenes_by_their_first_digit(
    folder, scenes, split
):
    dataset = scenes[split]
    assert sorted(f.name for f in (folder / split).iterdir()) == list(
        '0123456789'
    )
    assert len(list((folder / split).rglob('*.*'))) == len(dataset)
    for index, label in enumerate(dataset.labels):
        image = read(folder / split / str(label) / f'{split}_{index:06d}.png')
        assert image.shape == (40, 40, 3)
        for channel in range(3):
            np.testing.assert_array_equal(
                image[..., channel], dataset.images[index]
            )


@pytest.mark.parametrize('split', NUMBERS)
def test_coco_instances(folder, scenes, split, capsys):
    optional('pycocotools')
    from pycocotools import mask as rle
    from pycocotools.coco import COCO

    coco = COCO(str(folder / f'annotations/instances_{split}.json'))
    assert [c['name'] for c in coco.cats.values()] == list('0123456789')
    images = [coco.imgs[i] for i in sorted(coco.imgs)]
    assert len(images) == NUMBERS[split]
    for index, image in enumerate(images):
        read(folder / split / image['file_name'])
        assert image['width'] == image['height'] == 40
        annotations = coco.loadAnns(coco.getAnnIds(image['id']))
        digits = scenes[split].annotations(index)
        assert len(annotations) == len(digits)
        for annotation, digit in zip(annotations, digits, strict=True):
            mask = coco.annToMask(annotation)
            np.testing.assert_array_equal(mask, digit.mask)
            assert mask.sum() == annotation['area']
            box = rle.toBbox(coco.annToRLE(annotation))
            assert annotation['bbox'] == box.tolist()
            name = coco.cats[annotation['category_id']]['name']
            assert name == str(digit.label)
            assert annotation['iscrowd'] == 0


def test_run_lengths_begin_with_zeros():
    mask = np.array([[1, 0], [1, 1]], bool)
    assert run_lengths(mask) == {'size': [2, 2], 'counts': [0, 2, 1, 1]}
    assert run_lengths(~mask) == {'size': [2, 2], 'counts': [2, 1, 1]}


def test_voc_counts_pixels_from_one(folder, scenes):
    voc = folder / 'VOC2007'
    for listing, split in (('trainval', 'train'), ('test', 'val')):
        file = voc / f'ImageSets/Main/{listing}.txt'
        names = file.read_text().splitlines()
        assert len(names) == NUMBERS[split]
        for index, name in enumerate(names):
            root = ElementTree.parse(voc / f'Annotations/{name}.xml')
            size = [root.findtext(f'size/{k}') for k in ('width', 'height')]
            assert size == ['40', '40']
            image = read(voc / 'JPEGImages' / root.findtext('filename'))
            scene = scenes[split].images[index].numpy().astype(float)
            assert abs(image.mean(2) - scene).mean() < 5
            objects = root.findall('object')
            digits = scenes[split].annotations(index)
            assert len(objects) == len(digits)
            for item, digit in zip(objects, digits, strict=True):
                assert item.findtext('name') == str(digit.label)
                x0, y0, x1, y1 = (
                    int(item.findtext(f'bndbox/{k}'))
                    for k in ('xmin', 'ymin', 'xmax', 'ymax')
                )
                assert digit.bbox == (x0 - 1, y0 - 1, x1 - x0 + 1, y1 - y0 + 1)


def test_cityscapes_labels_are_the_masks(folder, scenes):
    for split, dataset in scenes.items():
        stems = sorted(
            f.name.removesuffix('_leftImg8bit.png')
            for f in (folder / 'leftImg8bit' / split / 'digits').iterdir()
        )
        assert len(stems) == len(dataset)
        for index, stem in enumerate(stems):
            name = f'{split}/digits/{stem}'
            image = read(folder / f'leftImg8bit/{name}_leftImg8bit.png')
            np.testing.assert_array_equal(image[..., 0], dataset.images[index])
            labels = read(folder / f'gtFine/{name}_gtFine_labelTrainIds.png')
            assert labels.dtype == np.uint8 and labels.shape == (40, 40)
            expected = np.full((40, 40), 10)
            for digit in dataset.annotations(index):
                expected[digit.mask] = digit.label
            np.testing.assert_array_equal(labels, expected)
    assert BACKGROUND == 10 and (label_image([], (2, 2)) == 10).all()


@pytest.mark.parametrize('image_format', ['jpg', 'png'])
def test_equal_images_are_stored_once(scenes, tmp_path, image_format):
    export_scenes(tmp_path / 'out', scenes, image_format=image_format)
    inodes = {
        f.stat().st_ino
        for f in (tmp_path / 'out').rglob('*')
        if f.suffix in ('.jpg', '.png') and 'gtFine' not in f.parts
    }
    assert len(inodes) == 2 * sum(NUMBERS.values())  # one JPEG, one PNG


def test_file_systems_without_hard_links(
    scenes, folder, tmp_path, monkeypatch
):
    def refuse(*_):
        raise OSError('not supported')

    monkeypatch.setattr(os, 'link', refuse)
    export_scenes(tmp_path / 'out', scenes, image_format='png')
    assert contents(tmp_path / 'out') == contents(folder)


def test_an_interrupted_call_leaves_nothing(scenes, tmp_path, monkeypatch):
    def stop(indices, what):
        yield from indices[:2]
        raise KeyboardInterrupt

    monkeypatch.setattr(digit_export, 'track', stop)
    with pytest.raises(KeyboardInterrupt):
        export_scenes(tmp_path / 'out', scenes)
    assert list(tmp_path.iterdir()) == []

    monkeypatch.undo()
    export_scenes(tmp_path / 'out', scenes)
    before = contents(tmp_path / 'out')
    monkeypatch.setattr(digit_export, 'track', stop)
    with pytest.raises(KeyboardInterrupt):
        export_scenes(tmp_path / 'out', scenes, force=True)
    assert contents(tmp_path / 'out') == before
    assert list(tmp_path.iterdir()) == [tmp_path / 'out']


def test_the_format_is_checked(scenes, tmp_path):
    with pytest.raises(ValueError, match="image_format='gif'.*'jpg' or 'png'"):
        export_scenes(tmp_path / 'out', scenes, image_format='gif')


def call(argv):
    try:
        cli.main(make_digit_scenes, argv)
    except SystemExit as stop:
        return stop.code
    return 0


ARGS = ['--num-train', '3', '--num-val', '2', '--size', '32']


def test_two_calls_write_the_same_bytes(tmp_path):
    assert call([str(tmp_path / 'a'), *ARGS]) == 0
    assert call([str(tmp_path / 'b'), *ARGS]) == 0
    assert call([str(tmp_path / 'c'), *ARGS, '--seed', '1']) == 0
    a, b, c = (contents(tmp_path / name) for name in 'abc')
    assert a == b != c
    record = json.loads(a['digit_scenes.json'])
    assert record['splits']['train']['num_scenes'] == 3
    assert record['splits']['val']['digits_per_image'] == [1, 5]


def test_the_tool_replaces_only_its_own_folders(tmp_path, capsys):
    out, other = tmp_path / 'out', tmp_path / 'other'
    out.mkdir()
    assert call([str(out), *ARGS]) == 0
    before = contents(out)
    other.mkdir()
    (other / 'thesis.tex').write_text('years of work')
    for arguments in ([out], [other], [other, '--force']):
        capsys.readouterr()
        assert call([*map(str, arguments), *ARGS, '--seed', '1']) == 2
        message = capsys.readouterr().err
        assert message.count(': error: ') == 1
        assert str(arguments[0]) in message and 'Traceback' not in message
        assert contents(out) == before
        assert [f.name for f in other.iterdir()] == ['thesis.tex']
    assert call([str(out), *ARGS, '--seed', '1', '--force']) == 0
    assert contents(out) != before
    assert sorted(f.name for f in tmp_path.iterdir()) == ['other', 'out']


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--size', '16'], 'use at least 24'),
        (['--num-val', '0'], 'num_scenes=0'),
        (['--digits-per-image', '4-2'], 'digits_per_image=(4, 2)'),
    ],
)
def test_wrong_arguments_end_with_one_line(
    tmp_path, capsys, arguments, message
):
    assert call([str(tmp_path / 'out'), *ARGS, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count(': error: ') == 1
    assert list(tmp_path.iterdir()) == []


def test_digits_per_image_is_a_number_or_a_range(tmp_path, capsys):
    assert number_or_range('3') == (3, 3)
    assert number_or_range('1-5') == (1, 5)
    for text in ('many', '1-', '-2', '1-2-3', ''):
        argv = [str(tmp_path / 'out'), f'--digits-per-image={text}']
        assert call(argv) == 2
        assert 'digits-per-image' in capsys.readouterr().err


@pytest.mark.slow
def test_the_tool_runs_from_the_command_line(tmp_path):
    done = subprocess.run(
        [sys.executable, TOOL, tmp_path / 'out', *ARGS],
        capture_output=True,
        text=True,
        env=os.environ | {'PYTHONPATH': str(TOOL.parents[1])},
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'out' / 'digit_scenes.json').is_file()


@pytest.mark.slow
@pytest.mark.downstream
def test_the_libraries_read_their_layouts(folder):
    optional('mmdet')
    optional('mmseg')
    from mmdet.datasets import CocoDataset, VOCDataset
    from mmpretrain.datasets import CustomDataset
    from mmseg.datasets import BaseSegDataset

    classes = tuple('0123456789')
    metainfo = dict(classes=classes)
    root = str(folder)
    coco = CocoDataset(
        data_root=root,
        ann_file='annotations/instances_train.json',
        data_prefix=dict(img='train/'),
        metainfo=metainfo,
    )
    voc = VOCDataset(
        data_root=root,
        ann_file='VOC2007/ImageSets/Main/trainval.txt',
        data_prefix=dict(sub_data_root='VOC2007/'),
        metainfo=metainfo,
    )
    folders = CustomDataset(data_root=root, data_prefix='train')
    # Not CityscapesDataset: it takes classes of Cityscapes only.
    cityscapes = BaseSegDataset(
        data_root=root,
        img_suffix='_leftImg8bit.png',
        seg_map_suffix='_gtFine_labelTrainIds.png',
        data_prefix=dict(
            img_path='leftImg8bit/train', seg_map_path='gtFine/train'
        ),
        metainfo=dict(
            classes=(*classes, 'canvas'), palette=[[i] * 3 for i in range(11)]
        ),
    )
    assert classes == tuple(folders.CLASSES)
    lengths = {len(d) for d in (coco, voc, folders, cityscapes)}
    assert lengths == {NUMBERS['train']}
    for index in range(len(coco)):
        of_coco = coco.get_data_info(index)
        of_voc = voc.get_data_info(index)
        assert Path(of_coco['img_path']).is_file()
        assert Path(of_voc['img_path']).is_file()
        assert [i['bbox_label'] for i in of_coco['instances']] == [
            i['bbox_label'] for i in of_voc['instances']
        ]
