"""Training steps of MoCo v2 as different code bases take them.

The same backbone, MLP head, queue and SGD for all; each step takes two
batches of finished views and ends with updated weights, keys and queue.
"""

import contextlib
import copy
import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mmmoco.engine.hooks import KernelSettingsHook
from mmmoco.engine.optim import ContrastOptimWrapper
from mmmoco.engine.train_step import TrainStep
from mmmoco.private_names import cpu_has_bfloat16
from mmmoco.registry import MODELS

TEMPERATURE, MOMENTUM = 0.2, 0.999
SGD = dict(lr=0.03, momentum=0.9, weight_decay=1e-4)
#: Who runs with the hook of ``--fast``, and whether freed memory is kept.
KERNEL_SETTINGS = {
    'ours': True,
    'ours_compiled': True,
    'ours_equalised': True,
    'mmpretrain_equalised': False,
    'mmpretrain_same_settings': True,
}


@dataclass(frozen=True)
class Setting:
    """What is trained.

    Attributes:
        backbone: Config of the backbone.
        width: Its output channels.
        image: Side of the views.
        batch: Images of a step.
        keys: Length of the queue.
        dim: Width of a key.
        device: Where.
        dtype: Of mixed precision; None is float32.
        channels_last: Memory format.
    """

    backbone: dict[str, Any]
    width: int
    image: int
    batch: int
    keys: int = 65536
    dim: int = 128
    device: str = 'cpu'
    dtype: torch.dtype | None = None
    channels_last: bool = False

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context of a forward pass."""
        if self.dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device, dtype=self.dtype)

    def layout(self, x: Tensor) -> Tensor:
        """Return images in the memory format of the setting."""
        if self.channels_last:
            return x.contiguous(memory_format=torch.channels_last)
        return x

    def place(self, model: nn.Module) -> Any:
        """Move a model to device and memory format."""
        model.to(self.device).train()
        if self.channels_last:
            model.to(memory_format=torch.channels_last)
        return model


MODELS_TO_TRAIN = {
    'resnet18_cifar': Setting(
        dict(type='mmpretrain.ResNet_CIFAR', depth=18), 512, 32, 128
    ),
    'resnet50': Setting(
        dict(type='mmpretrain.ResNet', depth=50), 2048, 224, 8
    ),
    'plain_conv_net': Setting(dict(type='PlainConvNet'), 128, 224, 32),
    # Strides as in a ResNet: cheap enough for the data to be what limits.
    'plain_conv_net_strided': Setting(
        dict(type='PlainConvNet', strides=(4, 2, 2, 2)), 128, 224, 32
    ),
    'look_up': Setting(
        dict(type='PlainConvNet', channels=(16,) * 4), 16, 32, 256
    ),
}


#: What is trained, and where, as options of the command lines.
Model = Literal[
    'resnet18_cifar',
    'resnet50',
    'plain_conv_net',
    'plain_conv_net_strided',
    'look_up',
]
Device = Literal['cpu', 'cuda'] | None


def fast(setting: Setting) -> Setting:
    """Return the setting with what ``--fast`` chooses on this machine."""
    bf16 = setting.device == 'cuda' or cpu_has_bfloat16()
    return replace(
        setting, channels_last=True, dtype=torch.bfloat16 if bf16 else None
    )


class Ours:
    """The model, the optimizer wrapper and the work of the two hooks."""

    def __init__(self, setting: Setting, compiled: bool = False) -> None:
        self.setting = setting
        model = MODELS.build(
            dict(
                type='MoCoV2',
                backbone=setting.backbone,
                neck=_neck(setting),
                dictionary=dict(
                    type='Queue', size=setting.keys, feat_dim=setting.dim
                ),
                loss=dict(type='InfoNCE', temperature=TEMPERATURE),
                m=MOMENTUM,
                channels_last=setting.channels_last,
            )
        )
        model.init_weights()
        self.model = setting.place(model)
        if compiled:
            for part in self.model.children():
                if any(True for _ in part.parameters()):
                    part.compile()
        #: What is called; to be replaced by what wraps the model.
        self.wrapped: Any = self.model
        dtype = 'float32' if setting.dtype is None else 'bfloat16'
        optimizer = torch.optim.SGD(self.model.parameters(), **SGD)
        self.wrapper = ContrastOptimWrapper(dtype, optimizer=optimizer)
        self.train_step = TrainStep(self.model, self.wrapper, total=1)

    def step(self, view_q: Tensor, view_k: Tensor) -> float:
        """Take one step, return its loss."""
        self.train_step.begin()
        inputs = {'view_q': view_q, 'view_k': view_k}
        with self.wrapper.optim_context(self.wrapped):
            losses = self.wrapped(inputs, mode='loss')
        self.wrapper.update_params(losses['loss'])
        self.train_step.end(self.wrapper.stepped)
        return float(losses['loss'].detach())


class MMPretrain:
    """mmpretrain's MoCo with mmengine's optimizer wrapper."""

    def __init__(self, setting: Setting) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            import mmpretrain.models  # noqa: F401
        from mmengine.optim import OptimWrapper

        self.setting = setting
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            model = MODELS.build(
                dict(
                    type='mmpretrain.MoCo',
                    backbone=_scoped(setting.backbone),
                    neck=_neck(setting),
                    head=dict(
                        type='mmpretrain.ContrastiveHead',
                        loss=dict(type='mmpretrain.CrossEntropyLoss'),
                        temperature=TEMPERATURE,
                    ),
                    queue_len=setting.keys,
                    feat_dim=setting.dim,
                    momentum=1 - MOMENTUM,
                )
            )
        model.init_weights()
        self.model = setting.place(model)
        optimizer = torch.optim.SGD(self.model.parameters(), **SGD)
        self.wrapper = OptimWrapper(optimizer)

    def step(self, view_q: Tensor, view_k: Tensor) -> float:
        """Take one step, return its loss."""
        inputs = [self.setting.layout(view_q), self.setting.layout(view_k)]
        with (
            self.wrapper.optim_context(self.model),
            self.setting.autocast(),
        ):
            loss = self.model.loss(inputs, [])['loss']
        self.wrapper.update_params(loss)
        return float(loss.detach())


@dataclass
class Transcription:
    """Algorithm 1 of MoCo v1, line by line, as its authors' code does it."""

    setting: Setting
    query: Any = field(init=False)
    key: Any = field(init=False)

    def __post_init__(self) -> None:
        self.query = self.setting.place(_Encoder(self.setting))
        self.key = copy.deepcopy(self.query).requires_grad_(False)
        shape = self.setting.dim, self.setting.keys
        self.queue = F.normalize(torch.randn(*shape), dim=0)
        self.queue = self.queue.to(self.setting.device)
        self.pointer = 0
        self.optimizer = torch.optim.SGD(self.query.parameters(), **SGD)

    def step(self, view_q: Tensor, view_k: Tensor) -> float:
        """Take one step, return its loss."""
        with self.setting.autocast():
            q = F.normalize(self.query(self.setting.layout(view_q)), dim=1)
            with torch.no_grad():
                for old, new in zip(
                    self.key.parameters(), self.query.parameters(), strict=True
                ):
                    old.data = old.data * MOMENTUM + new.data * (1 - MOMENTUM)
                k = F.normalize(self.key(self.setting.layout(view_k)), dim=1)
            positive = (q * k).sum(1, keepdim=True)
            logits = torch.cat([positive, q @ self.queue.clone()], dim=1)
            target = torch.zeros(len(q), dtype=torch.long, device=q.device)
            loss = F.cross_entropy(logits / TEMPERATURE, target)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.queue[:, self.pointer : self.pointer + len(k)] = k.T
        self.pointer = (self.pointer + len(k)) % self.setting.keys
        return float(loss.detach())


