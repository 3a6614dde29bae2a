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
from mmmoco.messages import few

from .leaks import path_of


class Features(NamedTuple):
    """Features in the order of the data set.

    Attributes:
        values: N×C, float32, where :func:`place_for` puts them.
        labels: N class indices, or N×L with 1 where a class is present; N×0
            where the data set has none.
    """

    values: Tensor
    labels: Tensor


class Extracted(NamedTuple):
    """Features, and which samples they are of.

    Attributes:
        values: N×C, float32; of this process's share only, if that was asked.
        positions: Of each row in ``labels`` and ``ids``.
        labels: Of the whole data set, in its order.
        ids: Samples of the whole data set, ascending.
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
        model: An algorithm, without its wrapper: what has
            ``data_preprocessor`` and ``extract_feat``.
        loader: Yields ``{'inputs': {'image': …}, 'ids': …, 'labels': …}``.
        stage: ``'backbone'`` or ``'neck'``.

    Raises:
        ValueError: If the data set has no labels, or no sample.
    """
    found = extract(model, loader, stage)
    return Features(found.values, found.labels)


def extract(
    model: Any, loader: Any, stage: str = 'backbone', *, labelled: bool = True
) -> Extracted:
    """As :func:`extract_features`, and tell which samples they are of.

    Args:
        model: As for :func:`extract_features`.
        loader: Likewise.
        stage: Likewise.
        labelled: Whether a data set without labels is an error.
    """
    spread = get_world_size() == 1
    found = _run(model, loader, stage, spread=spread, labelled=labelled)
    rows = Rows(*map(gather, found))
    order, unreadable = _readable(rows.ids, rows.good, loader.dataset)
    values, positions = rows.values, torch.arange(len(order))
    if not torch.equal(order.cpu(), torch.arange(len(values))):
        values = values[order.to(values.device)]
    return Extracted(
        values, positions, rows.labels[order], rows.ids[order], unreadable
    )


def extract_share(
    model: Any,
    loader: Any,
    stage: str = 'backbone',
    folder: str | None = None,
) -> Extracted:
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
    values, *rest = _run(model, loader, stage, folder)
    labels, ids, good = map(gather, rest)
    order, unreadable = _readable(ids, good, loader.dataset)
    known = ids[order]
    kept = torch.zeros_like(good, dtype=torch.bool)
    kept[order] = True
    count = len(values)
    kept = kept[get_rank() * count : (get_rank() + 1) * count]
    own = rest[1][kept]
    if bool(kept[: len(own)].all()):
        # What pads the last share stands at its end.
        values = values[: len(own)]
    else:
        values = values[kept.to(values.device)]
    positions = torch.searchsorted(known, own)
    return Extracted(values, positions, labels[order], known, unreadable)


@torch.no_grad()
def _run(
    model: Any,
    loader: Any,
    stage: str,
    folder: str | None = None,
    spread: bool = True,
    labelled: bool = True,
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
            if labelled and 'labels' not in batch:
                raise ValueError(
                    'k-NN needs labels, but the data set gives none: use '
                    'class folders with with_labels=True, or a list of '
                    '"path label" lines.'
                )
            part = model.extract_feat(batch['inputs']['image'], stage).float()
            ids.append(batch['ids'])
            labels.append(batch.get('labels', ids[-1].new_empty(len(part), 0)))
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


def _readable(ids: Tensor, flags: Tensor, dataset: Any) -> tuple[Tensor, int]:
    """Return the row of each readable sample, in the data set's order.

    Replacements are left out, and what pads the shares of several processes.
    How many samples cannot be read is said, and returned.

    Args:
        ids: Samples, of all processes.
        flags: 0 where another sample stands for an unreadable one.
        dataset: Theirs.
    """
    good = flags.bool().nonzero()[:, 0]
    ranked, order = ids[good].sort(stable=True)
    first = torch.ones_like(ranked, dtype=torch.bool)
    first[1:] = ranked[1:] != ranked[:-1]  # Repeats padded a share.
    rows, size = good[order[first]], len(dataset)
    # What pads a share may be unreadable too, and does not count twice.
    unreadable = min(len(ids) - len(good), size - len(rows))
    if unreadable:
        lost = sorted(set(range(size)) - set(ids[rows].tolist()))
        named = [path_of(dataset, i) or f'sample {i}' for i in lost]
        print_log(
            f'{unreadable} of {size} images could not be read; they are left '
            f'out: {few(named, 3)}.',
            logger='current',
            level=logging.WARNING,
        )
    return rows, unreadable
