"""A backbone as ONNX, held against the network that it was made of."""

import warnings
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn

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


def write(source: Source, shape: tuple[int, int, int], path: Path) -> None:
    """Write a backbone for any number of normalised images.

    Args:
        source: The backbone.
        shape: Of an image: channels, height, width.
        path: Of the new file.

    Raises:
        ImportError: If one of three libraries is not installed.
        ValueError: If ONNX does not compute what torch does.
    """
    runtime = require()
    net = _Features(_built(source)).eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(3, *shape, generator=generator)
    with torch.no_grad(), warnings.catch_warnings():
        # The exporter calls a function that its own library gives up.
        warnings.filterwarnings('ignore', '.*treespec', FutureWarning)
        expected = net(images)
        program: Any = torch.onnx.export(
            net,
            (images[:2],),
            input_names=['images'],
            output_names=['features'],
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
            dynamo=True,
            verbose=False,
        )
    content: bytes = program.model_proto.SerializeToString()
    session = runtime.InferenceSession(
        content, providers=['CPUExecutionProvider']
    )
    for count in (1, 3):
        found = session.run(None, {'images': images[:count].numpy()})[0]
        worst = (torch.from_numpy(found) - expected[:count]).abs().max()
        if not worst <= TOLERANCE * max(1.0, float(expected.abs().max())):
            raise ValueError(
                f'{source.path}: ONNX computes features that differ by '
                f'{float(worst):.2g} from those of torch; nothing was '
                'written. Leave out --onnx.'
            )
    checkpoint_io.write_bytes(path, content)


def _built(source: Source) -> nn.Module:
    cfg = Config(dict(model=dict(source.config), default_scope=source.scope))
    cfg.model.pop('init_cfg', None)
    with in_scope_of(cfg):
        net: nn.Module = MODELS.build(cfg.model)
    checkpoint_io.load_into(net, source.backbone, source.path)
    return net
