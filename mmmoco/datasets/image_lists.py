"""Lists of images, in the forms that other tools and people write."""

import codecs
import csv
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mmmoco.files import read_file
from mmmoco.messages import log_warning, shortened

#: What columns are called, in lower case.
PATHS = (
    'path',
    'img_path',
    'image_path',
    'filepath',
    'file_path',
    'file',
    'filename',
    'file_name',
    'image',
    'img',
)
LABELS = ('label', 'gt_label', 'class', 'target', 'category', 'label_id')

#: What a list may hold: read, it takes many times as much.
MOST_JSON, MOST_LINES = 256 << 20, 1 << 25

_BYTE_ORDER = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_HINT = ' For CSV, begin with a line that names the columns: path,label'
_LABEL = re.compile(r'[0-9]{1,6}')
_LABELLED = re.compile(rf'(.*\S)\s+({_LABEL.pattern})')


class ImageList(NamedTuple):
    """What a list says.

    Attributes:
        names: Paths as they are written.
        labels: Their classes; None: without.
        classes: Names of the classes.
        groups: Names of their groups; None: not asked for.
    """

    names: list[str]
    labels: list[int] | None
    classes: tuple[str, ...]
    groups: list[str] | None = None


def read_list(
    file: Path, folder: Path, with_labels: bool, group_by: str = ''
) -> ImageList:
    """Read a list of images: lines, CSV with a header, or JSON.

    Args:
        file: The list.
        folder: What its paths count from; where one is found tells whether
            lines end with labels that nobody asked for.
        with_labels: Give every image a class.
        group_by: Column, or entry, that names the group of an image.

    Raises:
        FileNotFoundError: If it lists no image.
        ValueError: If a label or a group is missing, or it is of no known
            kind.
    """
    data = read_file(file)
    place = repr(str(file))
    text = _text_of(data)
    if text.lstrip()[:1] in ('{', '['):
        if len(data) > MOST_JSON:
            raise ValueError(
                f'{place} has {len(data)} bytes, more than {MOST_JSON} of '
                'JSON: write it as text, one path a line.'
            )
        read = _from_json(text, place, with_labels, group_by)
    else:
        if max(map(text.count, '\n\r')) > MOST_LINES:
            raise ValueError(
                f'{place} has more than {MOST_LINES:,} lines: split it.'
            )
        lines = [
            (number, line.strip())
            for number, line in enumerate(re.split(r'\r\n?|\n', text), 1)
            if line.strip()
        ]
        columns = _header(lines[0][1]) if lines else None
        if columns is None:
            if group_by:
                raise ValueError(
                    f'{place} has no columns, so none is group_by='
                    f'{group_by!r}. For CSV, begin with a line that names '
                    f'them: path,{group_by}'
                )
            read = _from_lines(lines, place, folder, with_labels)
        else:
            read = _from_csv(
                lines[1:], columns, place, with_labels, group_by.lower()
            )
    if not read.names:
        raise FileNotFoundError(f'ann_file {place} lists no image.')
    return read if with_labels else read._replace(labels=None, classes=())


def _text_of(data: bytes) -> str:
    """Decode what editors save; bytes of other encodings stay as they are."""
    if data.startswith(_BYTE_ORDER):
        return data.decode('utf-16', 'replace')
    return data.decode('utf-8-sig', 'surrogateescape')


def _from_lines(
    lines: Sequence[tuple[int, str]],
    place: str,
    folder: Path,
    with_labels: bool,
) -> ImageList:
    """Read one path a line, or "path label"."""
    if not (with_labels or _end_with_labels(lines, folder)):
        return ImageList([line for _, line in lines], None, ())
    names, labels = [], []
    for number, line in lines:
        match = _LABELLED.fullmatch(line)
        if match is None:
            hint = _HINT if ',' in line else ''
            raise ValueError(
                f'{place}, line {number}: expected "path label" with a '
                'whole-number label of up to 6 digits, got '
                f'{shortened(line)}.{hint}'
            )
        names.append(match[1])
        labels.append(int(match[2]))
    if not with_labels:
        log_warning(
            f'{place}: the label at the end of each of its {len(names)} '
            'lines is left out (with_labels=True reads it).'
        )
    return ImageList(names, labels, _numbered(labels))


def _end_with_labels(lines: Sequence[tuple[int, str]], folder: Path) -> bool:
    """Tell a list with labels from one whose paths hold spaces."""
    match = _LABELLED.fullmatch(lines[0][1]) if lines else None
    if match is None:
        return False
    whole, cut = (os.path.join(folder, name) for name in match.group(0, 1))
    return not os.path.lexists(whole) and os.path.lexists(cut)


