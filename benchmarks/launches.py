"""What one iteration asks of a GPU, counted without one.

    python benchmarks/launches.py

The real code runs on PyTorch's meta device, which computes shapes only. Every
operation on it counts as one launch, unless it is a view or merely allocates;
an operation on a list of tensors (``_foreach``) counts once. A copy goes from
the host to the device, a wait from the device to the host: a number or a
result of unknown size that Python needs. A GPU may need more than one kernel
for an operation; how often it is asked, and how often it is waited for, is
exact.
"""

import contextlib
import itertools
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from mmmoco.apis import cli

DEVICE = 'meta'

#: Allocate, or change what PyTorch knows about a tensor.
FREE = ('aten::empty', 'aten::new_empty', 'aten::_unsafe_view', 'aten::detach')


class Count(TorchDispatchMode):
    """Counts what is asked of the meta device while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.launches: Counter[str] = Counter()
        self.copies: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()

    def totals(self) -> dict[str, int]:
        """Return the sums."""
        return {
            name: getattr(self, name).total()
            for name in ('launches', 'copies', 'waits')
        }

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Any = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name
        there = _on_device((args, kwargs))
        if there and name == 'aten::_local_scalar_dense':
            self.waits[name] += 1
            return _some_number(args[0])
        if there and name in ('aten::nonzero', 'aten::_unique2'):
            self.waits[name] += 1
            raise NotImplementedError(f'{name} has no size without a GPU.')
        target = str(kwargs.get('device', DEVICE))
        if there and name == 'aten::_to_copy' and DEVICE not in target:
            self.waits[name] += 1
            dtype = kwargs.get('dtype') or args[0].dtype
            return torch.ones(args[0].shape, dtype=dtype)
        if name == 'aten::copy_' and args[0].device != args[1].device:
            (self.copies if _on_device(args[0]) else self.waits)[name] += 1
            return args[0]
        result = func(*args, **kwargs)
        if not _on_device(result) and not there:
            return result
        if not there and name in ('aten::_to_copy', 'aten::lift_fresh_copy'):
            self.copies[name] += 1
        elif not (_is_view(func) or name.startswith(FREE)):
            self.launches[name] += _as_often(name, args)
        return result


def _as_often(name: str, args: Any) -> int:
    """An operation on lists is one only if the shapes in them are equal."""
    lists = [
        x
        for x in args
        if isinstance(x, list) and x and isinstance(x[0], Tensor)
    ]
    if not name.startswith('aten::_foreach') or not lists:
        return 1
    shapes = [[x.shape for x in tensors] for tensors in lists]
    return 1 if all(s == shapes[0] for s in shapes) else len(shapes[0])


def _on_device(tree: Any) -> bool:
    return any(
        isinstance(leaf, Tensor) and leaf.device.type == DEVICE
        for leaf in tree_flatten(tree)[0]
    )


def _some_number(x: Tensor) -> Any:
    if x.dtype == torch.bool:
        return True
    return 1.0 if x.dtype.is_floating_point else 0


def _is_view(func: Any) -> bool:
    """Whether what an operation returns is memory that it was given."""
    returns = func._schema.returns
    return bool(returns) and all(
        r.alias_info is not None and not r.alias_info.is_write for r in returns
    )


@contextlib.contextmanager
def without_autocast() -> Iterator[None]:
    """The meta device has no mixed precision; what switches it off may ask."""
    with (
        mock.patch(
            'torch.autocast', lambda *_, **__: contextlib.nullcontext()
        ),
        mock.patch('torch.is_autocast_enabled', lambda *_: False),
    ):
        yield


def count(act: Callable[[], Any]) -> Count:
    """Count what a function asks for."""
    with without_autocast(), Count() as found:
        act()
    return found


def views(config: str) -> dict[str, Count]:
    """Count for every view of a config what the device does for it."""
    from mmmoco.apis import load_config
    from mmmoco.registry import MODELS

    cfg = load_config(config, {'device_views': True})
    made = MODELS.build(cfg.model.data_preprocessor).to(DEVICE)
    made._device = torch.device(DEVICE)
    every = made.views
    result = {}
    for name in every:
        made.views = {name: every[name]}
        x = torch.empty(256, 3, 224, 224, dtype=torch.uint8, device=DEVICE)
        batch = {'inputs': {name: x}, 'ids': torch.arange(256, device=DEVICE)}
        result[name] = count(lambda: made(batch, True))  # noqa: B023
    return result


def model(norm: dict[str, Any], config: str = 'mocov2_r50_8xb32') -> Any:
    """Return a model of a config, and its optimizer's wrapper."""
    from mmmoco.apis import load_config
    from mmmoco.engine.optim import ContrastOptimWrapper
    from mmmoco.registry import MODELS

    cfg = load_config(config)
    cfg.model.backbone.norm_cfg = norm
    built = MODELS.build(cfg.model)
    built.init_weights()
    built = built.to(DEVICE).train()
    built.data_preprocessor._device = torch.device(DEVICE)
    built.announce(*built.needs)
    learnt = [p for p in built.parameters() if p.requires_grad]
    kind = cfg.optim_wrapper.optimizer.type
    if kind == 'LARS':
        from mmmoco.engine.optim import LARS

        optimizer: Any = LARS(learnt, lr=0.03, weight_decay=1e-4)
    else:
        optimizer = torch.optim.SGD(learnt, 0.03, 0.9, foreach=True)
    return built, ContrastOptimWrapper(optimizer=optimizer)


