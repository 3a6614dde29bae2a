"""A backbone as ONNX, held against the network that it was made of."""

import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn
from torch.nn import functional as F

from mmmoco.engine import checkpoint_io
from mmmoco.messages import library
from mmmoco.models.algorithms.momentum_contrast import last_output
from mmmoco.registry import MODELS, in_scope_of

from .export_backbone import Source

#: Largest difference of a feature, as a part of the largest feature or of 1.
TOLERANCE = 1e-4


class _Features(nn.Module):
    """One vector for each image."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        out = last_output(self.backbone(images))
        return out.mean((2, 3)) if out.dim() == 4 else out


def require() -> Any:
    """Return onnxruntime, or say what is missing.

    Raises:
        ImportError: If one of three libraries is not installed.
    """
    for name in ('onnx', 'onnxscript'):
        library(name, '--onnx')
    return library('onnxruntime', '--onnx')


def write(source: Source, shape: tuple[int, int, int], path: Path) -> str:
    """Write a backbone for any number of normalised images.

    Of any size, too, if the network takes them.

    Args:
        source: The backbone.
        shape: Of an image: channels, height, width.
        path: Of the new file.

    Returns:
        What images it takes.

    Raises:
        ImportError: If one of three libraries is not installed.
        ValueError: If ONNX does not compute what torch does.
    """
    require()
    net = _Features(_built(source)).eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(3, *shape, generator=generator)
    with torch.no_grad(), warnings.catch_warnings():
        # The exporter calls a function that its own library gives up.
        warnings.filterwarnings('ignore', '.*treespec', FutureWarning)
        content = _of_any_size(net, images)
        size = 'any size'
        if content is None:
            content = _exported(net, images, (0,))
            size = f'{shape[1]} × {shape[2]} pixels only'
        for count in (1, 3):
            worst = _worst(content, net, images[:count])
            if not worst <= TOLERANCE:
                raise ValueError(
                    f'{source.path}: ONNX computes features that differ by '
                    f'{worst:.2g} from those of torch; nothing was '
                    'written. Leave out --onnx.'
                )
    checkpoint_io.write_bytes(path, content)
    return f'any number of images, {size}'


def _of_any_size(net: nn.Module, images: Tensor) -> bytes | None:
    """Return the file's content; None if the network has one size."""
    larger = F.interpolate(images, scale_factor=2)
    # Foreign code, asked for other sizes, may raise anything.
    with suppress(Exception):
        content = _exported(net, images, (0, 2, 3))
        if _worst(content, net, larger) <= TOLERANCE:
            return content
    return None


def _exported(net: nn.Module, images: Tensor, free: tuple[int, ...]) -> bytes:
    """Return the file's content; some sides of its input are free."""
    program: Any = torch.onnx.export(
        net,
        (images[:2],),
        input_names=['images'],
        output_names=['features'],
        dynamic_shapes=(dict.fromkeys(free, torch.export.Dim.DYNAMIC),),
        dynamo=True,
        verbose=False,
    )
    content: bytes = program.model_proto.SerializeToString()
    return content


def _worst(content: bytes, net: nn.Module, images: Tensor) -> float:
    """Return the largest difference of a feature from that of torch."""
    runtime = require()
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # What does not fit is raised, too.
    session = runtime.InferenceSession(
        content, options, providers=['CPUExecutionProvider']
    )
    expected = net(images)
    found = session.run(None, {'images': images.numpy()})[0]
    worst = (torch.from_numpy(found) - expected).abs().max()
    return float(worst) / max(1.0, float(expected.abs().max()))


def _built(source: Source) -> nn.Module:
    cfg = Config(dict(model=dict(source.config), default_scope=source.scope))
    cfg.model.pop('init_cfg', None)
    with in_scope_of(cfg):
        net: nn.Module = MODELS.build(cfg.model)
    checkpoint_io.load_into(net, source.backbone, source.path)
    return net
