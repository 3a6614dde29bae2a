"""Objects in a file of COCO's format: read, checked, and mended.

mmdet finds classes by name, but numbers them as the file lists them, and
leaves out without a word what it cannot use.
"""

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mmmoco.datasets.transforms.loading import MAX_PIXELS, decoding, identify
from mmmoco.files import read_file
from mmmoco.messages import few, shortened

from .labels import Labels

#: Number of names that a message holds.
_SHOWN = 8
#: What a config can hold.
_MOST_CLASSES, _MOST_LETTERS = 20_000, 1000
#: Ids that are exact as numbers of any kind; larger pixels are none.
_LARGEST_ID, _LARGEST = 1 << 53, 1e9
#: So many images are opened, evenly chosen.
_MOST_OPENED = 2000
_ORIENTATION = 0x0112
#: How far an outline may leave its image: pycocotools walks along all of it.
_BEYOND = 10


@dataclass
class Objects(Labels):
    """What a file holds.

    Attributes:
        ann: The file.
        content: Its JSON, mended.
        classes: Those that are wanted, as the file lists them.
        mended: What was changed; then a copy has to be written.
    """

    ann: str
    content: dict[str, Any]
    classes: tuple[str, ...]
    mended: list[str] = field(default_factory=list)

    @property
    def numbers(self) -> dict[str, int]:
        """Return the ids of the classes, by name."""
        ids = {x['name']: x['id'] for x in self.content['categories']}
        return {name: ids[name] for name in self.classes}

    def text(self) -> str | None:
        """Return the mended JSON; None if the file can be used as it is."""
        return json.dumps(self.content) if self.mended else None


def read_objects(
    ann: str, folder: str, wanted: Sequence[str] | None, outlines: bool
) -> Objects:
    """Read and check a file.

    Args:
        ann: The file.
        folder: Of its images.
        wanted: Names of the classes; None: all.
        outlines: Whether every object needs one.

    Raises:
        OSError: If the file, or an image, is missing or cannot be read.
        ValueError: If something in it cannot be used.
    """
    try:
        data = read_file(ann)
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{ann!r} is no JSON ({error}).') from error
    if not isinstance(content, dict):
        raise ValueError(f'{ann!r} is no file of COCO: it holds no object.')
    images = _entries(
        ann, content, 'images', id=int, file_name=str, width=int, height=int
    )
    categories = _entries(ann, content, 'categories', id=int, name=str)
    objects = _entries(
        ann, content, 'annotations', image_id=int, category_id=int, bbox=list
    )
    _require_unique(ann, 'images', 'id', images)
    _require_unique(ann, 'categories', 'id', categories)
    _require_unique(ann, 'categories', 'name', categories)
    names = [x['name'] for x in categories]
    if len(names) > _MOST_CLASSES or len(max(names, key=len)) > _MOST_LETTERS:
        raise ValueError(
            f'{ann!r} has {len(names):,} categories, with names of up to '
            f'{len(max(names, key=len)):,} letters; at most '
            f'{_MOST_CLASSES:,} of {_MOST_LETTERS:,} go into a config.'
        )
    unknown = [name for name in wanted or () if name not in names]
    if unknown:
        raise ValueError(
            f'--classes: {ann!r} has no {_listed(unknown)}; it has '
            f'{_listed(names)}.'
        )
    kept = tuple(n for n in names if wanted is None or n in wanted)
    files = [x['file_name'] for x in images]
    found = Objects(folder, files, ann, content, kept)
    if json.detect_encoding(data) != 'utf-8':  # pycocotools reads no other.
        found.mended.append('it is written in UTF-8')
    sizes = {x['id']: (x['width'], x['height']) for x in images}
    for number, (width, height) in sizes.items():
        if min(width, height) < 1 or width * height > MAX_PIXELS:
            raise ValueError(
                f'{ann!r} says that the image {number} has {width}×{height} '
                f'pixels; between 1 and {MAX_PIXELS:,} are read.'
            )
    _check_objects(found, sizes, {x['id'] for x in categories}, outlines)
    _check_files(found)
    _mend(found, objects)
    return found


