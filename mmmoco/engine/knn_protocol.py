"""The k-NN protocol of a config: one reading of it for hook and tool."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmmoco.engine.features import extract_features
from mmmoco.evaluation import knn_accuracy


@dataclass(frozen=True)
class KNNProtocol:
    """What a k-NN figure depends on, besides the model.

    Attributes:
        bank: Loader of the labelled features.
        query: Loader of what is classified.
        ks: Numbers of neighbours.
        temperature: τ of the votes.
        features: ``'backbone'`` (pooled) or ``'neck'`` (projection).
    """

    bank: DataLoader[Any]
    query: DataLoader[Any]
    ks: tuple[int, ...]
    temperature: float
    features: str

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
                temperature=0.07, features='backbone')``; the last three may
                be left out.
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
        chosen = tuple(ks) or (settings.get('k', 20),)
        size = len(bank.dataset)
        if max(chosen) > size:
            raise ValueError(
                f'knn.k={max(chosen)}: the bank holds only {size} samples.'
            )
        temperature = settings.get('temperature', 0.07)
        return cls(bank, query, chosen, temperature, features)

    def evaluate(self, model: Any) -> dict[int, dict[str, float]]:
        """Return ``top1`` and ``top5`` in percent for each k."""
        bank, query = (
            extract_features(model, loader, self.features)
            for loader in (self.bank, self.query)
        )
        return {
            k: knn_accuracy(
                *bank, *query, k=k, temperature=self.temperature
            ).metrics
            for k in self.ks
        }

    def describe(self, k: int) -> dict[str, Any]:
        """Return the protocol of one figure, for ``results.jsonl``."""
        return {
            'k': k,
            'temperature': self.temperature,
            'features': self.features,
            'bank': len(self.bank.dataset),  # type: ignore[arg-type]
            'queries': len(self.query.dataset),  # type: ignore[arg-type]
        }