def _header(line: str) -> tuple[str, list[str]] | None:
    """Return delimiter and columns, if a line is the header of a CSV."""
    for delimiter in (',', ';', '\t'):
        names = [n.strip().strip('"\'').lower() for n in line.split(delimiter)]
        if len(names) == len(set(names)) > 1 and set(names) & set(PATHS):
            return delimiter, names
    return (',', [line.lower()]) if line.lower() in PATHS else None


def _from_csv(
    lines: Sequence[tuple[int, str]],
    columns: tuple[str, list[str]],
    place: str,
    with_labels: bool,
    group_by: str,
) -> ImageList:
    delimiter, head = columns
    path = min(head.index(name) for name in PATHS if name in head)
    named = [head.index(name) for name in LABELS if name in head]
    if with_labels and not named:
        raise ValueError(
            f'{place} has the columns {shortened(", ".join(head))}, none of '
            f'which is one of {", ".join(LABELS)}: name the column of the '
            'labels so, or set with_labels=False.'
        )
    if group_by and group_by not in head:
        raise ValueError(
            f'{place} has the columns {shortened(", ".join(head))}, none of '
            f'which is group_by={group_by!r}.'
        )
    names, given, groups = [], [], []
    for number, line in lines:
        try:
            row = next(csv.reader([line], delimiter=delimiter, strict=True))
        except csv.Error as error:
            raise ValueError(
                f'{place}, line {number}: {error}: {shortened(line)}.'
            ) from error
        if len(row) != len(head):
            raise ValueError(
                f'{place}, line {number}: {len(row)} fields for the '
                f'{len(head)} columns {shortened(", ".join(head))}: '
                f'{shortened(line)}.'
            )
        names.append(row[path].strip())
        if named:
            given.append(row[named[0]].strip())
        if group_by:
            groups.append(row[head.index(group_by)])
    return _labelled(names, given)._replace(groups=groups)


def _labelled(names: list[str], given: Sequence[str]) -> ImageList:
    """Take labels as numbers if all are, else as names."""
    if all(map(_LABEL.fullmatch, given)):
        labels = [int(label) for label in given]
        return ImageList(names, labels, _numbered(labels))
    return ImageList(names, *by_name(given))


def by_name(given: Sequence[str]) -> tuple[list[int], tuple[str, ...]]:
    """Number classes by their sorted names; return labels and names."""
    classes = tuple(sorted(set(given)))
    number = {name: i for i, name in enumerate(classes)}
    return [number[name] for name in given], classes


def _numbered(labels: Sequence[int]) -> tuple[str, ...]:
    return tuple(map(str, range(max(labels, default=-1) + 1)))


def _from_json(
    text: str, place: str, with_labels: bool, group_by: str
) -> ImageList:
    """Read OpenMMLab's data_list, or a plain list of paths."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f'{place} begins like JSON, but is none: {shortened(str(error))}.'
        ) from error
    entries, classes = content, tuple[str, ...]()
    if isinstance(content, dict):
        entries = content.get('data_list')
        meta = content.get('metainfo')
        found = meta.get('classes') if isinstance(meta, dict) else None
        if isinstance(found, list) and all(isinstance(c, str) for c in found):
            classes = tuple(found)
    if not isinstance(entries, list):
        has = ', '.join(map(str, content)) if isinstance(content, dict) else ''
        raise ValueError(
            f'{place} is JSON without a "data_list" (it has {shortened(has)}):'
            ' images are read from OpenMMLab\'s form, {"data_list": '
            '[{"img_path": "a.jpg", "gt_label": 0}]}, or from a text file '
            'with one path a line.'
        )
    names, labels, groups = [], [], []
    for number, entry in enumerate(entries):
        name = entry.get('img_path') if isinstance(entry, dict) else entry
        if not isinstance(name, str):
            raise ValueError(
                f'{place}, entry {number} of its data_list: expected '
                f'"img_path", got {shortened(entry)}.'
            )
        names.append(name)
        if with_labels:
            label = entry.get('gt_label') if isinstance(entry, dict) else None
            if type(label) is not int or not 0 <= label < 10**6:
                raise ValueError(
                    f'{place}, entry {number} of its data_list: with_labels '
                    'needs a whole number as "gt_label", got '
                    f'{shortened(entry)}.'
                )
            labels.append(label)
        if group_by:
            group = entry.get(group_by) if isinstance(entry, dict) else None
            if type(group) not in (str, int):
                raise ValueError(
                    f'{place}, entry {number} of its data_list: group_by='
                    f'{group_by!r} needs a name or a number there, got '
                    f'{shortened(group)}.'
                )
            groups.append(str(group))
    if max(labels, default=-1) >= len(classes):
        classes = _numbered(labels)
    return ImageList(names, labels, classes, groups)