def step(
    norm: dict[str, Any], config: str = 'mocov2_r50_8xb32'
) -> dict[str, Count]:
    """Count the parts of a training step on ResNet-50 that matter here."""
    from mmengine.registry import DefaultScope

    DefaultScope.get_instance('launches', scope_name='mmmoco')
    with without_autocast():
        built, wrapper = model(norm, config)
    names = (
        ('view_q', 'view_k') if 'v3' not in config else ('view_1', 'view_2')
    )
    batch = {
        'inputs': {
            name: torch.empty(
                256, 3, 224, 224, dtype=torch.uint8, device=DEVICE
            )
            for name in names
        },
        'ids': torch.arange(256, device=DEVICE),
    }
    built.set_address(seed=0, step=0, rank=0)
    found = {}
    found['train_step'] = count(lambda: built.train_step(batch, wrapper))
    # The first has buffers to create.
    found['train_step'] = count(lambda: built.train_step(batch, wrapper))
    for group in wrapper.optimizer.param_groups:
        for p in group['params']:
            p.grad = torch.empty_like(p)
    found['optimizer'] = count(wrapper.optimizer.step)
    return found


def iterations(number: int = 12, skip: int = 4) -> list[dict[str, int]]:
    """Count the iterations of a run of the real runner, with all its hooks.

    Args:
        number: How many to run.
        skip: How many to leave out at the start.
    """
    from mmengine.hooks import Hook

    from mmmoco.apis import load_config
    from mmmoco.apis.training.runner import build_runner

    per_iteration: list[dict[str, int]] = []
    found = Count()

    class Note(Hook):
        priority = 'LOWEST'

        def after_train_iter(self, *_: Any, **__: Any) -> None:
            per_iteration.append(found.totals())

    cfg = load_config(
        'demo/mocov2_digits',
        {
            'train_dataloader.batch_size': 16,
            'train_dataloader.dataset.num_scenes': 16 * number,
            'model.dictionary.size': 64,
            'optim_wrapper.optimizer.foreach': True,
            'train_cfg.max_epochs': 1,
            'schedule': 'keep',
            'default_hooks.checkpoint.interval': 1000,
            'default_hooks.logger.interval': 1000,
            'log_level': 'ERROR',
        },
    )
    cfg.custom_hooks = [
        hook for hook in cfg.custom_hooks if hook.type != 'KNNHook'
    ]
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch('mmengine.runner.runner.get_device', lambda: DEVICE),
        mock.patch(
            'mmmoco.engine.hooks.checkpoint_hook.ContrastCheckpointHook.'
            'after_train_epoch',
            lambda *_: None,
        ),
        without_autocast(),
        found,
    ):
        cfg.work_dir = folder
        runner = build_runner(cfg)
        runner.model.data_preprocessor._device = torch.device(DEVICE)
        runner.register_hook(Note())
        runner.train()
    totals = per_iteration[skip - 1 :]
    return [
        {name: b[name] - a[name] for name in a}
        for a, b in itertools.pairwise(totals)
    ]


def benchmark(*, operations: bool = False) -> None:
    """What one iteration asks of a GPU, counted without one.

    Args:
        operations: Print each one.
    """
    rows: dict[str, dict[str, int]] = {}
    for config in ('mocov2_r50_8xb32', 'mocov3_vit-s_8xb128_300e'):
        for name, found in views(config).items():
            rows[f'{config}: {name}'] = found.totals()
            if operations:
                print(name, found.launches, found.copies, found.waits)
    for norm in (dict(type='BN'), dict(type='mmmoco.SplitBN', num_splits=8)):
        parts = step(norm)
        rows[f'ResNet-50, {norm["type"]}'] = parts['train_step'].totals()
        if operations:
            print(norm, parts['train_step'].launches)
    lars = step(dict(type='BN'), 'mocov3_r50_16xb256_100e')
    rows['LARS'] = lars['optimizer'].totals()
    each = iterations()
    rows['iteration of the demo, median'] = {
        name: sorted(one[name] for one in each)[len(each) // 2]
        for name in each[0]
    }
    for row, totals in rows.items():
        numbers = ' | '.join(str(totals[name]) for name in totals)
        print(f'| {row} | {numbers} |')


if __name__ == '__main__':
    cli.main(benchmark)
