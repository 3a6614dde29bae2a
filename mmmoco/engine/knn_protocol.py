"""The k-NN protocol of a config: one reading of it for hook and tool."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmmoco.engine.features import (
    Features,
    extract_features,
    extract_share,
)
from mmmoco.evaluation import Metrics, knn_metrics
from mmmoco.functional import nearest_in_shards


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
    """

    bank: DataLoader[Any]
    query: DataLoader[Any]
    ks: tuple[int, ...]
    temperature: float
    features: str
    backend: str = 'auto'
    memory_map: str | None = None

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
                memory_map=None)``; all but the loaders may be left out; ``k``
                may be several numbers.
            seed: Seed of the samplers.
            ks: Replaces ``k``.

        Raises:
            ValueError: If the settings are incomplete or do not fit.
        """
        if not {'bank', 'query'} <= settings.keys():
            raise ValueError(
                'k-NN needs knn=dict(bank=data loader, query=data loader) '
                'in the config: see configs/_base_/datasets/digits.py.'
            )
        features = settings.get('features', 'backbone')
        if features not in ('backbone', 'neck'):
            raise ValueError(
                f"knn.features={features!r}: use 'backbone' or 'neck'."
            )
        bank, query = (
            Runner.build_dataloader(dict(settings[name]), seed=seed)
            for name in ('bank', 'query')
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
        size = len(bank.dataset)
        if max(chosen) > size:
            raise ValueError(
                f'knn.k={max(chosen)}: the bank holds only {size} samples.'
            )
        return cls(
            bank,
            query,
            chosen,
            temperature,
            features,
            settings.get('backend', 'auto'),
            settings.get('memory_map'),
        )

    def evaluate(self, model: Any) -> dict[int, Metrics]:
        """Return the figures in percent for each k, of one search.

        Every process keeps its share of the bank and searches in it.
        """
        bank = extract_share(model, self.bank, self.features, self.memory_map)
        query = extract_features(model, self.query, self.features)
        found = nearest_in_shards(
            bank.values,
            bank.positions,
            query.values,
            max(self.ks),
            backend=self.backend,
        )
        return knn_metrics(
            found, bank.labels, query.labels, self.ks, self.temperature
        )

    def extract(self, model: Any) -> tuple[Features, Features]:
        """Return the whole features of bank and queries."""
        bank, query = (
            extract_features(model, loader, self.features)
            for loader in (self.bank, self.query)
        )
        return bank, query

    def describe(self, k: int) -> dict[str, Any]:
        """Return the protocol of one figure, for ``results.jsonl``."""
        return {
            'k': k,
            'temperature': self.temperature,
            'features': self.features,
            'bank': len(self.bank.dataset),  # type: ignore[arg-type]
            'queries': len(self.query.dataset),  # type: ignore[arg-type]
        }
