"""LVIS as its JSON files have it, without the package lvis."""

import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from mmengine.dataset import BaseDataset

from mmmoco.registry import DATASETS

from .files import open_regular

#: What each image of LVIS says besides: its classes were not all looked for.
FEDERATED = ('neg_category_ids', 'not_exhaustive_category_ids')


def read_lvis(path: str) -> dict[str, Any]:
    """Return the content of an annotation file.

    Raises:
        ValueError: If it is none of LVIS.
    """
    with open_regular(path) as file:
        content = json.load(file)
    parts = ('images', 'annotations', 'categories')
    if not isinstance(content, dict) or not all(
        isinstance(content.get(part), list) for part in parts
    ):
        raise ValueError(f'{path!r} has no {", ".join(parts)}, as LVIS has.')
    lacking = [
        name
        for image in content['images']
        for name in FEDERATED
        if name not in image
    ]
    if lacking:
        raise ValueError(
            f'{path!r} is not of LVIS: an image has no {lacking[0]}.'
        )
    return content


@DATASETS.register_module()
class LVISInstances(BaseDataset):
    """The images and instances of an LVIS file, as mmdet's LVISV05Dataset.

    Classes are in the order of the file.

    Args:
        ann_file: Relative to ``data_root``.
        backend_args: None; the files are local.
        **kwargs: As for mmengine's BaseDataset. ``filter_cfg``: ``min_size``
            of the shorter side, and ``filter_empty_gt``.

    Raises:
        ValueError: If the files are to come from elsewhere.
    """

    def __init__(
        self,
        ann_file: str,
        backend_args: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if backend_args:
            raise ValueError(
                f'LVISInstances(backend_args={dict(backend_args)}): it reads '
                'local files only; copy them and take backend_args=None.'
            )
        super().__init__(ann_file, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Return an entry for each image."""
        content = read_lvis(self.ann_file)
        categories = content['categories']
        self._metainfo['classes'] = tuple(c['name'] for c in categories)
        labels = {c['id']: label for label, c in enumerate(categories)}
        entries = {}
        for image in content['images']:
            # Version 0.5 has the names of COCO 2014, the files those of 2017.
            name = PurePosixPath(image.get('file_name') or image['coco_url'])
            short = name.name.rpartition('_')[2]
            coco = name.name.startswith('COCO_')
            entries[image['id']] = {
                'img_path': str(
                    PurePosixPath(
                        self.data_prefix['img'], short if coco else name
                    )
                ),
                'img_id': image['id'],
                'height': image['height'],
                'width': image['width'],
                'instances': [],
            }
        for instance in content['annotations']:
            entry = entries[instance['image_id']]
            x, y, width, height = instance['bbox']
            across = min(x + width, entry['width']) - max(x, 0)
            down = min(y + height, entry['height']) - max(y, 0)
            small = width < 1 or height < 1 or instance['area'] <= 0
            if across <= 0 or down <= 0 or small:
                continue
            entry['instances'].append(
                {
                    'ignore_flag': 0,
                    'bbox': [x, y, x + width, y + height],
                    'bbox_label': labels[instance['category_id']],
                    'mask': instance['segmentation'],
                }
            )
        return list(entries.values())

    def filter_data(self) -> list[dict[str, Any]]:
        """Leave out what ``filter_cfg`` says; nothing from a test."""
        wanted = self.filter_cfg or {}
        if self.test_mode:
            return self.data_list
        return [
            entry
            for entry in self.data_list
            if min(entry['width'], entry['height'])
            >= wanted.get('min_size', 0)
            and (entry['instances'] or not wanted.get('filter_empty_gt'))
        ]

    def get_cat_ids(self, idx: int) -> list[int]:
        """Return the classes of an image; rare ones are repeated by them."""
        found = self.get_data_info(idx)['instances']
        return [instance['bbox_label'] for instance in found]