def follow(val: Objects, train: Objects) -> None:
    """Let the classes of a second file be those of the first, in its order.

    Raises:
        ValueError: If it has objects of another class.
    """
    used = {x['category_id'] for x in val.content['annotations']}
    other = [
        name
        for name, number in val.numbers.items()
        if name not in train.classes and number in used
    ]
    if other:
        raise ValueError(
            f'{val.ann!r} has objects of {_listed(other)}, which {train.ann!r}'
            ' does not know. Name the classes that both have with --classes.'
        )
    known = {x['name']: x for x in val.content['categories']}
    own = [name for name in known if name in train.classes]
    if tuple(own) != train.classes:
        free = max((x['id'] for x in known.values()), default=0) + 1
        first = [
            known.get(name) or {'id': free + i, 'name': name}
            for i, name in enumerate(train.classes)
        ]
        rest = [x for n, x in known.items() if n not in train.classes]
        val.content['categories'] = first + rest
        val.mended.append('its categories stand as those of the training')
    val.classes = train.classes


def _entries(
    ann: str, content: dict[str, Any], part: str, **kinds: type
) -> list[dict[str, Any]]:
    """Return the entries of a part, each with keys of these types."""
    entries = content.get(part)
    if not isinstance(entries, list) or not entries:
        raise ValueError(
            f'{ann!r} has no {part}: it is no file of COCO with objects '
            '(images, annotations, categories).'
        )
    for i, entry in enumerate(entries):
        given = entry if isinstance(entry, dict) else {}
        for key, kind in kinds.items():
            value = given.get(key)
            large = isinstance(value, int) and abs(value) >= _LARGEST_ID
            if type(value) is not kind or large:
                raise ValueError(
                    f'{ann!r}: {part}[{i}] has '
                    f'{key}={shortened(given.get(key), 60)}, where '
                    f'{_WORDS[kind]} has to stand.'
                )
    return entries


_WORDS = {int: 'a whole number', str: 'a text', list: 'a list'}


def _require_unique(
    ann: str, part: str, key: str, entries: list[dict[str, Any]]
) -> None:
    count = Counter(entry[key] for entry in entries)
    twice = [value for value, number in count.items() if number > 1]
    if twice:
        raise ValueError(
            f'{ann!r}: several {part} have the same {key}: {_listed(twice)}. '
            f'Give each its own.'
        )


def _check_objects(
    found: Objects,
    sizes: dict[int, tuple[int, int]],
    ids: set[int],
    outlines: bool,
) -> None:
    """Check objects, and count what the reader may want to know."""
    of_class = {number: name for name, number in found.numbers.items()}
    count: Counter[str] = Counter()
    crowds, outside, with_objects = 0, 0, set[int]()
    for i, item in enumerate(found.content['annotations']):
        place = f'{found.ann!r}: annotations[{i}]'
        number, image = item['category_id'], item['image_id']
        if image not in sizes or number not in ids:
            name = 'category_id' if image in sizes else 'image_id'
            raise ValueError(
                f'{place} has {name}={item[name]}, which no entry has as its '
                'id.'
            )
        box = item['bbox']
        if len(box) != 4 or not all(map(_is_number, box)):
            raise ValueError(
                f'{place} has bbox={shortened(box, 60)}, where four numbers '
                'have to stand: left, top, width, height.'
            )
        if number not in of_class:
            continue
        outline = item.get('segmentation')
        if outlines and not _is_outline(outline, sizes[image]):
            raise ValueError(
                f'{place} has no outline that can be used (segmentation='
                f'{shortened(outline, 60)}): polygons of '
                'three points or more, or RLE of the size of its image. '
                'Remove the object, or train boxes alone: det.'
            )
        x, y, w, h = box
        width, height = sizes[image]
        seen = min(x + w, width) > max(x, 0) and min(y + h, height) > max(y, 0)
        if not seen or w < 1 or h < 1:
            outside += 1
            continue
        with_objects.add(image)
        if item.get('iscrowd') or item.get('ignore'):
            crowds += 1
        else:
            count[of_class[number]] += 1
    if not count:
        raise ValueError(
            f'{found.ann!r} has no object of {_listed(found.classes)} that '
            'can be trained on.'
        )
    ranked = [f'{shortened(n, 40)} {c:,}' for n, c in count.most_common()]
    text = f'{len(sizes):,} images, {count.total():,} objects: {few(ranked)}'
    odd = {
        'images without objects are kept as negatives': len(sizes)
        - len(with_objects),
        'objects are crowds, or marked ignore: not learnt': crowds,
        'boxes lie outside of their image, or are smaller than a pixel: '
        'mmdet leaves them out': outside,
    }
    found.remarks += [text, *(f'{n:,} {what}' for what, n in odd.items() if n)]
    absent = [name for name in found.classes if not count[name]]
    if absent:
        found.remarks.append(f'no objects of {_listed(absent)}')


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= _LARGEST


