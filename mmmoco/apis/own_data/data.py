"""Own labels as the data sets of a config."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmmoco.apis.config.python_text import Code
from mmmoco.apis.lookup import missing
from mmmoco.messages import shortened

from . import class_folders, coco, masks
from .labels import Labels


@dataclass(frozen=True)
class Wishes:
    """What a user chose; see :func:`mmmoco.transfer_config`."""

    task: str
    train: Sequence[str]
    val: Sequence[str]
    init: str
    classes: str | None
    mask_suffix: str | None
    reduce_zero_label: bool
    image_size: int | None
    batch_size: int | None
    epochs: int | None
    gpus: int
    out: str

    @property
    def names(self) -> list[str] | None:
        """Return the names of the classes."""
        if self.classes is None:
            return None
        return [name.strip() for name in self.classes.split(',')]

    @property
    def dense(self) -> bool:
        """Whether it is no classification."""
        return self.task not in ('cls', 'linear')


@dataclass(frozen=True)
class Data:
    """What a training reads.

    Attributes:
        classes: By number.
        train, val: Data sets, without pipelines.
        evaluators: Of the validation.
        count: Number of images of the training.
        remarks: What was found.
        files: Text of what has to be written beside the config, by path.
        numbers: Ids of the classes in the annotation; empty: the numbers.
        size: Width and height of an image, the medians; None: not known.
    """

    classes: tuple[str, ...]
    train: dict[str, Any]
    val: dict[str, Any]
    evaluators: dict[str, Any]
    count: int
    remarks: tuple[str, ...]
    files: dict[str, str]
    numbers: dict[str, int] = field(default_factory=dict)
    size: tuple[int, int] | None = None


def read_data(wishes: Wishes) -> Data:
    """Read the labels of training and validation.

    Raises:
        OSError: If something is missing or cannot be read.
        ValueError: If the labels cannot be used.
    """
    wanted, read = _TASKS[wishes.task]
    places = []
    for part, given in (('train', wishes.train), ('val', wishes.val)):
        _require(part, given, wanted)
        places.append([os.path.abspath(os.path.expanduser(p)) for p in given])
    _refuse_options(wishes)
    return read(wishes, *places)


def _require(part: str, given: Sequence[str], wanted: Sequence[str]) -> None:
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


def _refuse_options(wishes: Wishes) -> None:
    names, seg = wishes.names, wishes.task == 'seg'
    given = {
        'classes': names is not None and not wishes.dense,
        'mask-suffix': wishes.mask_suffix is not None and not seg,
        'reduce-zero-label': wishes.reduce_zero_label and not seg,
    }
    for option, wrong in given.items():
        if wrong:
            raise ValueError(f'--{option} means nothing for {wishes.task}.')
    if names is not None and len({*names} - {''}) < len(names):
        raise ValueError(
            f'--classes {",".join(names)}: every class needs a name of its '
            'own.'
        )


def _objects(wishes: Wishes, *places: Sequence[str]) -> Data:
    outlines = wishes.task == 'inst'
    train, val = (
        coco.read_objects(ann, images, wishes.names, outlines)
        for ann, images in places
    )
    coco.follow(val, train)
    parts = []
    for of, more in (
        (train, dict(filter_cfg=dict(filter_empty_gt=False))),
        (val, dict(test_mode=True)),
    ):
        text = of.text()
        if of.mended:
            of.remarks.append(f'in the copy {"; ".join(of.mended)}')
        # With its slash: mmdet joins what is no folder as a text.
        prefix = dict(img=f'{of.folder}/')
        dataset = dict(
            type='CocoDataset', ann_file=of.ann, data_prefix=prefix, **more
        )
        parts.append((of, dataset, text))
    kinds = ['bbox', 'segm'] if outlines else 'bbox'
    evaluator = dict(type='CocoMetric', ann_file='', metric=kinds)
    data = _data(wishes, '.json', parts, train.classes, evaluator)
    evaluator['ann_file'] = data.val['ann_file']
    return replace(data, numbers=train.numbers)


def _masks(wishes: Wishes, *places: Sequence[str]) -> Data:
    reduce_zero = wishes.reduce_zero_label
    train, val = (
        masks.read_masks(folder, images, wishes.mask_suffix)
        for folder, images in places
    )
    values = train.values | val.values
    classes = masks.classes_of(values, wishes.names, reduce_zero)
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
    parts = []
    for of in (train, val):
        dataset = dict(
            type='BaseSegDataset',
            data_prefix=dict(img_path=of.folder, seg_map_path=of.masks),
            img_suffix=of.suffixes[0],
            seg_map_suffix=of.suffixes[1],
            reduce_zero_label=reduce_zero,
        )
        parts.append((of, dataset, of.text()))
    evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
    data = _data(wishes, '.txt', parts, classes, evaluator)
    return replace(data, size=train.size)


def _folders(wishes: Wishes, *places: Sequence[str]) -> Data:
    train, val = (class_folders.read_folders(place) for (place,) in places)
    class_folders.require_known(val, train)
    classes = tuple(train.files)
    parts = []
    for of in (train, val):
        dataset = dict(type='CustomDataset', data_prefix=of.folder)
        parts.append((of, dataset, of.text(classes)))
    return _data(wishes, '.txt', parts, classes, dict(type='Accuracy'))


def _data(
    wishes: Wishes,
    ending: str,
    parts: Sequence[tuple[Labels, dict[str, Any], str | None]],
    classes: tuple[str, ...],
    evaluator: dict[str, Any],
) -> Data:
    """Join both splits; what has no text is read where it is."""
    stem = os.path.abspath(os.path.splitext(wishes.out)[0])
    files, remarks = {}, []
    for name, (of, dataset, text) in zip(('train', 'val'), parts, strict=True):
        remarks += [f'{name}: {remark}' for remark in of.remarks]
        dataset['metainfo'] = Code('metainfo')
        if text is not None:
            dataset['ann_file'] = f'{stem}_{name}{ending}'
            files[dataset['ann_file']] = text
    (train, to_learn, _), (val, to_judge, _) = parts
    if both := len(train.paths & val.paths):
        remarks.append(f'{both:,} images of val are trained on')
    return Data(
        *(classes, to_learn, to_judge, evaluator, len(train.names)),
        *(tuple(remarks), files),
    )


#: What --train and --val take, and what reads it.
_TASKS: dict[str, tuple[tuple[str, ...], Callable[..., Data]]] = {
    'det': (('ANN', 'IMAGES'), _objects),
    'inst': (('ANN', 'IMAGES'), _objects),
    'seg': (('MASKS', 'IMAGES'), _masks),
    'cls': (('FOLDER',), _folders),
    'linear': (('FOLDER',), _folders),
}
