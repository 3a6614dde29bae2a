"""Write digit scenes to disk, in the layouts that other libraries read.

One folder serves four of them, with the same scenes::

    {train,val}/<class>/*.jpg                        ImageNet folders
    annotations/instances_{train,val}.json           COCO, of those images
    VOC2007/{JPEGImages,Annotations,ImageSets/Main}  VOC: trainval and test
    leftImg8bit, gtFine/{train,val}/digits/*.png     Cityscapes
    digit_scenes.json                                how it was made
"""

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import numpy.typing as npt

from mmmoco.datasets.digit_painter import CLASSES, DRAWING_VERSION, SceneDigit
from mmmoco.datasets.digit_scenes import DigitScenes
from mmmoco.engine import checkpoint_io
from mmmoco.progress import track

#: Value of the canvas in label images; the digits are 0 to 9.
BACKGROUND = len(CLASSES)

_RECORD = 'digit_scenes.json'
_VOC_SPLITS = {'train': 'trainval', 'val': 'test'}
_JPEG_QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 95]


def export_scenes(
    out: str | os.PathLike[str],
    scenes: Mapping[str, DigitScenes],
    image_format: str = 'jpg',
    force: bool = False,
) -> None:
    """Write scenes as a folder that appears only when it is complete.

    ``image_format`` is that of the ImageNet folders, and so of COCO; VOC
    always has JPEG and Cityscapes PNG. Equal files are hard links where the
    file system has them.

    Args:
        out: Folder to be made.
        scenes: Data sets by split, ``'train'`` and ``'val'``.
        image_format: ``'jpg'`` or ``'png'``.
        force: Replace ``out`` if this function made it.

    Raises:
        ValueError: If the format is unknown.
        FileExistsError: If ``out`` is there already and not to be replaced.
    """
    if image_format not in ('jpg', 'png'):
        raise ValueError(f"image_format={image_format!r}: use 'jpg' or 'png'.")
    folder = Path(out).expanduser().resolve()
    check_target(folder, force)
    with checkpoint_io.replaced_folder(folder) as part:
        for split, dataset in scenes.items():
            _write_split(part, split, dataset, image_format)
        record = {
            'drawing_version': DRAWING_VERSION,
            'image_format': image_format,
            'classes': CLASSES,
            'splits': {
                split: dataclasses.asdict(dataset.painter)
                | {'num_scenes': len(dataset)}
                for split, dataset in scenes.items()
            },
        }
        _write_json(part / _RECORD, record)


def number_or_range(text: str) -> tuple[int, int]:
    """Parse ``3`` or ``1-5``.

    Raises:
        ValueError: If it is neither.
    """
    match = re.fullmatch(r'(\d+)(?:-(\d+))?', text)
    if match is None:
        raise ValueError(
            f'--digits-per-image {text!r} is neither a number nor a range '
            'such as 1-5.'
        )
    low, high = match.groups()
    return int(low), int(high or low)


def check_target(folder: Path, force: bool) -> None:
    """Refuse to write where something else would be lost.

    Args:
        folder: Folder to be made.
        force: Allow a folder that :func:`export_scenes` made.

    Raises:
        FileExistsError: If the folder must stay.
    """
    empty = folder.is_dir() and not any(folder.iterdir())
    if empty or not os.path.lexists(folder):
        return
    if not (folder / _RECORD).is_file():
        raise FileExistsError(
            f'{str(folder)!r} exists and was not made by this tool, so it is '
            'never replaced; choose another folder.'
        )
    if not force:
        raise FileExistsError(
            f'{str(folder)!r} is not empty; choose another folder, or '
            '--force to replace its scenes.'
        )


def run_lengths(mask: npt.NDArray[np.bool_]) -> dict[str, list[int]]:
    """Return a mask as COCO's run-length encoding, not compressed."""
    pixels = mask.ravel(order='F')
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    counts = np.diff([0, *changes, pixels.size]).tolist()
    # The first run is of zeros, if need be an empty one.
    return {
        'size': list(mask.shape),
        'counts': [0, *counts] if pixels[0] else counts,
    }


def label_image(
    digits: Sequence[SceneDigit], shape: tuple[int, ...]
) -> npt.NDArray[np.uint8]:
    """Return the class of every pixel, 0 to 9, else ``BACKGROUND``."""
    labels = np.full(shape, BACKGROUND, np.uint8)
    for digit in digits:
        labels[digit.mask] = digit.label
    return labels