class Lightly:
    """lightly's parts, put together as its MoCo example does."""

    def __init__(self, setting: Setting) -> None:
        from lightly.loss import NTXentLoss
        from lightly.models.utils import (
            batch_shuffle,
            batch_unshuffle,
            update_momentum,
        )

        self.setting = setting
        self.update = update_momentum
        self.shuffle, self.unshuffle = batch_shuffle, batch_unshuffle
        self.query = setting.place(_Encoder(setting))
        self.key = copy.deepcopy(self.query).requires_grad_(False)
        bank = setting.keys, setting.dim
        self.criterion = NTXentLoss(TEMPERATURE, memory_bank_size=bank)
        self.criterion.to(setting.device)
        self.optimizer = torch.optim.SGD(self.query.parameters(), **SGD)

    def step(self, view_q: Tensor, view_k: Tensor) -> float:
        """Take one step, return its loss."""
        self.update(self.query, self.key, m=MOMENTUM)
        with self.setting.autocast():
            q = self.query(self.setting.layout(view_q))
            with torch.no_grad():
                x, order = self.shuffle(self.setting.layout(view_k))
                k = self.unshuffle(self.key(x), order)
            loss = self.criterion(q, k)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())


def contenders(
    setting: Setting, compiled: bool = False
) -> dict[str, Callable[[], Any]]:
    """Return how to build everyone who takes part, by name.

    Each as it is used by default (float32, except ours with ``--fast``);
    those that are equalised, in the precision and layout of ours. Keeping
    freed memory is ours alone, except for mmpretrain with the same settings.

    Args:
        setting: What is trained.
        compiled: Add ours with ``compile=True`` in the config.
    """
    result: dict[str, Callable[[], Any]] = {
        'ours': lambda: Ours(fast(setting)),
        'ours_equalised': lambda: Ours(fast(setting)),
        'ours_plain': lambda: Ours(setting),
        'mmpretrain': lambda: MMPretrain(setting),
        'mmpretrain_equalised': lambda: MMPretrain(fast(setting)),
        'mmpretrain_same_settings': lambda: MMPretrain(fast(setting)),
        'official_transcription': lambda: Transcription(setting),
    }
    if compiled:
        result['ours_compiled'] = lambda: Ours(fast(setting), compiled=True)
    with contextlib.suppress(ImportError):
        import lightly  # noqa: F401

        result['lightly'] = lambda: Lightly(setting)
    return result


