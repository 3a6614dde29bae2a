from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.distributed as torch_dist
from mmengine.dist import get_world_size
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from mmmoco.engine.norm_statistics import statistics_of
from mmmoco.messages import log_warning
from mmmoco.older_versions import GradScaler, clip_by_norm, get_total_norm
from mmmoco.registry import OPTIM_WRAPPERS

DTYPES = {
    'float32': None,
    'bfloat16': torch.bfloat16,
    'float16': torch.float16,
}


@OPTIM_WRAPPERS.register_module()
class ContrastOptimWrapper(OptimWrapper):
    """Precision, accumulation, and the decision whether a step is taken.

    After the last backward of an accumulation all processes agree whether
    every loss and every gradient is finite. Only then the optimizer steps,
    and only then :attr:`stepped` is True: the hooks that move key encoder and
    dictionary read nothing else. ``should_update()`` is also true when a step
    is skipped; BatchNorm's statistics, which every forward moves, then go
    back to where they were before the accumulation.

    Args:
        dtype: ``'float32'``; ``'bfloat16'`` (mixed precision on CPU and
            GPU); ``'float16'`` (mixed precision with loss scaling, GPU).
        loss_scale: ``'dynamic'``, or the initial scale; float16 only.
        **kwargs: As for mmengine's OptimWrapper (``optimizer``,
            ``accumulative_counts``, ``clip_grad``).

    Attributes:
        stepped: Whether the last call of :meth:`update_params` changed the
            parameters.
        skipped: Steps that were not taken because of a non-finite gradient.
        skipped_in_a_row: Those since the last step that was taken.
        grad_norm: L2 norm of the gradient at the last step or skipped step.
        frozen: Parameters that no step moves or decays: their gradients are
            dropped.
        wants_stop: Asked before every step; whether this process was told to
            end the run.
        stop_wanted: Whether any process was, at the last step.

    Raises:
        ValueError: If the precision does not exist or needs a GPU.
    """

    def __init__(
        self,
        dtype: str = 'float32',
        loss_scale: str | float = 'dynamic',
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if dtype not in DTYPES:
            raise ValueError(
                f'optim_wrapper.dtype={dtype!r} is unknown; use one of '
                f'{", ".join(DTYPES)}.'
            )
        if dtype == 'float16' and self.device.type == 'cpu':
            raise ValueError(
                "optim_wrapper.dtype='float16' needs a GPU; on a CPU use "
                "'bfloat16' or 'float32'."
            )
        self.dtype = DTYPES[dtype]
        self.scaler: GradScaler | None = None
        if dtype == 'float16':
            self.scaler = GradScaler('cuda')
            if loss_scale != 'dynamic':
                self.scaler = GradScaler('cuda', init_scale=float(loss_scale))
        self.stepped = False
        self.skipped = self.skipped_in_a_row = 0
        self.grad_norm = 0.0
        self.frozen: Sequence[nn.Parameter] = ()
        self.wants_stop: Callable[[], bool] = lambda: False
        self.stop_wanted = False
        self._norm: Tensor | None = None
        self._losses_finite: Tensor | None = None
        #: Buffers of the normalisation layers, and their values before the
        #: accumulation.
        self._buffers: list[Tensor] = []
        self._before: list[Tensor] = []

    @property
    def device(self) -> torch.device:
        """Where the parameters lie."""
        parameter: Tensor = self.optimizer.param_groups[0]['params'][0]
        return parameter.device

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast, and no gradient exchange inside an accumulation."""
        if not self._buffers or self.should_update():
            self._remember(statistics_of(model))
        with super().optim_context(model):
            if self.dtype is None:
                yield
            else:
                with torch.autocast(self.device.type, dtype=self.dtype):
                    yield

    def _remember(self, buffers: list[Tensor]) -> None:
        """Keep the values of the buffers, in the memory of the last time."""
        if list(map(id, buffers)) == list(map(id, self._buffers)):
            _copy(buffers, self._before)
        else:
            self._buffers = buffers
            self._before = [buffer.clone() for buffer in buffers]

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        """Back-propagate, with the loss scaled for float16."""
        if self.scaler is not None:
            loss = self.scaler.scale(loss)
        super().backward(loss, **kwargs)

    def update_params(
        self,
        loss: Tensor,
        step_kwargs: dict[str, Any] | None = None,
        zero_kwargs: dict[str, Any] | None = None,
    ) -> None:
        """Back-propagate; at the end of an accumulation step, or skip."""
        self.stepped = False
        finite = torch.isfinite(loss.detach()).all()
        if self._losses_finite is not None:
            finite = finite & self._losses_finite
        self._losses_finite = finite
        self.backward(self.scale_loss(loss))
        if not self.should_update():
            return
        for parameter in self.frozen:
            parameter.grad = None
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        self._norm = get_total_norm(
            [cast(Tensor, p.grad) for p in self._learnt()]
        )
        finite = finite & torch.isfinite(self._norm)
        self._losses_finite = None
        if self._all_agree(finite, self._norm):
            self.step(**(step_kwargs or {}))
            self.stepped = True
            self.skipped_in_a_row = 0
        else:
            self._skip(loss)
        if self.scaler is not None:
            self.scaler.update()
        self.zero_grad(**(zero_kwargs or {}))

    def step(self, **kwargs: Any) -> None:
        """Clip, then step; the gradient is known to be finite."""
        if self.clip_grad_kwargs:
            self._clip_grad()
        # Not by the scaler, which would wait for the device to ask again.
        self.optimizer.step(**kwargs)

    def _clip_grad(self) -> None:
        """Clip by the norm that is known already."""
        options = dict(self.clip_grad_kwargs)
        most = options.pop('max_norm', None)
        if self._norm is None or most is None or options:
            super()._clip_grad()
            return
        clip_by_norm(self._learnt(), most, self._norm)
        self.message_hub.update_scalar('train/grad_norm', self.grad_norm)

    def _skip(self, loss: Tensor) -> None:
        """Count a step that is not taken, and undo what the forward did."""
        self.skipped += 1
        self.skipped_in_a_row += 1
        _copy(self._before, self._buffers)
        log_warning(
            'Skipped an optimizer step: loss or gradient is not finite (loss '
            f'{float(loss.detach()):g}, norm {self.grad_norm:g}; '
            f'{self.skipped} skipped so far, {self.skipped_in_a_row} in a '
            'row). Weights, key encoder, dictionary and statistics stay as '
            'they were. If it goes on, look at the learning rate and at the '
            'images.'
        )

    def _learnt(self) -> list[Tensor]:
        return [
            p
            for group in self.optimizer.param_groups
            for p in group['params']
            if p.grad is not None
        ]

    def _all_agree(self, finite: Tensor, norm: Tensor) -> bool:
        """Return whether all processes may step, and note what else counts.

        All of it in one exchange between the processes, and in the only copy
        that an iteration needs from the device before it can go on.
        """
        stop = self.wants_stop()
        flags = finite.float()[None]
        if get_world_size() > 1:
            goes_on = flags.new_full((1,), float(not stop))
            flags = torch.cat([flags, goes_on])
            torch_dist.all_reduce(flags, torch_dist.ReduceOp.MIN)
        values = torch.cat([norm.float()[None], flags]).tolist()
        self.grad_norm, agreed = values[:2]
        self.stop_wanted = stop or 0.0 in values[2:]
        return bool(agreed)

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's state, the loss scale and the skip count."""
        state = super().state_dict()
        state['skipped_steps'] = self.skipped
        state['skipped_in_a_row'] = self.skipped_in_a_row
        if self.scaler is not None:
            state['loss_scaler'] = self.scaler.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned, or a plain optimizer."""
        state = dict(state_dict)
        self.skipped = state.pop('skipped_steps', 0)
        self.skipped_in_a_row = state.pop('skipped_in_a_row', 0)
        scaler = state.pop('loss_scaler', None)
        if self.scaler is not None and scaler is not None:
            self.scaler.load_state_dict(scaler)
        super().load_state_dict(state)


@torch.no_grad()
def _copy(source: list[Tensor], target: list[Tensor]) -> None:
    """Copy many small tensors, those of one type by one operation."""
    for dtype in {x.dtype for x in source}:
        places = [i for i, x in enumerate(source) if x.dtype == dtype]
        torch._foreach_copy_(
            [target[i] for i in places], [source[i] for i in places]
        )
