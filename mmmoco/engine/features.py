"""Features of a data set, by a model, over all processes."""

import logging
import os
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.logging import print_log
from torch import Tensor

from mmmoco.functional import gather


class Features(NamedTuple):
    """Features in the order of the data set, on the model's device.

    Attributes:
        values: N×C, float32.
        labels: N class indices, or N×L with 1 where a class is present.
    """

    values: Tensor
    labels: Tensor


class Share(NamedTuple):
    """The part of the features that this process made.

    Attributes:
        values: N_rank×C, float32.
        positions: N_rank places in the order of the data set; every sample
            belongs to one process.
        labels: Of the whole data set, in its order.
    """

    values: Tensor
    positions: Tensor
    labels: Tensor


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
    values, labels, ids = map(gather, _run(model, loader, stage, None))
    first = _first(ids)
    order = torch.arange(len(ids), device=ids.device)[first]
    order = order[ids[first].argsort()]
    return Features(values[order], labels[order])


def extract_share(
    model: Any,
    loader: Any,
    stage: str = 'backbone',
    folder: str | None = None,
) -> Share:
    """Run a model over this process's share of a loader, and keep it here.

    Args:
        model: As for :func:`extract_features`.
        loader: Likewise; a data loader.
        stage: ``'backbone'`` or ``'neck'``.
        folder: Keep the features in a file there, mapped into memory, which
            vanishes with them; for banks that do not fit the memory.

    Raises:
        ValueError: If the data set has no labels.
    """
    values, labels, ids = _run(model, loader, stage, folder)
    all_ids, all_labels = gather(ids), gather(labels)
    first = _first(all_ids)
    known, order = all_ids[first].sort()
    mine = slice(get_rank() * len(ids), (get_rank() + 1) * len(ids))
    kept = first[mine]
    if not bool(kept.all()):
        # What pads the last share stands at its end.
        last = int(kept.nonzero().max()) + 1 if bool(kept.any()) else 0
        if bool(kept[:last].all()):
            values, ids = values[:last], ids[:last]
        else:
            values, ids = values[kept.to(values.device)], ids[kept]
    return Share(
        values, torch.searchsorted(known, ids), all_labels[first][order]
    )


@torch.no_grad()
def _run(
    model: Any, loader: Any, stage: str, folder: str | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return values, labels and ids of this process's samples."""
    training = model.training
    model.eval()
    values, labels, ids = [], [], []
    mapped: Tensor | None = None
    done = bad = 0
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
            part = model.extract_feat(x, stage).float()
            labels.append(batch['labels'])
            ids.append(batch['ids'])
            bad += int((torch.as_tensor(batch.get('bad', 0)) > 0).sum())
            if folder is None:
                values.append(part)
                continue
            if mapped is None:
                mapped = _map(folder, len(loader.sampler), part.shape[1])
            mapped[done : done + len(part)] = part.cpu()
            done += len(part)
    finally:
        model.train(training)
    if bad:
        # Each carries the id of its replacement, and counts as a repeat.
        print_log(
            f'{bad} samples could not be read; they are left out of the '
            'evaluation.',
            logger='current',
            level=logging.WARNING,
        )
    joined = torch.cat(values) if mapped is None else mapped[:done]
    return joined, torch.cat(labels), torch.cat(ids)


def _map(folder: str, rows: int, columns: int) -> Tensor:
    os.makedirs(folder, exist_ok=True)
    handle, name = tempfile.mkstemp(suffix='.features', dir=folder)
    os.close(handle)
    array = np.memmap(name, np.float32, 'w+', shape=(rows, columns))
    os.unlink(name)  # The mapping keeps the storage until it is gone.
    return torch.from_numpy(array)


def _first(ids: Tensor) -> Tensor:
    """Mark the first occurrence of every id; repeats padded a share."""
    if get_world_size() == 1 and len(ids) == len(ids.unique()):
        return torch.ones_like(ids, dtype=torch.bool)
    ranked, order = ids.sort(stable=True)
    new = torch.ones_like(ids, dtype=torch.bool)
    new[1:] = ranked[1:] != ranked[:-1]
    first = torch.empty_like(new)
    first[order] = new
    return first
