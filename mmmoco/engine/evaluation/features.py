"""Features of a data set, by a model, over all processes."""

import logging
import os
import tempfile
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.logging import print_log
from torch import Tensor

from mmmoco.functional import gather


class Features(NamedTuple):
    """Features in the order of the data set.

    Attributes:
        values: N×C, float32, where :func:`place_for` puts them.
        labels: N class indices, or N×L with 1 where a class is present.
    """

    values: Tensor
    labels: Tensor


class Extracted(NamedTuple):
    """Features, and which samples they are of.

    Attributes:
        features: In the order of the data set.
        ids: N samples, ascending.
        unreadable: How many samples could not be read; they are left out.
    """

    features: Features
    ids: Tensor
    unreadable: int


class Share(NamedTuple):
    """The part of the features that this process made.

    Attributes:
        values: N_rank×C, float32.
        positions: N_rank places in the order of the data set; every sample
            belongs to one process.
        labels: Of the whole data set, in its order.
        ids: Of the whole data set, in its order.
        unreadable: How many samples could not be read; they are left out.
    """

    values: Tensor
    positions: Tensor
    labels: Tensor
    ids: Tensor
    unreadable: int


class Rows(NamedTuple):
    """What one process's loader gave, in its order; repeats included.

    Attributes:
        values: N_rank×C, float32.
        labels: Theirs.
        ids: Theirs.
        good: uint8, 0 where another sample stands for an unreadable one.
    """

    values: Tensor
    labels: Tensor
    ids: Tensor
    good: Tensor


def extract_features(
    model: Any, loader: Any, stage: str = 'backbone'
) -> Features:
    """Run a model over a labelled loader, in eval mode.

    Every process takes its share (the sampler's) and gets the whole.

    Args:
        model: An algorithm, without its wrapper.
        loader: Yields ``{'inputs': {'image': …}, 'ids': …, 'labels': …}``.
        stage: ``'backbone'`` or ``'neck'``.

    Raises:
        ValueError: If the data set has no labels, or no sample.
    """
    return extract(model, loader, stage).features


def extract(model: Any, loader: Any, stage: str = 'backbone') -> Extracted:
    """As :func:`extract_features`, and tell which samples they are of."""
    spread = get_world_size() == 1
    rows = Rows(*map(gather, _run(model, loader, stage, spread=spread)))
    kept, unreadable = _kept(rows.ids, rows.good, len(loader.dataset))
    order = kept.nonzero()[:, 0]
    order = order[rows.ids[order].argsort()]
    values = rows.values
    if not torch.equal(order.cpu(), torch.arange(len(values))):
        values = values[order.to(values.device)]
    return Extracted(
        Features(values, rows.labels[order]), rows.ids[order], unreadable
    )


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
        ValueError: If the data set has no labels, or no sample.
    """
    values, labels, ids, good = _run(model, loader, stage, folder)
    all_ids, all_labels = gather(ids), gather(labels)
    whole, unreadable = _kept(all_ids, gather(good), len(loader.dataset))
    known, order = all_ids[whole].sort()
    kept = whole[get_rank() * len(ids) : (get_rank() + 1) * len(ids)]
    if not bool(kept.all()):
        # What pads the last share stands at its end.
        last = int(kept.nonzero().max()) + 1 if bool(kept.any()) else 0
        if bool(kept[:last].all()):
            values, ids = values[:last], ids[:last]
        else:
            values, ids = values[kept.to(values.device)], ids[kept]
    return Share(
        values,
        torch.searchsorted(known, ids),
        all_labels[whole][order],
        known,
        unreadable,
    )


@torch.no_grad()
def _run(
    model: Any,
    loader: Any,
    stage: str,
    folder: str | None = None,
    spread: bool = True,
) -> Rows:
    """Return what this process's samples give.

    With ``spread`` the features may lie elsewhere than the model; what the
    processes exchange must not.
    """
    training = model.training
    model.eval()
    labels, ids, good = [], [], []
    values: Tensor | None = None
    done = 0
    try:
        for raw in loader:
            batch = model.data_preprocessor(raw, False)
            if 'labels' not in batch:
                raise ValueError(
                    'k-NN needs labels, but the data set gives none: use '
                    'class folders with with_labels=True, or a list of '
                    '"path label" lines.'
                )
            part = model.extract_feat(batch['inputs']['image'], stage).float()
            labels.append(batch['labels'])
            ids.append(batch['ids'])
            bad = torch.as_tensor(batch.get('bad', 0), device=ids[-1].device)
            good.append((bad == 0).to(torch.uint8).expand(len(part)))
            if values is None:
                values = _empty(len(loader.sampler), part, folder, spread)
            values[done : done + len(part)] = part
            done += len(part)
    finally:
        model.train(training)
    if values is None:
        raise ValueError('The data set of an evaluation holds no sample.')
    return Rows(
        values[:done], torch.cat(labels), torch.cat(ids), torch.cat(good)
    )


def place_for(size: int, device: torch.device) -> torch.device:
    """Return where features of so many bytes are kept.

    On the GPU as long as they take a quarter of what is free there: the
    searches need room beside them. Else in the memory of the host, from
    which :func:`mmmoco.functional.nearest` takes them chunk by chunk.

    Args:
        size: Bytes.
        device: Of the model.
    """
    if device.type == 'cuda' and size > _free_bytes(device) // 4:
        return torch.device('cpu')
    return device


def _free_bytes(device: torch.device) -> int:
    return int(torch.cuda.mem_get_info(device)[0])


def _empty(
    rows: int, like: Tensor, folder: str | None, spread: bool
) -> Tensor:
    """Return room for all features at once: joining them takes it twice."""
    if folder is not None:
        return _map(folder, rows, like.shape[1])
    place = like.device
    if spread:
        place = place_for(rows * like[0].nbytes, place)
    return torch.empty(rows, like.shape[1], device=place)


def _map(folder: str, rows: int, columns: int) -> Tensor:
    os.makedirs(folder, exist_ok=True)
    handle, name = tempfile.mkstemp(suffix='.features', dir=folder)
    os.close(handle)
    array = np.memmap(name, np.float32, 'w+', shape=(rows, columns))
    os.unlink(name)  # The mapping keeps the storage until it is gone.
    return torch.from_numpy(array)


def _kept(ids: Tensor, flags: Tensor, size: int) -> tuple[Tensor, int]:
    """Mark each readable sample once; count those that are not, and say so.

    Replacements are left out, and what pads the shares of several processes.

    Args:
        ids: Samples, of all processes.
        flags: 0 where another sample stands for an unreadable one.
        size: Samples of the data set.
    """
    good = flags.bool()
    readable = good.nonzero()[:, 0]
    kept = torch.zeros_like(good)
    kept[readable[_first(ids[readable])]] = True
    # What pads a share may be unreadable too, and does not count twice.
    unreadable = min(int((~good).sum()), size - int(kept.sum()))
    if unreadable:
        print_log(
            f'{unreadable} samples could not be read; they are left out of '
            'the evaluation.',
            logger='current',
            level=logging.WARNING,
        )
    return kept, unreadable


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
