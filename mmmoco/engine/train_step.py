"""One iteration of a pre-training, in the only order that is right."""

from typing import Any

from mmengine.dist import get_rank
from mmengine.model import is_model_wrapper
from torch import Tensor

from mmmoco.two_phase import TwoPhaseModel


def epoch_of(step: int, length: int) -> int | None:
    """Return the epoch of an iteration; None if no length is known."""
    return step // length if length else None


def move_key_encoder(
    model: TwoPhaseModel, progress: float, stepped: bool
) -> float:
    """Move the key encoder after an iteration; return its m.

    m belongs to the coming iteration, so that the key parameters of every
    forward are those of the paper's order, which moves them just before the
    keys are encoded.

    Args:
        model: The bare model.
        progress: Fraction of all iterations done, this one included.
        stepped: Whether the optimizer really stepped.
    """
    m = model.momentum_at(progress) ** model.m_power
    if stepped:
        model.update_key_encoder(m)
    return m


def write_dictionaries(model: TwoPhaseModel, stepped: bool, due: bool) -> None:
    """Commit what is staged after a real step; forget it after a skipped one.

    Args:
        model: The bare model.
        stepped: Whether the optimizer really stepped.
        due: Whether it should have: an accumulation was complete.
    """
    if stepped:
        model.commit_keys()
    elif due:
        model.discard_keys()


class TrainStep:
    """A loop of your own: one call for each batch, nothing else to be done.

    Does what the runner does with its hooks: says where in the run the batch
    stands, takes the optimizer's step, and only after a real one moves the
    key encoder and writes the dictionaries.

    Args:
        model: A pre-training model, bare or wrapped for several processes.
        optim_wrapper: A ``ContrastOptimWrapper`` of its parameters.
        total: Iterations (micro-batches) of the whole training.
        seed: Of the run, equal on all processes.
        done: Iterations done before.
        epoch_length: Iterations of an epoch; 0 if nothing of the loss waits
            for an epoch.

    Raises:
        TypeError: If model or wrapper is of another kind.
        ValueError: If nothing is left to do.
    """

    def __init__(
        self,
        model: Any,
        optim_wrapper: Any,
        total: int,
        seed: int = 0,
        done: int = 0,
        epoch_length: int = 0,
    ) -> None:
        bare = model.module if is_model_wrapper(model) else model
        if not isinstance(bare, TwoPhaseModel):
            raise TypeError(
                f'A {type(bare).__name__} is no pre-training model: derive it '
                'from TwoPhaseModel.'
            )
        if 'stepped' not in dir(optim_wrapper):
            raise TypeError(
                f'A {type(optim_wrapper).__name__} does not tell whether it '
                'stepped: give a ContrastOptimWrapper.'
            )
        if not 0 <= done < total:
            raise ValueError(
                f'done={done} must lie from 0 to below total={total}.'
            )
        self.model: TwoPhaseModel = bare
        self.wrapped, self.optim_wrapper = model, optim_wrapper
        self.total, self.seed, self.done = total, seed, done
        self.epoch_length = epoch_length
        self.model.announce(*self.model.needs)
        optim_wrapper.initialize_count_status(model, done, total)

    def __call__(self, batch: Any) -> dict[str, Tensor]:
        """Train on one batch; return its losses and statistics."""
        self.begin()
        wrapper = self.optim_wrapper
        log: dict[str, Tensor] = self.wrapped.train_step(batch, wrapper)
        self.end(wrapper.stepped, wrapper.should_update())
        return {name: value.detach() for name, value in log.items()}

    def begin(self) -> None:
        """Do what comes before the forward pass."""
        if not self.wrapped.training:
            self.wrapped.train()  # As get_model returns it, it is not.
        epoch = epoch_of(self.done, self.epoch_length)
        self.model.set_address(self.seed, self.done, get_rank(), epoch)

    def end(self, stepped: bool, due: bool = True) -> None:
        """Do what comes after the optimizer.

        Args:
            stepped: Whether it really stepped.
            due: Whether it should have.
        """
        self.done += 1
        if self.model.key_encoder is not None:
            move_key_encoder(self.model, self.done / self.total, stepped)
        write_dictionaries(self.model, stepped, due)
