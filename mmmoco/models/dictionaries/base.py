from abc import abstractmethod
from typing import ClassVar

import torch
from mmengine.dist import get_world_size
from mmengine.model import BaseModule
from torch import Tensor

from mmmoco.functional import Candidates, gather


class Dictionary(BaseModule):
    """What the queries are looked up in.

    Two phases: :meth:`lookup` and :meth:`stage` belong to the loss and change
    no buffer; :meth:`commit` writes, once after every optimizer step, what
    was staged since the last one. :meth:`discard` forgets it when the step
    was not taken.
    """

    #: False for a dictionary that keeps nothing from step to step.
    has_state: ClassVar[bool] = True

    #: False for a dictionary that answers by itself and stores the queries.
    needs_keys: ClassVar[bool] = True

    #: True if the query encoder makes the keys too, with gradient.
    key_grad: bool = False

    def __init__(self) -> None:
        super().__init__()
        self._staged: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        self.address = (0, 0)

    def set_address(self, seed: int, step: int) -> None:
        """Say where in the run the next look-up stands (for its draws)."""
        self.address = (seed, step)

    @abstractmethod
    def lookup(self, k: Tensor, ids: Tensor) -> Candidates:
        """Return what the N queries of ``k`` (N×C keys) compete among.

        Args:
            k: N×C keys of this process, L2-normalised; the queries if the
                dictionary needs no keys.
            ids: N sample ids of the data set, −1 where unknown.
        """

    @abstractmethod
    def write(self, k: Tensor, ids: Tensor) -> None:
        """Store M×C keys and their M ids, in this order."""

    def check(self, effective_batch: int, num_samples: int) -> str | None:
        """Judge the dictionary against the run, before it starts.

        Args:
            effective_batch: Keys that one optimizer step brings, all
                processes together.
            num_samples: Length of the training set, 0 if unknown.

        Returns:
            A warning for the log, or None.

        Raises:
            ValueError: If the run cannot work.
        """
        return None

    def stage(self, k: Tensor, ids: Tensor, slot: int, view: int = 0) -> None:
        """Remember the keys of one micro-batch until the optimizer steps.

        Args:
            k: N×C keys.
            ids: N sample ids.
            slot: Training iteration. Staging for the same iteration again
                (a repeated loss) replaces what was staged.
            view: Which of its key sets, where a loss has several.
        """
        self._staged[slot, view] = (k.detach(), ids)

    def discard(self) -> None:
        """Forget what is staged: the optimizer step was not taken."""
        self._staged.clear()

    def commit(self) -> None:
        """Write the staged keys: micro-batch, then view, then rank."""
        if not self._staged:
            return
        parts = list(self._staged.values())
        self._staged.clear()
        k = self._by_part([k for k, _ in parts])
        ids = self._by_part([ids for _, ids in parts])
        self.write(k, ids)

    @staticmethod
    def _by_part(parts: list[Tensor]) -> Tensor:
        """Gather once and order the rows by part, then by rank."""
        world = get_world_size()
        if world == 1:
            return torch.cat(parts)
        sizes = [len(part) for part in parts]
        ranks = gather(torch.cat(parts)).chunk(world)
        split = [rank.split(sizes) for rank in ranks]
        return torch.cat(
            [rank[i] for i in range(len(parts)) for rank in split]
        )
