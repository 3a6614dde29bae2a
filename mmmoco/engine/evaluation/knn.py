"""The weighted k-NN evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmmoco.evaluation.knn import knn_metrics
from mmmoco.functional import nearest_in_shards
from mmmoco.registry import EVALUATIONS

from .evaluation import Evaluation, Measurement
from .features import extract
from .leaks import COLUMNS, find_leaks, leave_out
from .splits import Splits


@EVALUATIONS.register_module()
@dataclass(frozen=True)
class KNN(Evaluation):
    """Weighted k-NN accuracy; all k come from one search.

    Attributes:
        k: Numbers of neighbours, one or several.
        temperature: τ of the votes.
        leave_one_out: Whether a query that stands in the bank is no
            neighbour of its own.
    """

    task = 'knn'
    title = 'k-NN'

    k: int | Sequence[int] = 20
    temperature: float = 0.07
    leave_one_out: bool = False

    def __post_init__(self) -> None:
        if min(self.ks) < 1:
            raise ValueError(f'knn.k={min(self.ks)}: must be at least 1.')
        if not self.temperature > 0:
            raise ValueError(
                f'knn.temperature={self.temperature}: must be positive (0.07).'
            )

    @property
    def ks(self) -> tuple[int, ...]:
        """All numbers of neighbours; the first one is watched."""
        return (self.k,) if isinstance(self.k, int) else tuple(self.k)

    def check(self, data: Splits) -> None:
        """See that the bank holds k neighbours.

        Raises:
            ValueError: If not.
        """
        size = len(data.bank.dataset)  # type: ignore[arg-type]
        if max(self.ks) > size - self.leave_one_out:
            raise ValueError(
                f'knn.k={max(self.ks)}: the bank holds only {size} samples.'
            )

    def describe(self, data: Splits) -> dict[str, Any]:
        """Return the protocol of the first k."""
        return {
            'k': self.ks[0],
            'temperature': self.temperature,
            **data.describe(),
            **({'leave_one_out': True} if self.leave_one_out else {}),
        }

    def measure(self, model: Any, data: Splits) -> list[Measurement]:
        """Search once; every process in its share of the bank.

        Raises:
            ValueError: If fewer than k neighbours are left of a query.
        """
        bank = extract(
            model, data.bank, data.features, share=True, folder=data.memory_map
        )
        query = extract(model, data.query, data.features)
        alone, k, most = self.leave_one_out, max(self.ks), len(bank.ids)
        if k > most - alone:
            raise ValueError(
                f'knn.k={k}: only {most} samples of the bank could be read.'
            )
        wanted = min(most, k + 4) if alone else k
        while True:
            found = nearest_in_shards(
                bank.values,
                bank.positions,
                query.values,
                wanted,
                backend=data.backend,
            )
            leaks = find_leaks(
                data.identity,
                found,
                bank.ids,
                query.ids,
                columns=None if alone else COLUMNS,
            )
            others = leave_out(found, leaks.same, k) if alone else found
            if others is not None:
                break
            if wanted == most:
                raise ValueError(
                    f'--leave-one-out: fewer than k={k} images of the bank '
                    'are another image than the query; choose a smaller k.'
                )
            wanted = min(most, 2 * wanted)
        labels = data.report(bank, query, leaks, left_out=alone)
        figures = knn_metrics(
            others, bank.labels, labels, self.ks, self.temperature
        )
        return [
            Measurement(
                metrics,
                {'k': k, 'temperature': self.temperature},
                f'k-NN, k={k}',
            )
            for k, metrics in figures.items()
        ]
