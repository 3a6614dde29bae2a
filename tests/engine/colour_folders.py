"""Images that any feature tells apart: each class has a colour of its own."""

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

from mmmoco.datasets import AddressedSampler, ImageFolderDataset
from mmmoco.engine.evaluation import KNN, Splits

PIPELINE = [dict(type='LoadRGB'), dict(type='PackImage')]


class Pixels(torch.nn.Module):
    """A perfect model: its features are the pixels, centred."""

    def data_preprocessor(self, batch, training):
        return batch

    def extract_feat(self, x, stage):
        return x.flatten(1).float() - 127.5


def colour(number):
    """A corner of the colour cube, one of eight."""
    return np.array([number & 1, number >> 1 & 1, number >> 2 & 1]) * 200 + 27


def draw_class(folder, number, images, seed):
    """Write noisy images of a class; a seed makes them its own."""
    folder.mkdir(parents=True, exist_ok=True)
    draws = np.random.default_rng([number, seed])
    for i in range(images):
        pixels = colour(number) + draws.integers(-5, 6, (8, 8, 3))
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        image.save(folder / f'{i}.png')


def loader(folder, **options):
    """A loader of class folders, or of a list."""
    dataset = ImageFolderDataset(
        str(folder), with_labels=True, pipeline=PIPELINE, **options
    )
    sampler = AddressedSampler(dataset, shuffle=False)
    return DataLoader(dataset, batch_size=7, sampler=sampler)


def splits_of(bank, query):
    """The data of two loaders."""
    return Splits(bank, query, backend='torch')


def figures(splits, k=3, **options):
    """The k-NN figures of pixels by k."""
    found = KNN(k, **options).measure(Pixels(), splits)
    return {part.setting['k']: part.metrics for part in found}
