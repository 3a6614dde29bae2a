"""Own labels as the data sets of a config."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmmoco.apis.config.python_text import Code
from mmmoco.apis.lookup import missing
from mmmoco.messages import shortened

from . import class_folders, coco, masks


@dataclass(frozen=True)
class Data:
    """What a training reads.

    Attributes:
        classes: By number.
        numbers: Their ids in the annotation; empty: the numbers.
        train, val: Data sets, without pipelines.
        evaluators: Of the validation.
        count: Number of images of the training.
        remarks: What was found.
        files: Text of what has to be written beside the config, by path.
        size: Width and height of an image, the medians; None: not known.
    """

    classes: tuple[str, ...]
    numbers: dict[str, int]
    train: dict[str, Any]
    val: dict[str, Any]
    evaluators: dict[str, Any]
    count: int
    remarks: list[str]
    files: dict[str, str]
    size: tuple[int, int] | None = None


def read_data(
    task: str,
    places: dict[str, Sequence[str]],
    out: str,
    classes: Sequence[str] | None,
    mask_suffix: str | None,
    reduce_zero: bool,
) -> Data:
    """Read the labels of training and validation.

    Args:
        task: As for the job.
        places: Of ``'train'`` and ``'val'``.
        out: The config; lists are written beside it.
        classes: Names that are wanted.
        mask_suffix: How the names of masks end.
        reduce_zero: Whether 0 is no class.

    Raises:
        OSError: If something is missing or cannot be read.
        ValueError: If the labels cannot be used.
    """
    _require(places, ('FOLDER',) if task in ('cls', 'linear') else _TWO[task])
    _refuse_options(task, classes, mask_suffix, reduce_zero)
    found = {
        part: [os.path.abspath(os.path.expanduser(p)) for p in given]
        for part, given in places.items()
    }
    stem = os.path.abspath(os.path.splitext(out)[0])
    if task == 'seg':
        return _masks(found, stem, classes, mask_suffix, reduce_zero)
    if task in ('det', 'inst'):
        return _objects(found, stem, classes, task == 'inst')
    return _folders(found, stem)


_TWO = {
    'det': ('ANN', 'IMAGES'),
    'inst': ('ANN', 'IMAGES'),
    'seg': ('MASKS', 'IMAGES'),
}


def _require(
    places: dict[str, Sequence[str]], wanted: tuple[str, ...]
) -> None:
    for part, given in places.items():
        if isinstance(given, str) or len(given) != len(wanted):
            raise ValueError(
                f'--{part} takes {" ".join(wanted)}, not {shortened(given)}.'
            )
        for path, kind in zip(given, wanted, strict=True):
            place = Path(path).expanduser()
            if not place.exists():
                raise FileNotFoundError(f'--{part}: {missing(path)}')
            if place.is_file() != (kind == 'ANN'):
                what = 'a file' if kind == 'ANN' else 'a folder'
                raise ValueError(f'--{part}: {path!r} is not {what} ({kind}).')


def _refuse_options(
    task: str,
    classes: Sequence[str] | None,
    mask_suffix: str | None,
    reduce_zero: bool,
) -> None:
    given = {
        'classes': classes is not None and task in ('cls', 'linear'),
        'mask-suffix': mask_suffix is not None and task != 'seg',
        'reduce-zero-label': reduce_zero and task != 'seg',
    }
    for option, wrong in given.items():
        if wrong:
            raise ValueError(f'--{option} means nothing for {task}.')
    if classes is not None and len({*classes} - {''}) < len(classes):
        raise ValueError(
            f'--classes {",".join(classes)}: every class needs a name of its '
            'own.'
        )


def _objects(
    found: dict[str, list[str]],
    stem: str,
    wanted: Sequence[str] | None,
    outlines: bool,
) -> Data:
    train, val = (
        coco.read_objects(ann, images, wanted, outlines)
        for ann, images in found.values()
    )
    coco.follow(val, train)
    texts: list[str | None] = []
    sets: list[dict[str, Any]] = []
    for of in (train, val):
        texts.append(of.text())
        if of.mended:
            of.remarks.append(f'in the copy {"; ".join(of.mended)}')
        # With its slash: mmdet joins what is no folder as a text.
        prefix = dict(img=f'{of.folder}/')
        sets.append(
            dict(type='CocoDataset', ann_file=of.ann, data_prefix=prefix)
        )
    sets[0]['filter_cfg'] = dict(filter_empty_gt=False)
    sets[1]['test_mode'] = True
    files = _lists(sets, texts, (stem, '.json'))
    evaluator = dict(
        type='CocoMetric',
        ann_file=sets[1]['ann_file'],
        metric=['bbox', 'segm'] if outlines else 'bbox',
    )
    return Data(
        train.classes,
        train.numbers,
        *(sets[0], sets[1], evaluator, len(train.images)),
        _remarks(train, val),
        files,
    )


def _masks(
    found: dict[str, list[str]],
    stem: str,
    wanted: Sequence[str] | None,
    suffix: str | None,
    reduce_zero: bool,
) -> Data:
    train, val = (
        masks.read_masks(folder, images, suffix)
        for folder, images in found.values()
    )
    values = train.values | val.values
    classes = masks.classes_of(values, wanted, reduce_zero)
    unused = {*range(len(classes))} - {v - reduce_zero for v in values}
    if unused:
        train.remarks.append(
            f'{len(unused):,} of {len(classes):,} classes occur in no mask'
        )
    unseen = sorted(val.values - train.values - {masks.IGNORED})
    if unseen:
        val.remarks.append(
            f'the values {", ".join(map(str, unseen))} occur here only'
        )
    sets: list[dict[str, Any]] = [
        dict(
            type='BaseSegDataset',
            data_prefix=dict(img_path=of.images, seg_map_path=of.folder),
            img_suffix=of.suffixes[0],
            seg_map_suffix=of.suffixes[1],
            reduce_zero_label=reduce_zero,
        )
        for of in (train, val)
    ]
    texts = [of.text() for of in (train, val)]
    evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
    return Data(
        classes,
        {},
        *(sets[0], sets[1], evaluator, len(train.stems)),
        _remarks(train, val),
        _lists(sets, texts, (stem, '.txt')),
        train.size,
    )


def _folders(found: dict[str, list[str]], stem: str) -> Data:
    train, val = (
        class_folders.read_folders(folder) for (folder,) in found.values()
    )
    class_folders.require_known(val, train)
    classes = tuple(train.files)
    sets: list[dict[str, Any]] = [
        dict(type='CustomDataset', data_prefix=of.folder)
        for of in (train, val)
    ]
    texts = [of.text(classes) for of in (train, val)]
    return Data(
        classes,
        {},
        *(sets[0], sets[1], dict(type='Accuracy'), train.number),
        _remarks(train, val),
        _lists(sets, texts, (stem, '.txt')),
    )


def _lists(
    sets: list[dict[str, Any]], texts: list[str | None], place: tuple[str, str]
) -> dict[str, str]:
    """Let data sets read what is written beside the config; return it."""
    files = {}
    for part, dataset, text in zip(_PARTS, sets, texts, strict=True):
        dataset['metainfo'] = Code('metainfo')
        if text is not None:
            dataset['ann_file'] = f'_{part}'.join(place)
            files[dataset['ann_file']] = text
    return files


_PARTS = ('train', 'val')


def _remarks(train: Any, val: Any) -> list[str]:
    both = len(train.paths & val.paths)
    return [
        *(f'train: {remark}' for remark in train.remarks),
        *(f'val: {remark}' for remark in val.remarks),
        *([f'{both:,} images of val are trained on'] if both else []),
    ]
