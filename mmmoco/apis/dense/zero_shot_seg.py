"""Zero-shot segmentation by a prompt."""

import csv
import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mmmoco.engine import checkpoint_io
from mmmoco.evaluation.zero_shot import (
    ObjectScores,
    ZeroShotResult,
    central_point,
    random_points,
    score_objects,
    similarity_maps,
)
from mmmoco.messages import log_info
from mmmoco.visualization.similarity import plot_thresholds

from .features import DenseFeatures, of_objects
from .object_masks import ObjectMasks


class Scored(NamedTuple):
    """All objects of a data set.

    Attributes:
        scores: By object; over several prompts, their mean.
        classes: Class of each object.
        images: Image of each object.
        seconds: Time per image, reading included.
    """

    scores: ObjectScores
    classes: list[int]
    images: list[int]
    seconds: float


def score_dataset(
    features: DenseFeatures,
    data: ObjectMasks,
    prompt: str = 'centre',
    prompts: int = 1,
    upsample: str = 'bilinear',
    batch_size: int = 16,
    seed: int = 0,
) -> Scored:
    """Segment every object from its prompts; one forward a batch of images.

    Args:
        features: Dense features of images.
        data: Images with masks.
        prompt: ``'centre'``: the pixel farthest from the mask's edge;
            ``'random'``: any pixel of it.
        prompts: Random prompts per object; their scores are averaged.
        upsample: How maps grow to the image, ``'bilinear'`` or
            ``'nearest'``.
        batch_size: Images in one forward.
        seed: Seed of the random prompts.

    Raises:
        UsageError: If there is no object.
    """
    parts: list[ObjectScores] = []
    classes: list[int] = []
    images: list[int] = []
    start = time.perf_counter()
    for i, item, (tokens,) in of_objects(features, data, batch_size):
        points = [
            point
            for q, mask in enumerate(item.masks)
            for point in (
                [central_point(mask)]
                if prompt == 'centre'
                else random_points(mask, prompts, seed, i, q)
            )
        ]
        each = len(points) // len(item.masks)
        masks = torch.from_numpy(item.masks).to(tokens.device)
        parts.append(_score(tokens, points, masks, each, upsample))
        classes += item.classes
        images += [i] * len(item.classes)
    seconds = (time.perf_counter() - start) / len(data)
    scores = ObjectScores(*map(torch.cat, zip(*parts, strict=True)))
    return Scored(scores, classes, images, seconds)


def _score(
    tokens: Tensor,
    points: Sequence[tuple[int, int]],
    masks: Tensor,
    each: int,
    upsample: str,
    chunk: int = 16,
) -> ObjectScores:
    """Score the prompts of one image, a few at a time to bound memory."""
    height, width = masks.shape[1:]
    parts = []
    for start in range(0, len(points), chunk):
        some = points[start : start + chunk]
        maps = similarity_maps(tokens, some, (height, width), upsample)
        rows = torch.arange(start, start + len(some)) // each
        parts.append(score_objects(maps, masks[rows.to(masks.device)]))
    joined = map(torch.cat, zip(*parts, strict=True))
    return ObjectScores(*(x.unflatten(0, (-1, each)).mean(1) for x in joined))


def log_figures(result: ZeroShotResult, scored: Scored) -> None:
    """Log the figures as a small table."""
    m = result.metrics
    rows = [(f'T = {t}', f'miou_t{t}') for t in ('0.1', '0.2', '0.3')] + [
        (
            f'T = {m["t_held_out"]:g}, chosen on the other half',
            'miou_held_out',
        ),
        (f'T = {m["t_oracle"]:g}, oracle', 'miou_oracle'),
        ('no threshold: average precision', 'ap'),
    ]
    lines = [
        f'{len(scored.classes)} objects in {len(set(scored.images))} images, '
        f'{scored.seconds:.3f} s an image',
        f'{"mIoU, %":<36}objects  classes',
    ]
    lines += [
        f'{title:<36}{m[f"{name}_objects"]:7.2f}  {m[f"{name}_classes"]:7.2f}'
        for title, name in rows
    ]
    log_info('\n'.join(lines))


def write_curve(folder: Path, result: ZeroShotResult) -> None:
    """Write ``zero_shot.csv`` and ``zero_shot.png``."""
    text = io.StringIO(newline='')
    writer = csv.writer(text)
    writer.writerow(['threshold', 'miou_objects', 'miou_classes'])
    writer.writerows((t, *pair) for t, pair in result.curve.items())
    checkpoint_io.write_text(folder / 'zero_shot.csv', text.getvalue())
    checkpoint_io.replace(
        folder / 'zero_shot.png',
        lambda file: plot_thresholds(file, result.curve),
    )
