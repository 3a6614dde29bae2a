"""The contract of everything that is pre-trained here.

Phase one, the loss, reads the state of the model and writes none: what it
wants to keep, it stages. Phase two, after a real optimizer step, moves the
key encoder and writes what was staged. A step that is not taken leaves
everything as it was.
"""

import re
from abc import abstractmethod
from collections.abc import Iterable
from contextlib import suppress
from functools import cached_property
from typing import Any, ClassVar, cast

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmmoco.feature_model import FeatureModel
from mmmoco.functional import Candidates, gather

#: Who does phase two: the names that a hook announces itself by.
UPDATE_KEY_ENCODER = 'KeyEncoderUpdateHook'
UPDATE_DICTIONARY = 'DictionaryUpdateHook'


class Dictionary(BaseModule):
    """What the queries are looked up in.

    Two phases: :meth:`lookup` and :meth:`stage` belong to the loss and change
    no buffer; :meth:`commit` writes, once after every optimizer step, what
    was staged since the last one. :meth:`discard` forgets it when the step
    was not taken.

    Args:
        exclude: Which keys are no negatives of a query: those of the same
            ``'image'`` or of the same ``'group'`` (place, patient, video);
            None: all are, as in the papers.
    """

    #: False for a dictionary that keeps nothing from step to step.
    has_state: ClassVar[bool] = True

    #: False for a dictionary that answers by itself and stores the queries.
    needs_keys: ClassVar[bool] = True

    #: True if the query encoder makes the keys too, with gradient.
    key_grad: bool = False

    def __init__(self, exclude: str | None = None) -> None:
        super().__init__()
        if exclude not in (None, 'image', 'group'):
            raise ValueError(
                f"{type(self).__name__}(exclude={exclude!r}): use 'image', "
                "'group', or None."
            )
        self.exclude = exclude
        self._staged: dict[tuple[int, int], tuple[Tensor, ...]] = {}
        self.address = (0, 0)

    def set_address(self, seed: int, step: int) -> None:
        """Say where in the run the next look-up stands (for its draws)."""
        self.address = (seed, step)

    @abstractmethod
    def lookup(
        self, k: Tensor, ids: Tensor, groups: Tensor | None = None
    ) -> Candidates:
        """Return what the N queries of ``k`` (N×C keys) compete among.

        Args:
            k: N×C keys of this process, L2-normalised; the queries if the
                dictionary needs no keys.
            ids: N sample ids of the data set, −1 where unknown.
            groups: N numbers of their groups, −1 where there is none; given
                if a dictionary of the model excludes groups.
        """

    @abstractmethod
    def write(
        self, k: Tensor, ids: Tensor, groups: Tensor | None = None
    ) -> None:
        """Store M×C keys with their M ids and groups, in this order."""

    def marks(self, ids: Tensor, groups: Tensor | None) -> Tensor:
        """Return the N numbers by which keys are excluded.

        Raises:
            ValueError: If groups are wanted, and the batch has none.
        """
        if self.exclude == 'image':
            return ids
        if groups is None:
            raise ValueError(
                f"{type(self).__name__}(exclude='group'): the batch has no "
                "'groups'. Let the data set say them (group_by of ours), or "
                "use exclude='image'."
            )
        return groups

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

    def candidates(self, images: int) -> int | None:
        """How many keys a query competes among, its own included.

        Args:
            images: Of one forward, all processes together.

        Returns:
            None if the dictionary does not say.
        """
        return None

    def stage(
        self,
        k: Tensor,
        ids: Tensor,
        slot: int,
        view: int = 0,
        groups: Tensor | None = None,
    ) -> None:
        """Remember the keys of one micro-batch until the optimizer steps.

        Args:
            k: N×C keys.
            ids: N sample ids.
            slot: Training iteration. Staging for the same iteration again
                (a repeated loss) replaces what was staged.
            view: Which of its key sets, where a loss has several.
            groups: N numbers of their groups.
        """
        told = (groups,) if groups is not None else ()
        self._staged[slot, view] = (k.detach(), ids, *told)

    def discard(self) -> None:
        """Forget what is staged: the optimizer step was not taken."""
        self._staged.clear()

    def commit(self) -> None:
        """Write the staged keys: micro-batch, then view, then rank."""
        if not self._staged:
            return
        columns = list(zip(*self._staged.values(), strict=True))
        self._staged.clear()
        self.write(*(torch.cat([gather(x) for x in each]) for each in columns))


