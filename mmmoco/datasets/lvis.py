"""LVIS as its JSON files have it, without the package lvis."""

import json
import os
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from mmengine.dataset import BaseDataset

from mmmoco.files import read_file
from mmmoco.messages import shortened
from mmmoco.registry import DATASETS

#: The largest file of version 1 has a little more than 1 GiB.
_MOST_BYTES = 2 << 30


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
        """Return an entry for each image.

        Raises:
            ValueError: If the file is none of LVIS.
        """
        data = read_file(self.ann_file, _MOST_BYTES)
        try:
            return self._entries(json.loads(data))
        except (
            *(AttributeError, KeyError, TypeError, ValueError),
            RecursionError,
        ) as error:
            text = f'{self.ann_file!r} is no file of LVIS ({error!r}).'
            raise ValueError(text) from error

    def _entries(self, content: dict[str, Any]) -> list[dict[str, Any]]:
        categories = content['categories']
        self._metainfo['classes'] = tuple(c['name'] for c in categories)
        labels = {c['id']: label for label, c in enumerate(categories)}
        entries = {}
        for image in content['images']:
            # Version 0.5 has the names of COCO 2014, the files those of 2017.
            name = PurePosixPath(image.get('file_name') or image['coco_url'])
            if name.name.startswith('COCO_'):
                name = PurePosixPath(name.name.rpartition('_')[2])
            if name.is_absolute() or '..' in name.parts:
                text = (
                    f'an image outside of its folder, {shortened(str(name))}'
                )
                raise ValueError(text)
            entries[image['id']] = {
                'img_path': os.path.join(self.data_prefix['img'], name),
                'img_id': image['id'],
                'height': image['height'],
                'width': image['width'],
                'instances': [],
            }
        for one in content['annotations']:
            entry = entries[one['image_id']]
            x, y, width, height = one['bbox']
            across = min(x + width, entry['width']) - max(x, 0)
            down = min(y + height, entry['height']) - max(y, 0)
            small = width < 1 or height < 1 or one['area'] <= 0
            if across > 0 and down > 0 and not small:
                box = [x, y, x + width, y + height]
                entry['instances'].append(
                    {
                        'ignore_flag': 0,
                        'bbox': box,
                        'bbox_label': labels[one['category_id']],
                        'mask': one['segmentation'],
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
