"""Features of a data set, by a model, over all processes."""

import os
import tempfile
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.dist import get_rank, get_world_size
from torch import Tensor

from mmmoco.functional import gather
from mmmoco.messages import few, log_warning
from mmmoco.progress import Progress

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
    model: Any,
    loader: Any,
    stage: str = 'backbone',
    *,
    labelled: bool = True,
    share: bool = False,
    folder: str | None = None,
) -> Extracted:
    """As :func:`extract_features`, and tell which samples they are of.

    Args:
        model: As for :func:`extract_features`.
        loader: As for :func:`extract_features`.
        stage: As for :func:`extract_features`.
        labelled: Whether a data set without labels is an error.
        share: Leave the features where they were made: every process gets
            its own share of them.
        folder: Keep them in a file there, mapped into memory, which vanishes
            with them; for banks that do not fit the memory. With ``share``.

    Raises:
        ValueError: If the data set has no sample, or no labels.
    """
    # What the processes exchange must lie where the model is.
    spread = share or get_world_size() == 1
    values, *own = _run(model, loader, stage, folder, spread, labelled)
    labels, ids, good = map(gather, own)
    rows, unreadable = _readable(ids, good, loader.dataset)
    known = ids[rows]
    if share:
        kept = torch.zeros_like(good, dtype=torch.bool)
        kept[rows] = True
        kept = kept[get_rank() * len(values) :][: len(values)]
        positions = torch.searchsorted(known, own[1][kept])
        chosen = kept.nonzero()[:, 0]
    else:
        values, chosen = gather(values), rows
        positions = torch.arange(len(rows))
    if torch.equal(chosen.cpu(), torch.arange(len(chosen))):
        # In order; what pads the last share stands at its end: no copy.
        values = values[: len(chosen)]
    else:
        values = values[chosen.to(values.device)]
    return Extracted(values, positions, labels[rows], known, unreadable)


@torch.no_grad()
def _run(
    model: Any,
    loader: Any,
    stage: str,
    folder: str | None,
    spread: bool,
    labelled: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what this process's loader gives, in its order, with repeats.

    Features, labels, ids, and 0 (uint8) where another sample stands for an
    unreadable one. With ``spread`` the features may lie elsewhere than the
    model.
    """
    training = model.training
    model.eval()
    labels, ids, good = [], [], []
    values: Tensor | None = None
    done = 0
    rows = len(loader.sampler)
    try:
        with Progress('Features of images', rows) as progress:
            for raw in loader:
                batch = model.data_preprocessor(raw, False)
                if labelled and 'labels' not in batch:
                    raise ValueError(
                        'k-NN needs labels, but the data set gives none: use '
                        'class folders with with_labels=True, or a list of '
                        '"path label" lines.'
                    )
                images = batch['inputs']['image']
                part = model.extract_feat(images, stage).float()
                ids.append(batch['ids'])
                none = ids[-1].new_empty(len(part), 0)
                labels.append(batch.get('labels', none))
                bad = batch.get('bad', 0)
                bad = torch.as_tensor(bad, device=ids[-1].device)
                good.append((bad == 0).to(torch.uint8).expand(len(part)))
                if values is None:
                    values = _empty(rows, part, folder, spread)
                values[done : done + len(part)] = part
                done += len(part)
                progress.advance(len(part))
    finally:
        model.train(training)
    if values is None:
        raise ValueError('The data set of an evaluation holds no sample.')
    parts = torch.cat(labels), torch.cat(ids), torch.cat(good)
    return values[:done], *parts


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
        log_warning(
            f'{unreadable} of {size} images could not be read; they are left '
            f'out: {few(named, 3)}.'
        )
    return rows, unreadable