def _is_outline(outline: Any, size: tuple[int, int]) -> bool:
    if isinstance(outline, dict):
        runs = outline.get('counts')
        whole = isinstance(runs, str) or (
            isinstance(runs, list)
            and all(type(n) is int and n >= 0 for n in runs)
            and sum(runs) == size[0] * size[1]
        )
        return whole and outline.get('size') == [size[1], size[0]]
    far = _BEYOND * max(size)
    return (
        isinstance(outline, list)
        and bool(outline)
        and all(
            isinstance(x, list)
            and len(x) >= 6
            and len(x) % 2 == 0
            and all(_is_number(v) and abs(v) <= far for v in x)
            for x in outline
        )
    )


def _check_files(found: Objects) -> None:
    """See that the images are there, and as large as is said.

    Raises:
        FileNotFoundError: If not, with the first of them.
        ValueError: If one has another size: its boxes are elsewhere.
    """
    names = found.names
    absent = [name for name in names if not _exists(found.folder, name)]
    if absent:
        shown = few([shortened(name, 80) for name in absent], 3)
        raise FileNotFoundError(
            f'{len(absent):,} of {len(names):,} images of {found.ann!r} are '
            f'not in {found.folder!r}: {shown}. The folder has to be the one '
            'from which file_name counts.'
        )
    for image in found.content['images'][:: -(-len(names) // _MOST_OPENED)]:
        path = os.path.join(found.folder, image['file_name'])
        said = image['width'], image['height']
        if said != _size(path):
            width, height = _size(path)
            raise ValueError(
                f'{found.ann!r} says that {shortened(image["file_name"])} has '
                f'{said[0]}×{said[1]} pixels, the file has {width}×{height}, '
                'upright as its EXIF says: its boxes would be elsewhere.'
            )


def _size(path: str) -> tuple[int, int]:
    """Return width and height of an image as mmdet turns it."""
    data = read_file(path)
    with decoding(path):
        image = identify(data)
        turned = image.getexif().get(_ORIENTATION, 1) > 4
        width, height = image.size
    return (height, width) if turned else (width, height)


def _exists(folder: str, name: str) -> bool:
    if '\0' in name or '://' in name:  # mmengine would ask elsewhere.
        return False
    path = os.path.normpath(os.path.join(folder, name))
    inside = os.path.commonpath([folder, path]) == folder
    return inside and os.path.isfile(path)


def _mend(found: Objects, objects: list[dict[str, Any]]) -> None:
    """Give objects what the evaluation needs and some tools do not write."""
    ids = [x.get('id') for x in objects]
    usable = all(type(x) is int and 0 < abs(x) < _LARGEST_ID for x in ids)
    if not usable or len({*ids}) < len(ids):
        # An object with the id 0 counts as not found.
        found.mended.append('its annotations have ids from 1 on')
        for i, item in enumerate(objects, 1):
            item['id'] = i
    # mmdet leaves out what has no area.
    without = [x for x in objects if not _is_area(x.get('area'))]
    for item in without:
        item['area'] = item['bbox'][2] * item['bbox'][3]
    unsure = [x for x in objects if not _is_number(x.get('iscrowd'))]
    for item in unsure:
        item['iscrowd'] = int(item.get('iscrowd') is True)
    for key, lacking in (('area', without), ('iscrowd', unsure)):
        if lacking:
            found.mended.append(f'its annotations have {key}')


def _is_area(value: Any) -> bool:
    return _is_number(value) and value > 0


def _listed(names: Sequence[Any]) -> str:
    return few([shortened(name, 60) for name in names], _SHOWN)
