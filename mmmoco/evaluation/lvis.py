"""Average precision of LVIS, by pycocotools; the package lvis is not needed.

Not every class was looked for in every image. In an image, a detection counts
only if its class is there or is known not to be; and one that is matched to
nothing does not count if not all objects of its class were marked.
"""

import contextlib
import io
import json
import os
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric

from mmmoco.messages import library
from mmmoco.registry import METRICS

#: Of an image, those with the highest scores.
MOST = 300
#: What a file tells of each.
_KEYS = {
    'images': (
        *('id', 'width', 'height'),
        *('neg_category_ids', 'not_exhaustive_category_ids'),
    ),
    'annotations': ('image_id', 'category_id', 'bbox', 'area'),
    'categories': ('id', 'frequency'),
}


def lvis_average_precision(
    truth: Mapping[str, Any], found: Sequence[Mapping[str, Any]], kind: str
) -> dict[str, float]:
    """Return AP over all IoUs, classes and sizes, and parts of it.

    Args:
        truth: Content of an annotation file.
        found: Detections with ``image_id``, ``category_id``, ``score`` and
            ``bbox`` (x, y, width, height) or ``segmentation`` (RLE).
        kind: ``'bbox'`` or ``'segm'``.

    Returns:
        Fractions, −1 where there are no such objects.
    """
    masks = library('pycocotools.mask', 'The evaluation of LVIS')
    evaluation = library('pycocotools.cocoeval', 'The evaluation of LVIS')
    images = {image['id']: image for image in truth['images']}
    objects = [dict(one, iscrowd=0) for one in truth['annotations']]
    known = {(one['image_id'], one['category_id']) for one in objects}
    for name, image in images.items():
        known |= {(name, c) for c in image['neg_category_ids']}
        # What a crowd has matched is not counted: this one matches all.
        height, width = image['height'], image['width']
        objects += [
            {
                'image_id': name,
                'category_id': category,
                'iscrowd': 1,
                'area': height * width,
                'bbox': [-1e6, -1e6, 3e6, 3e6],
                'segmentation': {
                    'size': [height, width],
                    'counts': [0, height * width],
                },
            }
            for category in image['not_exhaustive_category_ids']
        ]
    counted, taken = [], Counter[Any]()
    for one in sorted(found, key=lambda one: -one['score']):
        name = one['image_id']
        taken[name] += 1
        if taken[name] <= MOST and (name, one['category_id']) in known:
            if kind == 'bbox':
                area = one['bbox'][2] * one['bbox'][3]
            else:
                area = float(masks.area(one['segmentation']))
            counted.append(dict(one, area=area, iscrowd=0))
    with contextlib.redirect_stdout(io.StringIO()):  # It says each step.
        evaluator = evaluation.COCOeval(
            _coco(truth, objects), _coco(truth, counted), kind
        )
        evaluator.params.maxDets = [MOST]
        evaluator.evaluate()
        evaluator.accumulate()
    # IoU × recall × class × size
    precision = evaluator.eval['precision'][..., 0]
    classes = sorted(truth['categories'], key=lambda one: one['id'])
    often = np.array([one['frequency'] for one in classes])
    parts = {
        'AP': precision[..., 0],
        'AP50': precision[0, ..., 0],
        'AP75': precision[5, ..., 0],
        **{f'AP{n}': precision[..., i] for i, n in enumerate('sml', 1)},
        **{f'AP{n}': precision[:, :, often == n, 0] for n in 'rcf'},
    }
    kept = {name: part[part > -1] for name, part in parts.items()}
    return {n: float(p.mean()) if p.size else -1.0 for n, p in kept.items()}


def _coco(truth: Mapping[str, Any], objects: list[dict[str, Any]]) -> Any:
    """Return an index of objects, which get numbers of their own."""
    index = library('pycocotools.coco', 'The evaluation of LVIS').COCO()
    for number, one in enumerate(objects, 1):
        one['id'] = number
    index.dataset = {**truth, 'annotations': objects}
    index.createIndex()
    return index


@METRICS.register_module()
class LVISAveragePrecision(BaseMetric):
    """AP of detections and masks on LVIS, as mmdet's LVISMetric names it.

    Args:
        ann_file: Annotation file of LVIS.
        metric: ``'bbox'``, ``'segm'``, or both.
        backend_args: None; the file is local.
        **kwargs: As for mmengine's BaseMetric.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is none of LVIS.
    """

    default_prefix = 'lvis'

    def __init__(
        self,
        ann_file: str,
        metric: str | Sequence[str] = 'bbox',
        backend_args: None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.kinds = [metric] if isinstance(metric, str) else list(metric)
        if not os.path.isfile(ann_file):
            raise FileNotFoundError(f'There is no file {ann_file!r}.')
        try:
            with open(ann_file, encoding='utf-8') as file:
                self.truth = json.load(file)
            # What is needed after the training is looked for before it.
            for part, keys in _KEYS.items():
                deque(map(itemgetter(*keys), self.truth[part]), maxlen=0)
            self.categories = [c['id'] for c in self.truth['categories']]
            if len({*self.categories}) < len(self.categories):
                raise ValueError('categories that have the same id')
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            text = f'{ann_file!r} is no file of LVIS ({error!r}).'
            raise ValueError(text) from error

    def process(
        self, data_batch: Any, data_samples: Sequence[dict[str, Any]]
    ) -> None:
        """Keep the detections of a batch."""
        masks = library('pycocotools.mask', 'The evaluation of LVIS')
        for sample in data_samples:
            found = sample['pred_instances']
            boxes = found['bboxes'].cpu().to(torch.float64, copy=True)
            boxes[:, 2:] -= boxes[:, :2]
            labels = found['labels'].tolist()
            columns = {
                'image_id': [sample['img_id']] * len(labels),
                'category_id': [self.categories[label] for label in labels],
                'score': found['scores'].tolist(),
                'bbox': boxes.tolist(),
            }
            if 'segm' in self.kinds:
                shapes = found['masks']
                if isinstance(shapes, torch.Tensor):  # Columns first, there.
                    shapes = shapes.permute(1, 2, 0).cpu().numpy()
                    shapes = masks.encode(np.asfortranarray(shapes, np.uint8))
                columns['segmentation'] = list(shapes)
            rows = zip(*columns.values(), strict=True)
            self.results.append(
                [dict(zip(columns, row, strict=True)) for row in rows]
            )

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Return the figures of each kind."""
        found = [one for sample in results for one in sample]
        return {
            f'{kind}_{name}': value
            for kind in self.kinds
            for name, value in lvis_average_precision(
                self.truth, found, kind
            ).items()
        }
