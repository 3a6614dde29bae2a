"""AP of LVIS: against known cases, and against the package lvis 0.5.3."""

import json
import os

import numpy as np
import pytest
import torch

from mmmoco.evaluation.lvis import (
    MOST,
    LVISAveragePrecision,
    lvis_average_precision,
)

from ..conftest import optional

HEIGHT, WIDTH = 240, 320
#: By lvis 0.5.3 with numpy 1.26's meaning of ``np.float``, of seeds 0 and 1.
REFERENCE = {
    'bbox': [
        [
            0.2490746,
            0.437603,
            0.2471628,
            0.475,
            0.2856953,
            0.3491278,
            0.2525423,
            0.3271432,
            0.1675382,
        ],
        [
            0.2649836,
            0.4420542,
            0.2940718,
            0.0,
            0.261664,
            0.6179868,
            0.1600436,
            0.2833767,
            0.3226815,
        ],
    ],
    'segm': [
        [
            0.2452299,
            0.4459808,
            0.2629695,
            0.4375,
            0.2677117,
            0.3491278,
            0.2455274,
            0.3389149,
            0.1512474,
        ],
        [
            0.2625728,
            0.3996214,
            0.3147342,
            0.0,
            0.2571553,
            0.6137789,
            0.1494994,
            0.2437161,
            0.3505262,
        ],
    ],
}


@pytest.fixture(scope='module')
def masks():
    return optional('pycocotools.mask')


def generated(masks, seed):
    """Scenes with objects of nine classes, and detections good and bad."""
    draw = np.random.default_rng(seed)
    truth = {'images': [], 'annotations': [], 'categories': []}
    for i in draw.permutation(9).tolist():
        category = dict(id=i + 1, name=f'c{i}', frequency='rcf'[i % 3])
        truth['categories'].append(category)
    boxes = []
    for image in range(10, 16):
        classes = (draw.permutation(9) + 1).tolist()
        there, absent = classes[:3], classes[3:6]
        truth['images'].append(
            dict(
                id=image,
                height=HEIGHT,
                width=WIDTH,
                neg_category_ids=absent,
                not_exhaustive_category_ids=there[:1],
            )
        )
        for category in there:
            for _ in range(draw.integers(1, 5)):
                size = draw.integers(5, 150, 2)
                place = draw.integers(0, (WIDTH, HEIGHT) - size)
                x, y, w, h = map(float, (*place, *size))
                truth['annotations'].append(
                    dict(
                        id=len(truth['annotations']) + 1,
                        image_id=image,
                        category_id=category,
                        bbox=[x, y, w, h],
                        area=w * h,
                        segmentation=[
                            [x, y, x + w, y, x + w, y + h, x, y + h]
                        ],
                    )
                )
                for _ in range(draw.integers(0, 4)):
                    moved = draw.normal(0, 0.08, 4) * (w, h, w, h)
                    box = np.maximum((x, y, w, h) + moved, (0, 0, 2, 2))
                    boxes.append((image, category, box.tolist()))
        for category in classes:
            for _ in range(draw.integers(0, 4)):
                box = (*draw.uniform(0, 150, 2), *draw.uniform(5, 120, 2))
                boxes.append((image, category, list(map(float, box))))
    found = {'bbox': [], 'segm': []}
    for image, category, (x, y, w, h) in boxes:
        mask = np.zeros((HEIGHT, WIDTH), np.uint8, order='F')
        mask[int(y) : int(y + h), int(x) : int(x + w)] = 1
        one = dict(image_id=image, category_id=category)
        one['score'] = round(float(draw.random()), 2)  # With ties.
        found['bbox'].append(dict(one, bbox=[x, y, w, h]))
        found['segm'].append(dict(one, segmentation=masks.encode(mask)))
    return truth, found


@pytest.mark.parametrize('kind', REFERENCE)
@pytest.mark.parametrize('seed', [0, 1])
def test_figures_are_those_of_the_package(masks, kind, seed):
    truth, found = generated(masks, seed)
    figures = lvis_average_precision(truth, found[kind], kind)
    expected = REFERENCE[kind][seed]
    names = ('AP', 'AP50', 'AP75', *(f'AP{n}' for n in 'smlrcf'))
    assert figures == pytest.approx(dict(zip(names, expected)), abs=1e-6)