def build(name: str, setting: Setting, keep_memory: bool = True) -> Any:
    """Build one contender, with what it sets for its process.

    Args:
        name: Who.
        setting: What is trained.
        keep_memory: Let those keep freed memory that do; False to measure
            what they need.
    """
    contender = contenders(setting, compiled=True)[name]()
    if name in KERNEL_SETTINGS:
        keep = keep_memory and KERNEL_SETTINGS[name]
        # It asks for the model only, to know the device.
        KernelSettingsHook(keep_memory=keep).before_run(contender)
    return contender


class _Encoder(nn.Module):
    """Backbone, average pooling and MLP head, without OpenMMLab's neck."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.backbone = MODELS.build(setting.backbone)
        self.head = nn.Sequential(
            nn.Linear(setting.width, setting.width),
            nn.ReLU(inplace=True),
            nn.Linear(setting.width, setting.dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return N×dim."""
        feature = self.backbone(x)[-1]
        projected: Tensor = self.head(feature.mean((2, 3)))
        return projected


def _neck(setting: Setting) -> dict[str, Any]:
    return dict(
        type='mmpretrain.MoCoV2Neck',
        in_channels=setting.width,
        hid_channels=setting.width,
        out_channels=setting.dim,
        with_avg_pool=True,
    )


def _scoped(backbone: dict[str, Any]) -> dict[str, Any]:
    kind = backbone['type']
    return {**backbone, 'type': kind if '.' in kind else f'mmmoco.{kind}'}
