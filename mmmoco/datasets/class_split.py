"""Class folders that nobody has divided."""

from typing import Any

import torch

from mmmoco.functional import generator
from mmmoco.messages import few, log_warning
from mmmoco.registry import DATASETS

from .image_folder import ImageFolderDataset

#: Share of every class that is classified; the rest is known.
QUERIES = 0.2


@DATASETS.register_module()
class ClassFolderSplit(ImageFolderDataset):
    """One of two parts of class folders, the same share of every class.

    A class of one image gives it to the bank. Which images are in which part
    depends on the seed and on the images of the class alone.

    Args:
        part: ``'bank'`` or ``'query'``.
        seed: Of the draw.
        **kwargs: As for :class:`ImageFolderDataset`.

    Raises:
        ValueError: If there is no other part, or every class has one image.
    """

    def __init__(self, part: str, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(with_labels=True, **kwargs)
        if part not in ('bank', 'query'):
            raise ValueError(f"part={part!r}: use 'bank' or 'query'.")
        labels = torch.tensor(self.labels)
        queries = torch.zeros(len(labels), dtype=torch.bool)
        for number, name in enumerate(self.classes):
            there = (labels == number).nonzero()[:, 0]
            draws = generator(seed, name, 'class split')
            order = torch.randperm(len(there), generator=draws)
            count = max(1, round(QUERIES * len(there)))
            if len(there) > 1:
                queries[there[order[:count]]] = True
        if not queries.any():
            raise ValueError(
                f'Every class of {str(kwargs.get("data_root"))!r} has one '
                'image: none is left to compare it with.'
            )
        single = [
            name
            for number, name in enumerate(self.classes)
            if (labels == number).sum() == 1
        ]
        if single and part == 'query':
            log_warning(
                f'{len(single)} of {len(self.classes)} classes have one image '
                f'({few(single, 3)}): it stays in the bank.'
            )
        chosen = queries if part == 'query' else ~queries
        kept = chosen.nonzero()[:, 0].tolist()
        self.paths = [self.paths[i] for i in kept]
        self.labels = labels[chosen].tolist()
