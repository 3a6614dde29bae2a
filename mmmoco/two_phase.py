"""The contract of everything that is pre-trained here.

Phase one, the loss, reads the state of the model and writes none: what it
wants to keep, it stages. Phase two, after a real optimizer step, moves the
key encoder and writes what was staged. A step that is not taken leaves
everything as it was.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, ClassVar, cast

import torch
from mmengine.dist import get_world_size
from mmengine.model import BaseModel, BaseModule
from torch import Tensor, nn

from mmmoco.functional import Candidates, ShufflePlan, gather
from mmmoco.registry import MODELS

#: Who does phase two: the names that a hook announces itself by.
UPDATE_KEY_ENCODER = 'KeyEncoderUpdateHook'
UPDATE_DICTIONARY = 'DictionaryUpdateHook'


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


class TwoPhaseModel(BaseModel):
    """A pre-training model, as runner, hooks and tools know it.

    A method derives from it and implements :meth:`loss` and
    :meth:`encoders`. What it has not, it leaves as it is here: None, or a
    method that does nothing.

    Args:
        data_preprocessor: Config of the preprocessor.
        channels_last: Use the channels_last memory format.
        init_cfg: Initialisation, as everywhere in OpenMMLab.

    Attributes:
        dictionary: What the queries are looked up in.
        teacher: A network that the student learns from.
        contrast: The contrastive loss.
        queries: N×C queries of the last training forward, for the monitors.
        seed: Of the run.
        step: Training iteration (micro-batch).
    """

    #: Where the key encoder stands in the state dict.
    key_encoder_name: ClassVar[str] = 'key_encoder'

    #: Keys that one image brings in one forward.
    keys_per_image: int = 1

    dictionary: Dictionary | None
    teacher: Any

    def __init__(
        self,
        data_preprocessor: Any = None,
        channels_last: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        if data_preprocessor is not None:
            # In our registry, whatever the default scope is.
            data_preprocessor = MODELS.build(data_preprocessor)
        super().__init__(data_preprocessor, init_cfg)
        self.dictionary = self.teacher = None
        self.contrast: Any = None
        self.channels_last = channels_last
        self.seed, self.step = 0, 0
        self.queries: Tensor | None = None
        self._announced: set[str] = set()

    @property
    def key_encoder(self) -> nn.Module | None:
        """The moving average of the query encoder."""
        return dict(self.named_children()).get(self.key_encoder_name)

    @property
    def frozen_teacher(self) -> nn.Module | None:
        """The teacher, where it is no key encoder: nothing may move it."""
        return None if self.teacher is self.key_encoder else self.teacher

    @cached_property
    def dictionaries(self) -> list[Dictionary]:
        """All dictionaries, wherever they stand in the model."""
        return [x for x in self.modules() if isinstance(x, Dictionary)]

    # ------------------------------------------------ called by the hooks

    @property
    def needs(self) -> frozenset[str]:
        """Hooks without which training would be silently wrong."""
        needs = set()
        if self.key_encoder is not None:
            needs.add(UPDATE_KEY_ENCODER)
        if any(each.has_state for each in self.dictionaries):
            needs.add(UPDATE_DICTIONARY)
        return frozenset(needs)

    def announce(self, *hooks: str) -> None:
        """Hooks say, before training, that they will do their work."""
        self.__dict__.pop('dictionaries', None)  # By now all are there.
        self._announced.update(hooks)

    def set_address(self, seed: int, step: int, rank: int) -> None:
        """Say which training iteration of which run comes next."""
        self.seed, self.step = seed, step
        for dictionary in self.dictionaries:
            dictionary.set_address(seed, step)
        preprocessor = cast(Any, self.data_preprocessor)
        if hasattr(preprocessor, 'set_address'):
            preprocessor.set_address(seed, step, rank)

    def momentum_at(self, progress: float) -> float:
        """Return m at a fraction of the training (0 … 1)."""
        return 1.0

    def update_key_encoder(self, m: float) -> None:
        """Move the key encoder towards the query encoder."""

    def reset_key_encoder(self) -> None:
        """Make the key encoder a copy of the query encoder."""

    def check_key_encoder(self) -> None:
        """Refuse a key encoder that an optimizer could move.

        Raises:
            RuntimeError: If a parameter of it requires a gradient.
        """
        prefix = f'{self.key_encoder_name}.'
        learnt = [
            name
            for name, parameter in self.named_parameters()
            if parameter.requires_grad and name.startswith(prefix)
        ]
        if learnt:
            raise RuntimeError(
                f'{len(learnt)} parameters of the key encoder require a '
                f'gradient (first: {learnt[0]}). It moves by its average '
                'alone: do not unfreeze it.'
            )

    def check_keys(self, images: int, num_samples: int) -> list[str]:
        """Judge the dictionaries, as :meth:`Dictionary.check` does each.

        Args:
            images: Of one optimizer step, all processes together.
            num_samples: Length of the training set, 0 if unknown.

        Returns:
            Warnings for the log.
        """
        keys = images * self.keys_per_image
        found = [each.check(keys, num_samples) for each in self.dictionaries]
        return [warning for warning in found if warning]

    def commit_keys(self) -> None:
        """Write the staged keys: the optimizer step was taken."""
        for dictionary in self.dictionaries:
            dictionary.commit()

    def discard_keys(self) -> None:
        """Forget the staged keys: the optimizer step was not taken."""
        for dictionary in self.dictionaries:
            dictionary.discard()

    def keys_of(self, x: Tensor) -> Tensor:
        """Return the keys of images, N×C, L2-normalised; permute nothing."""
        raise NotImplementedError

    # ------------------------------------------------------------ features

    def encoders(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """What :meth:`extract_feat` can return, by the name of the stage.

        ``'backbone'``: its last output, averaged over the pixels, or the
        class token; ``'neck'``: the L2-normalised projection; ``'teacher'``.
        """
        raise NotImplementedError

    def extract_feat(self, x: Tensor, stage: str = 'backbone') -> Tensor:
        """Return features N×C of normalised images N×C×H×W.

        Raises:
            ValueError: If the model has no such stage in :meth:`encoders`.
        """
        encoders = self.encoders()
        if stage not in encoders:
            raise ValueError(
                f'stage={stage!r} is unknown; use '
                f'{" or ".join(map(repr, encoders))}.'
            )
        return encoders[stage](self.in_layout(x))

    def in_layout(self, x: Tensor) -> Tensor:
        """Return images in the memory format that the weights have."""
        if self.channels_last and x.dim() == 4:
            return x.contiguous(memory_format=torch.channels_last)
        return x

    # ---------------------------------------------------------------- loss

    def forward(
        self,
        inputs: Mapping[str, Tensor] | Tensor,
        ids: Tensor | None = None,
        mode: str = 'tensor',
        shuffle_plan: ShufflePlan | None = None,
        **_: Any,
    ) -> Any:
        """Dispatch as OpenMMLab's models do.

        Args:
            inputs: Views by name, each N×C×H×W; for features also a tensor.
            ids: N sample ids, −1 where unknown.
            mode: ``'loss'`` for training, ``'tensor'`` for features.
            shuffle_plan: By which the preprocessor exchanged key images.
        """
        if mode == 'tensor':
            x = inputs if isinstance(inputs, Tensor) else only_view(inputs)
            return self.extract_feat(x)
        if mode != 'loss':
            raise ValueError(
                f"mode={mode!r}: a pre-training model has 'loss' and "
                "'tensor'; evaluate it with tools/knn.py."
            )
        assert isinstance(inputs, Mapping)
        views = {name: self.in_layout(x) for name, x in inputs.items()}
        first = next(iter(views.values()))
        if ids is None:
            ids = torch.full((len(first),), -1)
        if self.training:
            self._require_hooks()
        plan: dict[str, Any] = {}
        if shuffle_plan is not None:
            plan['shuffle_plan'] = shuffle_plan
        return self.loss(views, ids.to(first.device), **plan)

    def loss(
        self, inputs: Mapping[str, Tensor], ids: Tensor
    ) -> dict[str, Tensor]:
        """Return the losses, and statistics for the log; write no state.

        Args:
            inputs: Normalised views by name, each N×C×H×W.
            ids: N sample ids, −1 where unknown.
        """
        raise NotImplementedError

    def _require_hooks(self) -> None:
        missing = self.needs - self._announced
        if missing:
            raise RuntimeError(
                f'{type(self).__name__} trains only together with '
                f'{" and ".join(sorted(missing))}, which did not announce '
                'itself. Add custom_hooks of configs/_base_/'
                'default_runtime.py to the config; in a loop of your own, '
                'let mmmoco.TrainStep do their work.'
            )


def only_view(inputs: Mapping[str, Tensor]) -> Tensor:
    """Return the one image of a batch that features are taken of.

    Raises:
        ValueError: If there are several and none is called ``image``.
    """
    if len(inputs) == 1:
        return next(iter(inputs.values()))
    if 'image' in inputs:
        return inputs['image']
    raise ValueError(
        f'Features are taken of one image, but the batch holds '
        f"{sorted(inputs)}: name one of them 'image'."
    )
