"""How far the key encoder has moved since it made the oldest keys."""

import math
from typing import Any, cast

import torch
from torch import Tensor, nn

from mmmoco.two_phase import TwoPhaseModel

#: How the algorithms call the images that are encoded as keys.
KEY_VIEWS = ('view_k', 'view_2')


class KeyProbe:
    """Encodes the same images when their keys enter the queue and leave it.

    The queue holds keys, no images. A few images of a batch are kept for as
    long as their keys would stay in the queue, and then encoded again: the
    similarity of both is that of the oldest keys to what the key encoder
    gives now. One set of images at a time is kept.

    Args:
        model: The bare model, with a key encoder and a queue.
        images: How many images to keep.
    """

    def __init__(self, model: TwoPhaseModel, images: int) -> None:
        self.model = model
        self.encoder = cast(nn.Module, model.key_encoder)
        self.images = images
        self._images: Tensor | None = None
        self._keys: Tensor | None = None
        self._due = 0

    @staticmethod
    def fits(model: TwoPhaseModel) -> bool:
        """Whether a model has keys that grow old."""
        dictionary = model.dictionary
        return (
            model.key_encoder is not None
            and dictionary is not None
            and dictionary.has_state
            and dictionary.needs_keys
        )

    @property
    def waiting(self) -> bool:
        """Whether images are kept."""
        return self._images is not None

    def keep(self, data: dict[str, Any], now: int, age: int) -> None:
        """Keep images of a batch until their keys are the oldest ones.

        Args:
            data: A collated batch.
            now: Optimizer steps done.
            age: Steps that a key stays in the queue.
        """
        inputs = data['inputs']
        batch = len(next(iter(inputs.values())))
        count = self._count(batch)
        if not count:
            return
        part = {'inputs': {name: x[:count] for name, x in inputs.items()}}
        views = self.model.data_preprocessor(part, training=True)['inputs']
        for name in KEY_VIEWS:
            if name in views:
                self._images = views[name]
                self._keys = self.encode(views[name])
                self._due = now + age
                return

    def due(self, now: int) -> bool:
        """Whether :meth:`similarity` has something to return.

        Args:
            now: Optimizer steps done.
        """
        return self._images is not None and now >= self._due

    def similarity(self, now: int) -> float | None:
        """Return the mean cosine of old and new keys, when it is time.

        Args:
            now: Optimizer steps done.
        """
        if not self.due(now) or self._images is None or self._keys is None:
            return None
        keys = self.encode(self._images)
        similarity = float((self._keys * keys).sum(1).mean())
        self._images = self._keys = None
        return similarity

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Return the keys of a few images, N×C, and leave no trace.

        BatchNorm takes the statistics of these images, as in training, and
        its running ones stay as they are.

        Args:
            x: N×C×H×W, normalised.
        """
        buffers = [(own, own.clone()) for own in self.encoder.buffers()]
        try:
            return self.model.keys_of(self.model.in_layout(x))
        finally:
            for own, kept in buffers:
                own.copy_(kept)

    def _count(self, batch: int) -> int:
        """As many images as wanted, in whole parts for SplitBN."""
        modules = self.encoder.modules()
        parts = math.lcm(*(getattr(m, 'num_splits', 1) for m in modules))
        wanted = max(2, self.images // parts) * parts
        return wanted if wanted <= batch else batch // parts * parts


def time_in_queue(model: TwoPhaseModel, batch: int) -> int:
    """Return for how many optimizer steps a key stays in the queue.

    Args:
        model: The bare model.
        batch: Images of one optimizer step, all processes together.
    """
    keys: int = batch * model.keys_per_image
    return max(1, -(-int(cast(Any, model.dictionary).size) // keys))