def _write_split(
    folder: Path, split: str, dataset: DigitScenes, image_format: str
) -> None:
    voc = folder / 'VOC2007'
    city = f'{split}/digits'
    for name in [
        *(f'{split}/{name}' for name in CLASSES),
        'annotations',
        'VOC2007/JPEGImages',
        'VOC2007/Annotations',
        'VOC2007/ImageSets/Main',
        f'leftImg8bit/{city}',
        f'gtFine/{city}',
    ]:
        (folder / name).mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    instances: list[dict[str, Any]] = []
    names = []
    for index in track(range(len(dataset)), f'Drawing {split}'):
        grey = dataset.images[index].numpy()
        digits = dataset.annotations(index)
        name = f'{split}_{index:06d}'
        names.append(name)
        file_name = f'{CLASSES[digits[0].label]}/{name}.{image_format}'
        image = folder / split / file_name
        pixels = np.repeat(grey[..., None], 3, axis=2)
        _write_image(image, pixels)
        height, width = grey.shape
        images.append(
            dict(id=index + 1, file_name=file_name, height=height, width=width)
        )
        for digit in digits:
            instances.append(_coco_instance(digit, len(instances), index))
        _link_or_write(voc / f'JPEGImages/{name}.jpg', image, pixels)
        _write_voc(voc / f'Annotations/{name}.xml', grey.shape, digits)
        stem = f'{city}/digits_{index:06d}_000000'
        _link_or_write(
            folder / f'leftImg8bit/{stem}_leftImg8bit.png', image, pixels
        )
        _write_image(
            folder / f'gtFine/{stem}_gtFine_labelTrainIds.png',
            label_image(digits, grey.shape),
        )
    content = {
        'info': {'description': 'Scenes of handwritten digits'},
        'licenses': [],
        'categories': [
            {'id': label + 1, 'name': name, 'supercategory': 'digit'}
            for label, name in enumerate(CLASSES)
        ],
        'images': images,
        'annotations': instances,
    }
    _write_json(folder / f'annotations/instances_{split}.json', content)
    listing = voc / f'ImageSets/Main/{_VOC_SPLITS[split]}.txt'
    listing.write_text('\n'.join([*names, '']), encoding='utf-8')


def _coco_instance(
    digit: SceneDigit, instance: int, image: int
) -> dict[str, Any]:
    """Return an instance of COCO, where all numbers count from 1."""
    return {
        'id': instance + 1,
        'image_id': image + 1,
        'category_id': digit.label + 1,
        'bbox': digit.bbox,
        'area': digit.area,
        'iscrowd': 0,
        'segmentation': run_lengths(digit.mask),
    }


def _write_voc(
    file: Path, shape: tuple[int, ...], digits: Sequence[SceneDigit]
) -> None:
    """Write an annotation of VOC; its pixels count from 1."""
    annotation = {
        'folder': 'VOC2007',
        'filename': f'{file.stem}.jpg',
        'size': {'width': shape[1], 'height': shape[0], 'depth': 3},
        'segmented': 0,
    }
    root = _element('annotation', annotation)
    for digit in digits:
        x, y, width, height = digit.bbox
        box = dict(xmin=x + 1, ymin=y + 1, xmax=x + width, ymax=y + height)
        item = {
            'name': CLASSES[digit.label],
            'pose': 'Unspecified',
            'truncated': 0,
            'difficult': 0,
            'bndbox': box,
        }
        root.append(_element('object', item))
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(file, encoding='utf-8')


def _element(tag: str, content: object) -> ElementTree.Element:
    element = ElementTree.Element(tag)
    if isinstance(content, dict):
        element.extend(_element(*item) for item in content.items())
    else:
        element.text = str(content)
    return element


def _write_json(file: Path, content: object) -> None:
    file.write_text(json.dumps(content), encoding='utf-8')


def _write_image(file: Path, pixels: npt.NDArray[np.uint8]) -> None:
    # Encoded here, since imwrite only returns False for a full disk.
    options = _JPEG_QUALITY if file.suffix == '.jpg' else []
    file.write_bytes(cv2.imencode(file.suffix, pixels, options)[1].tobytes())


def _link_or_write(
    file: Path, same: Path, pixels: npt.NDArray[np.uint8]
) -> None:
    """Make ``file`` a hard link to ``same``, or write the pixels."""
    if file.suffix == same.suffix:
        try:
            os.link(same, file)
        except OSError:  # the file system has no hard links
            shutil.copyfile(same, file)
    else:
        _write_image(file, pixels)
