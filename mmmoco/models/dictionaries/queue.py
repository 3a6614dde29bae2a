from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmmoco.functional import Candidates, same
from mmmoco.private_names import writes_to
from mmmoco.registry import MODELS
from mmmoco.two_phase import Dictionary


@MODELS.register_module()
class Queue(Dictionary):
    """The first-in-first-out queue of keys (MoCo v1, section 3.2).

    A ring buffer: every optimizer step overwrites the oldest keys. The size
    need not be a multiple of the batch.

    Args:
        size: Number of stored keys, K in the paper.
        feat_dim: Width of a key, C.
        exclude_same_image: Another name of ``exclude='image'``.
        dtype: ``'float32'``, or ``'bfloat16'``: half the memory, keys
            rounded to 8 bits of mantissa (which the look-up does by itself
            in bfloat16 mixed precision).
        exclude: Remember of every key its sample (``'image'``) or its group
            (``'group'``), and do not count keys of the query's own one as
            negatives. ``'image'`` helps when the data set is not much larger
            than the queue, ``'group'`` when its images are not all of
            different things. None is exactly MoCo.

    Raises:
        ValueError: If an argument is out of range.
    """

    keys: Tensor
    ptr: Tensor

    def __init__(
        self,
        size: int,
        feat_dim: int,
        exclude_same_image: bool = False,
        dtype: str = 'float32',
        exclude: str | None = None,
    ) -> None:
        if exclude_same_image:
            if exclude == 'group':
                raise ValueError(
                    "Queue(exclude_same_image=True, exclude='group'): keys "
                    "of the same image are of the same group; set 'exclude' "
                    'alone.'
                )
            exclude = 'image'
        super().__init__(exclude)
        if size < 1 or feat_dim < 1:
            raise ValueError(
                f'Queue(size={size}, feat_dim={feat_dim}): both must be '
                'positive.'
            )
        if dtype not in ('float32', 'bfloat16'):
            raise ValueError(
                f"Queue(dtype={dtype!r}): use 'float32' or 'bfloat16'."
            )
        self.size = size
        keys = F.normalize(torch.randn(feat_dim, size), dim=0)
        self.register_buffer('keys', keys.to(getattr(torch, dtype)))
        self.register_buffer('ptr', torch.zeros(1, dtype=torch.long))
        self._known = 0, self.ptr, writes_to(self.ptr)
        #: Buffer of the numbers by which keys are excluded.
        self._marks = {'image': 'ids', 'group': 'groups', None: ''}[exclude]
        if exclude:
            self.register_buffer(self._marks, torch.full((size,), -1))

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, *args: Any
    ) -> None:
        """Refuse a slot that the queue does not have."""
        slot = state_dict.get(f'{prefix}ptr')
        if (
            slot is not None
            and slot.shape == self.ptr.shape
            and not (slot.dtype == torch.long and 0 <= int(slot) < self.size)
        ):
            args[-1].append(
                f'{prefix}ptr is {slot.item()}, the queue has the slots 0 to '
                f'{self.size - 1}'
            )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def lookup(
        self, k: Tensor, ids: Tensor, groups: Tensor | None = None
    ) -> Candidates:
        """The query's own key is the positive, the stored ones negatives."""
        mask = None
        if self.exclude:
            stored = getattr(self, self._marks)
            mask = same(self.marks(ids, groups), stored)
        return Candidates(keys=self.keys, positives=k, mask=mask)

    def candidates(self, images: int) -> int:
        """All stored keys, and the query's own."""
        return self.size + 1

    def write(
        self, k: Tensor, ids: Tensor, groups: Tensor | None = None
    ) -> None:
        """Overwrite the oldest keys, wrapping around at the end."""
        if len(k) > self.size:
            raise ValueError(self._too_small(len(k)))
        start = self._next_slot()
        first = min(len(k), self.size - start)
        self.keys[:, start : start + first] = k[:first].T
        self.keys[:, : len(k) - first] = k[first:].T
        if self.exclude:
            stored, new = getattr(self, self._marks), self.marks(ids, groups)
            stored[start : start + first] = new[:first]
            stored[: len(k) - first] = new[first:]
        end = (start + len(k)) % self.size
        self.ptr.fill_(end)
        self._known = end, self.ptr, writes_to(self.ptr)

    def _next_slot(self) -> int:
        """Return ``ptr``, without waiting for a GPU in every step.

        Its number is remembered for as long as nobody else writes the buffer
        (a loaded checkpoint, a broadcast), which its version tells.
        """
        number, buffer, version = self._known
        if buffer is not self.ptr or version != writes_to(self.ptr):
            return int(self.ptr)
        return number

    def check(self, effective_batch: int, num_samples: int) -> str | None:
        """Refuse a batch over the queue, warn of a queue over the data."""
        if effective_batch > self.size:
            raise ValueError(self._too_small(effective_batch))
        if 0 < num_samples < self.size and not self.exclude:
            return (
                f'The queue holds {self.size} keys but the data set only '
                f'{num_samples} images: up to {self.size // num_samples} '
                "keys of a query's own image are counted as negatives. Use "
                'a smaller dictionary.size, more images, or '
                "dictionary.exclude='image'."
            )
        return None

    def _too_small(self, keys: int) -> str:
        return (
            f'One optimizer step brings {keys} keys (batch per GPU x '
            'processes x accumulation; twice that with symmetric=True), but '
            f'the queue holds only {self.size}. Raise dictionary.size to at '
            f'least {keys}, or lower train_dataloader.batch_size or '
            'optim_wrapper.accumulative_counts.'
        )
