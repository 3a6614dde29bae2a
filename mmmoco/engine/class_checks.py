"""Classes of another library's data, held against annotation and model.

Those libraries count labels by what matches: a name that is not in the file
moves all labels behind it, and nothing says so.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from mmmoco.files import read_json
from mmmoco.messages import few, log_warning
from mmmoco.registry import dicts_in

from .endings import ExpectedEnd

#: Bytes of an annotation that is read a second time, to hold it against the
#: config: more than for a data set of one's own.
MOST = 64 * 2**20


@contextmanager
def emptied_explained(loader: Any, place: str) -> Iterator[None]:
    """Say which classes were looked for where nothing is left of a data set.

    Args:
        loader: Its config.
        place: Where it stands.

    Raises:
        ValueError: Instead of numpy's own words.
    """
    try:
        yield
    except ValueError as error:
        if 'need at least one array' not in str(error):
            raise
        lines = [_found(node) for node in dicts_in(loader) if _file(node)]
        raise ValueError(
            f'{place}: no image is left. {"; ".join(lines)}. Name the classes '
            'as the file does: metainfo=dict(classes=(…,)). Images without '
            'boxes are dropped by filter_cfg=dict(filter_empty_gt=True).'
        ) from error


def check_classes(dataset: Any, model: nn.Module, place: str) -> None:
    """Hold the classes of a data set against its file, and the heads.

    Args:
        dataset: Built.
        model: That learns from it.
        place: Where its loader stands.

    Raises:
        ValueError: If a class is not in the file, or not in its place, or a
            head has fewer.
    """
    for part in _parts(dataset):
        classes = (getattr(part, 'metainfo', None) or {}).get('classes')
        file = getattr(part, 'ann_file', None)
        if not isinstance(classes, tuple | list):
            continue
        matched = getattr(part, 'cat_ids', None)
        if matched is not None and isinstance(file, str):
            _check_names(file, [*classes], len(matched), place)
        if 'thing_classes' not in part.metainfo:
            _check_heads(model, len(classes), place)


def check_labels(batch: Any, model: Any) -> None:
    """See that labels of images and pixels are classes of the head.

    Raises:
        ExpectedEnd: Naming the file.
    """
    samples = batch.get('data_samples') if isinstance(batch, Mapping) else None
    for sample in samples if isinstance(samples, list | tuple) else ():
        for field, head, file in (
            ('gt_sem_seg', 'decode_head', 'seg_map_path'),
            ('gt_label', 'head', 'img_path'),
        ):
            count = getattr(getattr(model, head, None), 'num_classes', None)
            value = getattr(sample, field, None)
            value = getattr(value, 'data', value)
            if not isinstance(value, Tensor) or not isinstance(count, int):
                continue
            ignored = getattr(getattr(model, head), 'ignore_index', -1)
            wrong = value[(value >= count) & (value != ignored)]
            if len(wrong):
                raise ExpectedEnd(
                    f'{sample.metainfo.get(file)}: label {int(wrong[0])} in '
                    f'{len(wrong)} place(s), but model.{head}.num_classes is '
                    f'{count} (labels 0 to {count - 1}'
                    + (f'; {ignored} is ignored). ' if ignored >= 0 else '). ')
                    + 'Correct num_classes, or the labels.'
                )


def _check_names(
    file: str, classes: list[str], matched: int, place: str
) -> None:
    try:
        if matched == len(classes) and os.path.getsize(file) > MOST:
            return
    except OSError:
        return  # Not on this disk.
    names = _categories(file)
    lacking = [name for name in classes if name not in names]
    if lacking:
        raise ValueError(
            f'{place}: {file} has no class {few([*map(str, lacking)])}, of '
            f'the {len(classes)} that the config names; its {len(names)} '
            f'classes are {few(names, 20)}. Labels are counted by what '
            'matches: name the classes as the file does, '
            'metainfo=dict(classes=(…,)).'
        )
    order = [name for name in names if name in classes]
    if order != classes and len(order) == len(classes):
        raise ValueError(
            f'{place}: the classes of the config are not in the order of '
            f'{file}, by which labels are counted: write metainfo=dict('
            f'classes={tuple(order)}).'
        )


def _check_heads(model: nn.Module, count: int, place: str) -> None:
    for name, module in model.named_modules():
        kind, own = type(module).__name__, getattr(module, 'num_classes', None)
        if 'Head' not in kind or 'RPN' in kind or type(own) is not int:
            continue
        line = f'model.{name}.num_classes is {own}, and {place} has {count} '
        if own < count:
            raise ValueError(f'{line}classes: set it to {count}.')
        if own > count:
            log_warning(f'{line}classes: the rest learns nothing.')


def _parts(dataset: Any) -> Iterator[Any]:
    inner = getattr(dataset, 'datasets', None) or [
        getattr(dataset, 'dataset', None)
    ]
    if inner == [None]:
        yield dataset
        return
    for part in inner:
        yield from _parts(part)


def _file(node: Mapping[str, Any]) -> str:
    name = node.get('ann_file')
    if not isinstance(name, str) or not name:
        return ''
    return os.path.join(node.get('data_root') or '', name)


def _found(node: Mapping[str, Any]) -> str:
    file = _file(node)
    classes = (node.get('metainfo') or {}).get('classes')
    wanted = [*map(str, classes or ())]
    text = f'{file}: the config has ' + (
        f'the classes {few(wanted, 20)}' if wanted else "its type's classes"
    )
    if not (file.endswith('.json') and os.path.isfile(file)):
        return text
    names = _categories(file)
    text += f', the file {few(names, 20) or "none"}'
    if wanted:
        matched = [name for name in wanted if name in names]
        text += f'; {few(matched) or "none"} of them match'
    return text


def _categories(file: str) -> list[str]:
    content = read_json(file)
    found = content.get('categories') if isinstance(content, dict) else None
    return [str(one.get('name')) for one in found or ()]
