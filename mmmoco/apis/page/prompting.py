"""Images with their tokens, and the maps of prompts on them.

The tokens of an image are computed once; a click costs one map, and a move of
the threshold one comparison.
"""

import secrets
import threading
import time
from collections import OrderedDict
from typing import NamedTuple

import numpy as np
from mmengine.config import Config
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from mmmoco.apis.cli import Settings, UsageError, require_file
from mmmoco.apis.config.files import load_config
from mmmoco.apis.config.from_checkpoint import config_of
from mmmoco.apis.dense.features import ModelFeatures, load_model
from mmmoco.apis.dense.subject import digit_scenes
from mmmoco.datasets.transforms.loading import decode_rgb, decoding, identify
from mmmoco.evaluation.zero_shot import similarity_maps

#: An image may have this many pixels.
MAX_PIXELS = 50_000_000

#: Longest side of the image on the page; maps have its size.
SHOWN_SIDE = 768

#: Images whose tokens are kept.
KEPT = 8

EXAMPLES = 6
ORIENTATION = 0x0112


class Opened(NamedTuple):
    """An image on the page.

    Attributes:
        pixels: H×W×3, as shown.
        tokens: C×h×w.
        seconds: What the tokens took.
    """

    pixels: NDArray[np.uint8]
    tokens: Tensor
    seconds: float


class Prompting:
    """Images with their tokens, and the maps of prompts on them.

    Args:
        features: Dense features of images.
        shortest: Longer side below which images are enlarged.
        longest: Longer side above which they are reduced.
    """

    def __init__(
        self, features: ModelFeatures, shortest: int, longest: int
    ) -> None:
        self.features = features
        self.shortest, self.longest = shortest, longest
        self.examples = [item.image for item in digit_scenes('val', EXAMPLES)]
        self._opened: OrderedDict[str, Opened] = OrderedDict()
        self._lock = threading.Lock()

    def open_upload(self, content: bytes) -> str:
        """Decode a file and compute its tokens; return its name.

        Raises:
            OSError: If it is no image, or too large.
        """
        pixels = decode_rgb(content, 'upload', MAX_PIXELS)
        image = Image.fromarray(pixels)
        image.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
        with decoding('upload'), identify(content, MAX_PIXELS) as original:
            turned = original.getexif().get(ORIENTATION, 1)
        image.getexif()[ORIENTATION] = turned
        return self.open(np.asarray(ImageOps.exif_transpose(image)))

    def open(self, pixels: NDArray[np.uint8]) -> str:
        """Compute the tokens of an image; return the name of both."""
        name = secrets.token_urlsafe(8)
        start = time.perf_counter()
        with self._lock:
            self.features.size = self._network_size(*pixels.shape[:2])
            (tokens,) = self.features([pixels])
            seconds = time.perf_counter() - start
            self._opened[name] = Opened(pixels, tokens[0], seconds)
            while len(self._opened) > KEPT:
                self._opened.popitem(last=False)
        return name

    def _network_size(self, height: int, width: int) -> tuple[int, int]:
        """Keep the ratio, in whole patches."""
        longer = max(height, width)
        scale = min(max(longer, self.shortest), self.longest) / longer
        patch = self.features.patch_size

        def side(length: int) -> int:
            return max(1, round(length * scale / patch)) * patch

        return side(height), side(width)

    def opened(self, name: str) -> Opened:
        """Return an image by its name.

        Raises:
            UsageError: If it is no longer kept.
        """
        with self._lock:
            if name not in self._opened:
                raise UsageError(
                    'This image is no longer kept: open it again.'
                )
            self._opened.move_to_end(name)
            return self._opened[name]

    def map(self, name: str, x: int, y: int) -> NDArray[np.float32]:
        """Return the similarity of all pixels to the patch at (x, y), H×W.

        Raises:
            UsageError: If the point is outside the image.
        """
        image = self.opened(name)
        height, width = image.pixels.shape[:2]
        if not (0 <= x < width and 0 <= y < height):
            raise UsageError(
                f'({x}, {y}) is outside the image of {width}×{height} pixels.'
            )
        maps = similarity_maps(image.tokens, [(y, x)], (height, width))
        result: NDArray[np.float32] = maps[0].cpu().numpy()
        return result


def build(
    checkpoint: str,
    config: str | Config | None = None,
    size: int = 448,
    cfg_options: Settings | None = None,
) -> Prompting:
    """Build model and examples.

    Args:
        checkpoint: File of a pre-training run.
        config: Of the run; None: what the checkpoint tells about itself.
        size: Longest side that the model sees, in pixels.
        cfg_options: Settings of the config to replace.

    Raises:
        FileNotFoundError: If config or checkpoint do not exist.
        UsageError: If options do not fit together.
        ValueError: If the checkpoint does not tell enough.
    """
    require_file(checkpoint)
    if config:
        cfg = load_config(config, cfg_options)
    elif cfg_options:
        raise UsageError('--cfg-options needs --config.')
    else:
        cfg = config_of(checkpoint)
    model = load_model(cfg, checkpoint)
    side = cfg.model.backbone.get('img_size', 224)
    shortest = int(side if isinstance(side, int) else min(side))
    features = ModelFeatures(model, shortest)
    if size < max(shortest, features.patch_size):
        raise UsageError(
            f'--size {size} is below the {shortest} pixels that the backbone '
            'was made for.'
        )
    return Prompting(features, shortest, size)
