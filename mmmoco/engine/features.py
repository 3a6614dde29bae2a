"""Features of a data set, by a model, over all processes."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from mmengine.dist import get_world_size
from mmengine.logging import print_log
from torch import Tensor

from mmmoco.functional import gather


class Features(NamedTuple):
    """Features in the order of the data set, on the model's device.

    Attributes:
        values: N×C, float32.
        labels: N class indices.
    """

    values: Tensor
    labels: Tensor


@torch.no_grad()
def extract_features(
    model: Any, loader: Iterable[Mapping[str, Any]], stage: str = 'backbone'
) -> Features:
    """Run a model over a labelled loader, in eval mode.

    Every process takes its share (the sampler's) and gets the whole.

    Args:
        model: An algorithm, without its wrapper.
        loader: Yields ``{'inputs': {'image': …}, 'ids': …, 'labels': …}``.
        stage: ``'backbone'`` or ``'neck'``.

    Raises:
        ValueError: If the data set has no labels.
    """
    training = model.training
    model.eval()
    values, labels, ids = [], [], []
    bad = 0
    try:
        for raw in loader:
            batch = model.data_preprocessor(raw, False)
            if 'labels' not in batch:
                raise ValueError(
                    'k-NN needs labels, but the data set gives none: use '
                    'class folders with with_labels=True, or a list of '
                    '"path label" lines.'
                )
            x = batch['inputs']['image']
            values.append(model.extract_feat(x, stage).float())
            labels.append(batch['labels'])
            ids.append(batch['ids'])
            bad += int((torch.as_tensor(batch.get('bad', 0)) > 0).sum())
    finally:
        model.train(training)
    joined = [torch.cat(parts) for parts in (values, labels, ids)]
    if get_world_size() > 1:
        joined = [gather(part) for part in joined]
    if bad:
        print_log(
            f'{bad} samples could not be read; they are left out of the '
            'evaluation.',
            logger='current',
            level=logging.WARNING,
        )
    # A replacement of a bad sample has the id of another one, and is dropped.
    return _in_order(*joined)


def _in_order(values: Tensor, labels: Tensor, ids: Tensor) -> Features:
    """Sort by sample, and drop the ones that padded the last share."""
    order = ids.argsort(stable=True)
    ids = ids[order]
    first = torch.ones_like(ids, dtype=torch.bool)
    first[1:] = ids[1:] != ids[:-1]
    order = order[first]
    return Features(values[order], labels[order])
