"""The k-NN protocol of a config: one reading of it for hook and tool."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import Tensor
from torch.utils.data import DataLoader

from mmmoco.engine import class_names
from mmmoco.evaluation import Metrics, knn_metrics
from mmmoco.functional import Neighbours, nearest, nearest_in_shards

from .features import Features, extract, extract_share
from .leaks import ImageIdentity, Leaks, find_leaks, leave_out

#: What build() takes beside the loaders.
SPLITS = ('bank', 'query')
SETTINGS = (
    *SPLITS,
    'k',
    'temperature',
    'features',
    'backend',
    'memory_map',
    'leave_one_out',
)


@dataclass(frozen=True)
class KNNProtocol:
    """What a k-NN figure depends on, besides the model.

    Attributes:
        bank: Loader of the labelled features.
        query: Loader of what is classified.
        ks: Numbers of neighbours.
        temperature: τ of the votes.
        features: ``'backbone'`` (pooled) or ``'neck'`` (projection).
        backend: Of the search: ``'auto'``, ``'torch'`` or ``'faiss'``.
        memory_map: Folder for the features of the bank; None: in memory.
        leave_one_out: Whether a query that stands in the bank is no
            neighbour of its own.
        remarks: What the last evaluation has to say beside its figures, for
            ``results.jsonl``.
        said: Lines that were logged, each of them once.
    """

    bank: DataLoader[Any]
    query: DataLoader[Any]
    ks: tuple[int, ...]
    temperature: float
    features: str
    backend: str = 'auto'
    memory_map: str | None = None
    leave_one_out: bool = False
    remarks: dict[str, Any] = field(default_factory=dict, compare=False)
    said: set[str] = field(default_factory=set, compare=False, repr=False)

    @classmethod
    def build(
        cls,
        settings: Mapping[str, Any],
        seed: int | None,
        ks: Sequence[int] = (),
    ) -> 'KNNProtocol':
        """Build the loaders, so that a bad path is found at once.

        Args:
            settings: ``dict(bank=data loader, query=data loader, k=20,
                temperature=0.07, features='backbone', backend='auto',
                memory_map=None, leave_one_out=False)``; all but the loaders
                may be left out; ``k`` may be several numbers.
            seed: Seed of the samplers.
            ks: Replaces ``k``.

        Raises:
            FileNotFoundError: If data is not there, naming the setting.
            ValueError: If the settings are incomplete or do not fit, or a
                query has a class that the bank does not know.
        """
        if not set(SPLITS) <= settings.keys():
            raise ValueError(
                'k-NN needs knn=dict(bank=data loader, query=data loader) '
                'in the config: see configs/_base_/datasets/digits.py.'
            )
        unknown = [str(name) for name in settings if name not in SETTINGS]
        if unknown:
            raise ValueError(
                f'knn.{unknown[0]} is no setting of k-NN; it has '
                f'{", ".join(SETTINGS)}.'
            )
        features = settings.get('features', 'backbone')
        if features not in ('backbone', 'neck'):
            raise ValueError(
                f"knn.features={features!r}: use 'backbone' or 'neck'."
            )
        bank, query = (
            _build_loader(settings[name], name, seed) for name in SPLITS
        )
        k = settings.get('k', 20)
        chosen = tuple(ks) or ((k,) if isinstance(k, int) else tuple(k))
        if min(chosen) < 1:
            raise ValueError(f'knn.k={min(chosen)}: must be at least 1.')
        temperature = settings.get('temperature', 0.07)
        if not temperature > 0:
            raise ValueError(
                f'knn.temperature={temperature}: must be positive (0.07).'
            )
        alone = bool(settings.get('leave_one_out', False))
        size = len(bank.dataset)  # type: ignore[arg-type]
        if max(chosen) > size - alone:
            raise ValueError(
                f'knn.k={max(chosen)}: the bank holds only {size} samples.'
            )
        built = cls(
            bank,
            query,
            chosen,
            temperature,
            features,
            settings.get('backend', 'auto'),
            settings.get('memory_map'),
            alone,
        )
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

    def evaluate(self, model: Any) -> dict[int, Metrics]:
        """Return the figures in percent for each k, of one search.

        Every process keeps its share of the bank and searches in it.

        Raises:
            ValueError: If fewer than k neighbours are left of a query.
        """
        bank = extract_share(model, self.bank, self.features, self.memory_map)
        query = extract(model, self.query, self.features)
        values, labels = query.features

        def search(k: int) -> Neighbours:
            return nearest_in_shards(
                bank.values, bank.positions, values, k, backend=self.backend
            )

        k, most = max(self.ks), len(bank.ids)
        if k > most - self.leave_one_out:
            raise ValueError(
                f'knn.k={k}: only {most} samples of the bank could be read.'
            )
        if self.leave_one_out:
            found, leaks = self._search_others(search, bank.ids, query.ids)
        else:
            found = search(k)
            leaks = find_leaks(self.identity, found, bank.ids, query.ids)
        labels = self._report(
            leaks, bank.labels, labels, bank.unreadable, query.unreadable
        )
        return knn_metrics(
            found, bank.labels, labels, self.ks, self.temperature
        )

    def _search_others(
        self, search: Any, bank_ids: Tensor, query_ids: Tensor
    ) -> tuple[Neighbours, Leaks]:
        """Search until k neighbours are left that are not the query."""
        k, most = max(self.ks), len(bank_ids)
        wanted = min(most, k + 4)
        while True:
            found = search(wanted)
            leaks = find_leaks(
                self.identity, found, bank_ids, query_ids, columns=None
            )
            others = leave_out(found, leaks.same, k)
            if others is not None:
                return others, leaks
            if wanted == most:
                raise ValueError(
                    f'--leave-one-out: fewer than k={k} images of the bank '
                    'are another image than the query; choose a smaller k.'
                )
            wanted = min(most, 2 * wanted)

    def extract(self, model: Any) -> tuple[Features, Features]:
        """Return the whole features of bank and queries, labels alike."""
        bank, query = (
            extract(model, loader, self.features)
            for loader in (self.bank, self.query)
        )
        values, labels = query.features
        found = nearest(bank.features.values, values, 1, backend=self.backend)
        leaks = find_leaks(self.identity, found, bank.ids, query.ids)
        labels = self._report(
            leaks,
            bank.features.labels,
            labels,
            bank.unreadable,
            query.unreadable,
        )
        return bank.features, Features(values, labels)

    def _report(
        self,
        leaks: Leaks,
        bank_labels: Tensor,
        labels: Tensor,
        *unreadable: int,
    ) -> Tensor:
        """Say what is odd about the splits; return the labels to compare."""
        for key in [k for k in self.remarks if k != 'eyes']:
            del self.remarks[key]
        labels = self._compare(bank_labels, labels)
        for name, count in zip(SPLITS, unreadable, strict=True):
            if count:
                self.remarks[f'unreadable_{name}'] = count
        if leaks.example is None:
            return labels
        self.remarks['queries_in_bank'] = leaks.total
        query, twin = leaks.example
        self.say(
            f'{leaks.total} of {len(labels)} queries stand in the bank '
            f'({leaks.by_path} by their path, '
            f'{leaks.total - leaks.by_path} by their content), for example '
            f'{query!r} as {twin!r}: '
            + (
                'left out of their own neighbours.'
                if self.leave_one_out
                else 'the figures are too good. Separate the splits'
                ', or use tools/knn.py --leave-one-out.'
            ),
            warn=not self.leave_one_out,
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
            level = logging.WARNING if warn else logging.INFO
            print_log(text, logger='current', level=level)

    def describe(self, k: int) -> dict[str, Any]:
        """Return the protocol of one figure, for ``results.jsonl``."""
        alone = {'leave_one_out': True} if self.leave_one_out else {}
        return {
            'k': k,
            'temperature': self.temperature,
            'features': self.features,
            'bank': len(self.bank.dataset),  # type: ignore[arg-type]
            'queries': len(self.query.dataset),  # type: ignore[arg-type]
            **alone,
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
            'knn.query.dataset.data_root, not train_dataloader.'
        ) from None
    return loader
