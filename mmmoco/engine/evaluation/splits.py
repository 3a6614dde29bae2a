"""Two labelled splits of images: the data of every evaluation."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import torch
from mmengine.runner import Runner
from torch import Tensor
from torch.utils.data import DataLoader

from mmmoco.engine import class_names
from mmmoco.functional import nearest
from mmmoco.messages import log_info, log_warning

from .features import Extracted, Features, extract
from .leaks import ImageIdentity, Leaks, find_leaks


@dataclass
class Splits:
    """A bank of labelled images, queries, and what is odd about them.

    Attributes:
        bank: Loader of the labelled features, or of what a classifier is
            trained on.
        query: Loader of what is classified.
        features: ``'backbone'`` (pooled) or ``'neck'`` (projection).
        backend: Of the searches: ``'auto'``, ``'torch'`` or ``'faiss'``.
        memory_map: Folder for the features of the bank in a k-NN search;
            None: in memory.
        pipelines: Transforms of both, by their place in the config.
        remarks: What the last evaluation has to say beside its figures, for
            ``results.jsonl``.
        said: Lines that were logged, each of them once.
        folder: That was named instead of the config's data, and the patterns
            of its files.
    """

    SETTINGS: ClassVar = ('bank', 'query', 'features', 'backend', 'memory_map')

    bank: DataLoader[Any]
    query: DataLoader[Any]
    features: str = 'backbone'
    backend: str = 'auto'
    memory_map: str | None = None
    pipelines: Mapping[str, Any] = field(default_factory=dict)
    remarks: dict[str, Any] = field(default_factory=dict)
    said: set[str] = field(default_factory=set)
    folder: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def build(cls, settings: Mapping[str, Any], seed: int | None) -> 'Splits':
        """Build the loaders, so that a bad path is found at once.

        Args:
            settings: ``dict(bank=data loader, query=data loader,
                features='backbone', backend='auto', memory_map=None)``; all
                but the loaders may be left out.
            seed: Seed of the samplers.

        Raises:
            FileNotFoundError: If data is not there, naming the setting.
            ValueError: If the settings are incomplete or do not fit, or a
                query has a class that the bank does not know.
        """
        names = 'bank', 'query'
        if not set(names) <= settings.keys():
            raise ValueError(
                'k-NN needs knn=dict(bank=data loader, query=data loader) '
                'in the config: see configs/_base_/datasets/digits.py.'
            )
        features = settings.get('features', 'backbone')
        if features not in ('backbone', 'neck'):
            raise ValueError(
                f"knn.features={features!r}: use 'backbone' or 'neck'."
            )
        loaders = {n: _build_loader(settings[n], n, seed) for n in names}
        pipelines = {
            f'knn.{n}': settings[n]['dataset'].get('pipeline') for n in names
        }
        built = cls(**{**settings, **loaders}, pipelines=pipelines)
        matching = built.matching  # An unknown class is an error at once.
        if matching.by_name:
            built.say(f'{matching.text}.', warn=matching.differ)
        return built

    @cached_property
    def matching(self) -> class_names.Matching:
        """How the labels of the queries become those of the bank."""
        return class_names.match(
            self.bank.dataset, self.query.dataset, ('knn.bank', 'knn.query')
        )

    @cached_property
    def identity(self) -> ImageIdentity:
        """Which queries are images of the bank."""
        return ImageIdentity(self.bank.dataset, self.query.dataset)

    def extract(self, model: Any) -> tuple[Features, Features]:
        """Return the whole features of bank and queries, labels alike."""
        bank, query = (
            extract(model, loader, self.features)
            for loader in (self.bank, self.query)
        )
        found = nearest(bank.values, query.values, 1, backend=self.backend)
        leaks = find_leaks(self.identity, found, bank.ids, query.ids)
        labels = self.report(bank, query, leaks)
        return Features(bank.values, bank.labels), Features(
            query.values, labels
        )

    def report(
        self,
        bank: Extracted,
        query: Extracted,
        leaks: Leaks,
        left_out: bool = False,
    ) -> Tensor:
        """Say what is odd about the splits; return the labels to compare.

        Args:
            bank: Features of the bank, with all its labels.
            query: Features of the queries.
            leaks: Queries that stand in the bank.
            left_out: Whether they are left out of their own neighbours.
        """
        for key in [k for k in self.remarks if k != 'eyes']:
            del self.remarks[key]
        labels = self._compare(bank.labels, query.labels)
        for name, part in (('bank', bank), ('query', query)):
            if part.unreadable:
                self.remarks[f'unreadable_{name}'] = part.unreadable
        if leaks.example is None:
            return labels
        self.remarks['queries_in_bank'] = leaks.total
        example, twin = leaks.example
        self.say(
            f'{leaks.total} of {len(labels)} queries stand in the bank '
            f'({leaks.by_path} by their path, '
            f'{leaks.total - leaks.by_path} by their content), for example '
            f'{example!r} as {twin!r}: '
            + (
                'left out of their own neighbours.'
                if left_out
                else 'the figures are too good. Separate the splits'
                ', or use mmmoco knn --leave-one-out.'
            ),
            warn=not left_out,
        )
        return labels

    def _compare(self, bank: Tensor, labels: Tensor) -> Tensor:
        """Return labels in the bank's numbers; say what was compared."""
        matching = self.matching
        self.remarks['classes'] = matching.text
        labels = matching.apply(labels)
        if bank.dim() != labels.dim():
            raise ValueError(
                'knn.bank has one label an image, knn.query several, or the '
                'other way round: take both from the same data set.'
            )
        if bank.dim() == 2:
            if bank.shape[1] != labels.shape[1]:
                raise ValueError(
                    f'knn.bank has {bank.shape[1]} classes, knn.query '
                    f'{labels.shape[1]}: take both from the same data set.'
                )
            return labels
        known, asked = bank.unique().cpu(), labels.unique().cpu()
        shared = int(torch.isin(asked, known).sum())
        lost = len(asked) - shared
        if not matching.by_name:
            text = (
                f'{matching.text}: {len(known)} in the bank, {len(asked)} '
                f'among the queries, {shared} in both'
            )
            self.remarks['classes'] = text
            self.say(f'{text}.', warn=bool(lost))
        elif lost:
            self.say(
                f'{lost} classes of the queries have no image in the bank: '
                'their queries cannot be right.',
                warn=True,
            )
        return labels

    def say(self, text: str, warn: bool) -> None:
        """Log a line, unless it was logged before."""
        if text not in self.said:
            self.said.add(text)
            log = log_warning if warn else log_info
            log(text)

    def describe(self) -> dict[str, Any]:
        """Return what figures depend on, for ``results.jsonl``."""
        return {
            'features': self.features,
            'bank': len(self.bank.dataset),  # type: ignore[arg-type]
            'queries': len(self.query.dataset),  # type: ignore[arg-type]
            **self.folder,
        }


def _build_loader(
    settings: Mapping[str, Any], name: str, seed: int | None
) -> DataLoader[Any]:
    """Build a loader; an error names the settings that concern it."""
    place = f'knn.{name}.dataset'
    try:
        loader: DataLoader[Any] = Runner.build_dataloader(
            dict(settings), seed=seed
        )
    except FileNotFoundError as error:
        # The data set only knows where its settings usually stand.
        text = str(error).replace('train_dataloader.dataset', place)
        raise FileNotFoundError(
            f'{text} The evaluation reads knn.bank.dataset.data_root and '
            'knn.query.dataset.data_root, not train_dataloader; --data takes '
            'class folders instead.'
        ) from None
    return loader
