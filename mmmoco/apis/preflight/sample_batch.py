"""One batch as a config's loader would give it, with or without its data."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from PIL import Image
from torch.utils.data import default_collate

from mmmoco.datasets import SampleAddress
from mmmoco.registry import DATASETS, bare_type, dicts_in, in_scope_of

#: Side of the synthetic images; the views are cut from them.
SIDE = 256


def open_dataset(cfg: Config) -> tuple[Any, str]:
    """Return the training data set, or None and why its data is missing."""
    try:
        with in_scope_of(cfg):
            return DATASETS.build(cfg.train_dataloader.dataset), ''
    except FileNotFoundError as error:
        return None, str(error)


def draw(cfg: Config) -> dict[str, Any]:
    """Return ``{'inputs': {view: uint8 1×C×H×W}, 'ids': 1, …}``.

    From the data set, else from a synthetic image through its pipeline.
    """
    with in_scope_of(cfg), tempfile.TemporaryDirectory() as folder:
        dataset, _ = open_dataset(cfg)
        if dataset is None:
            dataset = DATASETS.build(synthetic_dataset(cfg, 1, Path(folder)))
        addressed = hasattr(dataset, 'bad_files')
        first = SampleAddress(0, epoch=0, seed=0) if addressed else 0
        batch: dict[str, Any] = default_collate([dataset[first]])
        return batch


def synthetic_dataset(cfg: Config, n: int, folder: Path) -> dict[str, Any]:
    """Write images of noise; return the config of a data set of them.

    They stand in files, so that decoding is part of the pipeline.

    Args:
        cfg: Config whose data set's pipeline is used.
        n: Number of images.
        folder: Where they are written; made if missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    draws = np.random.default_rng(0)
    settings = cfg.train_dataloader.dataset.to_dict()
    steps = list(dicts_in(settings.get('pipeline', ())))
    scales = [step for step in steps if bare_type(step) == 'ScaleBands']
    scale: dict[str, Any] = scales[0] if scales else {}
    for step in steps:
        if bare_type(step) == 'LoadBands':
            step['bands'] = None  # There are those that are wanted.
    channels = cfg.model.backbone.get('in_channels', 3)
    shape = SIDE, SIDE, channels
    for i in range(n):
        (folder / f'{i:06}').mkdir(exist_ok=True)  # A group of its own.
        if channels == 3 and not scale:
            noise = draws.integers(0, 256, shape, dtype=np.uint8)
            Image.fromarray(noise).save(folder / f'{i:06}/image.png')
        else:
            low, high = scale.get('low', 0), scale.get('high', 255)
            raw = draws.uniform(low, high, shape).astype(np.float32)
            np.save(folder / f'{i:06}/image.npy', raw)
    return {
        'type': 'mmmoco.ImageFolderDataset',
        'data_root': str(folder),
        'extensions': ('.png', '.npy'),
        'group_by': -1,
        'pipeline': settings.get('pipeline', ()),
    }


def like(sample: dict[str, Any], n: int) -> dict[str, Any]:
    """Return a batch of ``n`` with the shapes of a sample, zeros inside."""
    views = {
        name: torch.zeros(n, *x.shape[1:], dtype=x.dtype)
        for name, x in sample['inputs'].items()
    }
    numbers = torch.zeros(n, dtype=torch.long)
    return {'inputs': views, 'ids': numbers, 'groups': numbers}