def small(**image):
    """One image with two objects of class 1; class 2 is somewhere else."""
    boxes = [[10, 10, 100, 100], [150, 20, 100, 100]]
    return {
        'images': [
            dict(
                {'neg_category_ids': [], 'not_exhaustive_category_ids': []},
                id=7,
                height=HEIGHT,
                width=WIDTH,
                **image,
            )
        ],
        'categories': [
            dict(id=1, name='a', frequency='f'),
            dict(id=2, name='b', frequency='r'),
        ],
        'annotations': [
            dict(id=i, image_id=7, category_id=1, bbox=box, area=10_000)
            for i, box in enumerate(boxes)
        ],
    }


def detection(box, score, category=1):
    return dict(image_id=7, category_id=category, bbox=box, score=score)


FIRST, SECOND = (one['bbox'] for one in small()['annotations'])
ELSEWHERE = [10, 150, 50, 50]


@pytest.mark.parametrize(
    ('image', 'found', 'expected'),
    [
        ({}, [detection(FIRST, 0.5), detection(SECOND, 0.9)], 1.0),
        # Precision 1 at recalls up to a half: 51 of 101.
        ({}, [detection(FIRST, 0.5)], 51 / 101),
        # A false one in front: precision 1/2, then 2/3, where it counts.
        (
            {},
            [
                detection(ELSEWHERE, 0.9),
                detection(FIRST, 0.5),
                detection(SECOND, 0.4),
            ],
            2 / 3,
        ),
        (
            {'not_exhaustive_category_ids': [1]},
            [
                detection(ELSEWHERE, 0.9),
                detection(FIRST, 0.5),
                detection(SECOND, 0.4),
            ],
            1.0,
        ),
        ({}, [detection(ELSEWHERE, 0.9)], 0.0),
        ({}, [], 0.0),
        # More than what counts of an image: the objects come too late.
        (
            {},
            [detection(ELSEWHERE, 0.9, 2)] * MOST + [detection(FIRST, 0.5)],
            0.0,
        ),
    ],
)
def test_known_cases(masks, image, found, expected):
    truth = small()
    truth['images'][0].update(image)
    figures = lvis_average_precision(truth, found, 'bbox')
    assert figures['AP'] == figures['APf'] == pytest.approx(expected)
    # No object of the other class, and none that is small.
    assert figures['APr'] == figures['APs'] == -1


@pytest.mark.parametrize(
    ('part', 'key'),
    [
        ('images', 'width'),
        ('images', 'neg_category_ids'),
        ('images', 'not_exhaustive_category_ids'),
        ('annotations', 'area'),
        ('categories', 'frequency'),
        ('categories', None),
        (None, '[' * 100_000),
        (None, '[1]'),
        (None, ''),
    ],
)
def test_what_lacks_is_told_before_the_training(part, key, tmp_path):
    truth = small()
    if part and key:
        del truth[part][-1][key]
    elif part:
        truth[part] *= 2
    text = json.dumps(truth) if part else key
    (tmp_path / 'lvis.json').write_text(text)
    with pytest.raises(ValueError, match=r'lvis\.json. is no file of LVIS'):
        LVISAveragePrecision(str(tmp_path / 'lvis.json'))


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / 'lvis.json')
    with pytest.raises(OSError, match='There is no file'):
        LVISAveragePrecision(str(tmp_path / 'lvis.json'))


def test_the_metric_reads_what_detectors_of_mmdet_give(masks, tmp_path):
    truth = small()
    for one in truth['annotations']:
        x, y, w, h = one['bbox']
        corners = [x, y, x + w, y, x + w, y + h, x, y + h]
        one['segmentation'] = [corners]
    file = tmp_path / 'lvis.json'
    file.write_text(json.dumps(truth))
    metric = LVISAveragePrecision(str(file), ['bbox', 'segm'])
    boxes = torch.tensor([FIRST, SECOND])
    boxes[:, 2:] += boxes[:, :2]
    shapes = torch.zeros(2, HEIGHT, WIDTH, dtype=torch.bool)
    shapes[0, 10:110, 10:110] = True  # The second mask is empty.
    instances = dict(
        bboxes=boxes,
        labels=torch.zeros(2, dtype=torch.long),
        scores=torch.tensor([0.5, 0.9]),
        masks=shapes,
    )
    metric.process(None, [dict(img_id=7, pred_instances=instances)])
    figures = metric.evaluate(1)
    assert figures['lvis/bbox_AP'] == 1
    # Precision 1/2 at recalls up to a half.
    assert figures['lvis/segm_AP50'] == pytest.approx(51 / 101 / 2)