class TwoPhaseModel(FeatureModel):
    """A pre-training model, as runner, hooks and tools know it.

    A method derives from it and implements :meth:`loss` and
    :meth:`encoders`. What it has not, it leaves as it is here: None, or a
    method that does nothing.

    Args:
        **kwargs: As for :class:`FeatureModel`.

    Attributes:
        dictionary: What the queries are looked up in.
        teacher: A network that the student learns from.
        contrast: The contrastive loss.
        m_power: What every m is raised to, for another batch than it is meant
            for.
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

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dictionary = self.teacher = None
        self.contrast: Any = None
        self.m_power = 1.0
        self.seed, self.step = 0, 0
        self.queries: Tensor | None = None
        self._announced: set[str] = set()

    @property
    def key_encoder(self) -> nn.Module | None:
        """The moving average of the query encoder."""
        return dict(self.named_children()).get(self.key_encoder_name)

    @property
    def teachers(self) -> list[Any]:
        """Frozen teachers that ask the files of their weights."""
        return []

    @property
    def frozen_teacher(self) -> nn.Module | None:
        """The teacher, where it is no key encoder: nothing may move it."""
        return None if self.teacher is self.key_encoder else self.teacher

    @cached_property
    def dictionaries(self) -> list[Dictionary]:
        """All dictionaries, wherever they stand in the model."""
        return [x for x in self.modules() if isinstance(x, Dictionary)]

    @property
    def wants_groups(self) -> bool:
        """Whether a dictionary excludes groups."""
        return any(each.exclude == 'group' for each in self.dictionaries)

    def get_layer_depth(self, param_name: str) -> tuple[int, int]:
        """Return how deep a parameter lies, and the number of depths.

        For mmpretrain's ``LearningRateDecayOptimWrapperConstructor``: the
        heads have the full rate, what lies deeper in the backbone less.
        """
        backbone: Any = self.backbone
        told = getattr(backbone, 'get_layer_depth', None)
        with suppress(NotImplementedError):  # Not for every depth of a ResNet.
            if told is not None:
                own: tuple[int, int] = told(param_name, 'backbone.')
                return own
        depths = layer_depths(name for name, _ in backbone.named_parameters())
        last = max(depths.values()) + 1
        return depths.get(param_name.removeprefix('backbone.'), last), last + 1

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

    def set_address(
        self, seed: int, step: int, rank: int, epoch: int | None = None
    ) -> None:
        """Say which training iteration of which run comes next.

        Args:
            seed: Of the run.
            step: Iteration (micro-batch).
            rank: Of this process.
            epoch: That the iteration belongs to, from 0; None: unknown.
        """
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
        # Once, where two dictionaries are made alike.
        return [*dict.fromkeys(warning for warning in found if warning)]

    def chance(self, images: int) -> float | None:
        """The loss of a model that tells nothing: where it should begin.

        Args:
            images: Of one forward, all processes together.

        Returns:
            None if the method has no such figure.
        """
        return None

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

    # ---------------------------------------------------------------- loss

    def before_loss(self) -> None:
        """Refuse to train without the hooks.

        Raises:
            RuntimeError: If one of them did not announce itself.
        """
        missing = self.needs - self._announced
        if missing:
            raise RuntimeError(
                f'{type(self).__name__} trains only together with '
                f'{" and ".join(sorted(missing))}, which did not announce '
                'itself. Add custom_hooks of configs/_base_/'
                'default_runtime.py to the config; in a loop of your own, '
                'let mmmoco.TrainStep do their work.'
            )


def layer_depths(names: Iterable[str]) -> dict[str, int]:
    """Return how deep parameters lie, for a network that does not tell.

    What comes before the first numbered block has depth 0, each block
    (``layer1.0``, ``stages.3``) the next one; what comes after blocks belongs
    to the last.

    Args:
        names: Of a backbone's parameters, in their order.
    """
    depths: dict[str, int] = {}
    blocks: dict[str, int] = {}
    for name in names:
        block = re.match(r'.*?(?:^|\.)\d+(?=\.)', name)
        if block:
            blocks.setdefault(block[0], len(blocks) + 1)
        depths[name] = blocks[block[0]] if block else len(blocks)
    return depths
