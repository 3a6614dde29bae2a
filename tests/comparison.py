"""What a comparison with a reference says; tests and benchmarks read it."""

from typing import NamedTuple


class Comparison(NamedTuple):
    """The largest difference that was found, and what is allowed.

    Attributes:
        what: The part that was measured.
        against: What it was held against.
        difference: The largest difference found.
        bound: The largest allowed.
        unit: Of both; empty: of the values themselves.
        over: How much was compared.
    """

    what: str
    against: str
    difference: float
    bound: float
    unit: str = ''
    over: str = ''

    @property
    def holds(self) -> bool:
        """Whether the bound is kept; never for NaN."""
        return self.difference <= self.bound


def check(comparisons):
    """Fail with every comparison that exceeds its bound."""
    comparisons = list(comparisons)
    assert comparisons
    bad = [each for each in comparisons if not each.holds]
    assert not bad, '\n'.join(map(str, bad))
