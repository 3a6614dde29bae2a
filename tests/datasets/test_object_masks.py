"""The same scenes through every annotation format give the same objects."""

import json

import numpy as np
import pytest
from PIL import Image

from mmmoco.apis.data.digit_export import export_scenes
from mmmoco.apis.dense.object_masks import (
    CocoObjects,
    LabelObjects,
    PanopticObjects,
    SceneObjects,
)
from mmmoco.datasets.digit_scenes import DigitScenes

from ..conftest import optional


@pytest.fixture(scope='module')
def scenes():
    return DigitScenes(
        split='val', size=48, digits_per_image=(2, 3), num_scenes=6
    )


@pytest.fixture(scope='module')
def folder(scenes, tmp_path_factory):
    out = tmp_path_factory.mktemp('scenes') / 'out'
    export_scenes(out, {'val': scenes}, image_format='png')
    return out


def test_scenes(scenes):
    data = SceneObjects(scenes)
    assert len(data) == 6
    image, masks, classes = data[2]
    assert image.shape == (48, 48, 3) and masks.dtype == np.bool_
    digits = scenes.annotations(2)
    assert classes == [d.label for d in digits]
    for mask, digit in zip(masks, digits, strict=True):
        assert np.array_equal(mask, digit.mask)
    area = max(d.area for d in digits)
    data.min_area = area
    assert len(data[2].classes) == 1
    data.min_area = 48 * 48
    assert data[2].masks.shape == (0, 48, 48)
    with pytest.raises(IndexError):
        data[6]


def test_coco(scenes, folder):
    optional('pycocotools')
    coco = CocoObjects(
        folder / 'annotations/instances_val.json', folder / 'val'
    )
    assert len(coco) == 6
    for ours, theirs in zip(SceneObjects(scenes), coco, strict=True):
        assert np.array_equal(ours.image, theirs.image)
        assert np.array_equal(ours.masks, theirs.masks)
        assert [c + 1 for c in ours.classes] == theirs.classes


def test_crowds_and_other_files(folder, tmp_path):
    optional('pycocotools')
    path = folder / 'annotations/instances_val.json'
    content = json.loads(path.read_text())
    content['annotations'][0]['iscrowd'] = 1
    changed = tmp_path / 'changed.json'
    changed.write_text(json.dumps(content))
    all_of, rest = (
        len(CocoObjects(p, folder / 'val')[0].classes) for p in (path, changed)
    )
    assert rest == all_of - 1
    changed.write_text('{"images": []}')
    with pytest.raises(ValueError, match='no COCO instance file'):
        CocoObjects(changed, folder)
    with pytest.raises(ValueError, match='no COCO panoptic file'):
        PanopticObjects(changed, folder)
    with pytest.raises(FileNotFoundError, match='nowhere'):
        CocoObjects(tmp_path / 'nowhere.json', folder)


def test_cityscapes(scenes, folder):
    """Class labels alone: regions that hang together are the objects."""
    city = LabelObjects.cityscapes(folder)
    city.ignore = (10, 255)
    assert len(city) == 6
    for ours, theirs in zip(SceneObjects(scenes), city, strict=True):
        assert np.array_equal(ours.image, theirs.image)
        assert set(ours.classes) == set(theirs.classes)
        assert np.array_equal(ours.masks.any(0), theirs.masks.any(0))
    with pytest.raises(FileNotFoundError, match='No image'):
        LabelObjects.cityscapes(folder, 'test')


def test_voc(scenes, tmp_path):
    """Instances where there are some; their class from the other file."""
    for name in (
        'JPEGImages',
        'SegmentationClass',
        'SegmentationObject',
        'ImageSets/Segmentation',
    ):
        (tmp_path / name).mkdir(parents=True)
    data = SceneObjects(scenes)
    for i, (image, masks, classes) in enumerate(data):
        labels, instances = np.zeros((2, 48, 48), np.uint8)
        for k, (mask, label) in enumerate(zip(masks, classes, strict=True)):
            labels[mask], instances[mask] = label + 1, k + 1
        # The border between objects counts for nothing, as in VOC.
        labels[0], instances[0] = 255, 255
        Image.fromarray(image).save(tmp_path / f'JPEGImages/{i}.jpg')
        Image.fromarray(labels).save(tmp_path / f'SegmentationClass/{i}.png')
        Image.fromarray(instances).save(
            tmp_path / f'SegmentationObject/{i}.png'
        )
    listing = tmp_path / 'ImageSets/Segmentation/val.txt'
    listing.write_text('\n'.join(map(str, range(6))))
    voc = LabelObjects.voc(tmp_path)
    for ours, theirs in zip(data, voc, strict=True):
        assert [c + 1 for c in ours.classes] == theirs.classes
        assert np.array_equal(ours.masks[:, 1:], theirs.masks[:, 1:])
        assert not theirs.masks[:, 0].any()


def test_panoptic(scenes, tmp_path):
    (tmp_path / 'panoptic').mkdir()
    data = SceneObjects(scenes)
    images, annotations = [], []
    for i, (image, masks, classes) in enumerate(data):
        colours = np.zeros((48, 48, 3), np.uint8)
        segments = []
        for k, (mask, label) in enumerate(zip(masks, classes, strict=True)):
            colours[mask] = (k + 1, 2, 3)
            segments.append(
                dict(
                    id=k + 1 + 2 * 256 + 3 * 256**2,
                    category_id=label,
                    iscrowd=0,
                )
            )
        Image.fromarray(image).save(tmp_path / f'{i}.png')
        Image.fromarray(colours).save(tmp_path / f'panoptic/{i}.png')
        images.append(dict(id=i, file_name=f'{i}.png'))
        annotations.append(
            dict(image_id=i, file_name=f'{i}.png', segments_info=segments)
        )
    categories = [dict(id=c, isthing=int(c != 3)) for c in range(10)]
    path = tmp_path / 'panoptic.json'
    path.write_text(
        json.dumps(
            dict(images=images, annotations=annotations, categories=categories)
        )
    )
    for stuff in (False, True):
        found = PanopticObjects(path, tmp_path, stuff=stuff)
        for ours, theirs in zip(data, found, strict=True):
            kept = [c for c in ours.classes if stuff or c != 3]
            assert theirs.classes == kept
            if stuff:
                assert np.array_equal(ours.masks, theirs.masks)


def test_a_mask_of_another_size_is_named(scenes, folder):
    optional('pycocotools')
    content = json.loads(
        (folder / 'annotations/instances_val.json').read_text()
    )
    name = content['images'][0]['file_name']
    path = folder / 'val' / name
    whole = Image.open(path).copy()
    try:
        whole.resize((20, 20)).save(path)
        with pytest.raises(ValueError, match='do not belong together'):
            CocoObjects(
                folder / 'annotations/instances_val.json', folder / 'val'
            )[0]
    finally:
        whole.save(path)
