"""Images with their tokens, and the maps of points on them.

The tokens of an image are computed once, those of all layers together; a
click costs one map, and a move of the threshold one comparison.
"""

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from mmmoco.apis.cli import Settings, UsageError, require_file
from mmmoco.apis.config.files import load_config
from mmmoco.apis.config.from_checkpoint import config_of
from mmmoco.apis.dense.features import (
    ModelFeatures,
    layer_count,
    load_model,
    normalised,
)
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
LYING = (5, 6, 7, 8)


#: What maps are made of: the checkpoint's features, and what it must beat.
SOURCES = ('this model', 'random weights', 'colours')


class Point(NamedTuple):
    """A pixel of the image as shown, on the object or beside it."""

    x: int
    y: int
    inside: bool


class Tokens(NamedTuple):
    """The tokens of an image.

    Attributes:
        layers: C×h×w of each layer.
        seconds: What they took.
    """

    layers: Sequence[Tensor]
    seconds: float


class Opened(NamedTuple):
    """An image on the page.

    Attributes:
        pixels: H×W×3, as shown.
        size: Height and width of the file's image, upright.
        tokens: By source, as far as they were asked for.
    """

    pixels: NDArray[np.uint8]
    size: tuple[int, int]
    tokens: dict[str, Tokens]


class Prompting:
    """Images with their tokens, and the maps of points on them.

    Args:
        features: Dense features of images.
        untrained: Makes those of the same network with random weights.
        shortest: Longer side below which images are enlarged.
        longest: Longer side above which they are reduced.
    """

    def __init__(
        self,
        features: ModelFeatures,
        untrained: Callable[[], ModelFeatures],
        shortest: int,
        longest: int,
    ) -> None:
        self.features, self.untrained = features, untrained
        self.shortest, self.longest = shortest, longest
        self.examples = [item.image for item in digit_scenes('val', EXAMPLES)]
        self._opened: OrderedDict[str, Opened] = OrderedDict()
        self._random: ModelFeatures | None = None
        self._lock = threading.Lock()

    @property
    def layers(self) -> int:
        """How many layers there are to choose from."""
        return len(self.features.layers or [0])

    def open_upload(self, content: bytes) -> str:
        """Decode a file and compute its tokens; return its name.

        Raises:
            OSError: If it is no image, or too large.
        """
        image = Image.fromarray(decode_rgb(content, 'upload', MAX_PIXELS))
        width, height = image.size
        image.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
        with decoding('upload'), identify(content, MAX_PIXELS) as original:
            turned = original.getexif().get(ORIENTATION, 1)
        image.getexif()[ORIENTATION] = turned
        size = (width, height) if turned in LYING else (height, width)
        return self.open(np.asarray(ImageOps.exif_transpose(image)), size)

    def open(
        self, pixels: NDArray[np.uint8], size: tuple[int, int] | None = None
    ) -> str:
        """Compute the tokens of an image; return the name of both.

        Args:
            pixels: As shown.
            size: Height and width before; default: the same.
        """
        name = secrets.token_urlsafe(8)
        height, width = pixels.shape[:2]
        image = Opened(pixels, size or (height, width), {})
        with self._lock:
            self._opened[name] = image
            while len(self._opened) > KEPT:
                self._opened.popitem(last=False)
        self.tokens(name)
        return name

    def tokens(self, name: str, source: str = SOURCES[0]) -> Tokens:
        """Return the tokens of an image, which are computed once."""
        image = self.opened(name)
        with self._lock:
            if source not in image.tokens:
                start = time.perf_counter()
                layers = self._compute(image, source)
                seconds = time.perf_counter() - start
                image.tokens[source] = Tokens(layers, seconds)
            return image.tokens[source]

    def _compute(self, image: Opened, source: str) -> list[Tensor]:
        size = self._network_size(*image.pixels.shape[:2])
        features = self.features
        if source == 'colours':
            # Their means over what the patches of the last layer cover.
            rows, columns = image.tokens[SOURCES[0]].layers[-1].shape[1:]
            colours = normalised(features.model, [image.pixels], size)
            return list(F.adaptive_avg_pool2d(colours, (rows, columns)))
        if source == 'random weights':
            features = self._random = self._random or self.untrained()
        features.size = size
        return [layer[0] for layer in features([image.pixels])]

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

    def map(
        self,
        name: str,
        points: Sequence[Point],
        source: str = SOURCES[0],
        layer: int = -1,
    ) -> NDArray[np.float32]:
        """Return how similar all pixels are to the points, H×W.

        The nearest point on the object counts. A pixel that is nearer to a
        point beside the object has NaN.

        Args:
            name: Of the image.
            points: At least one of them on the object.
            source: One of ``SOURCES``.
            layer: Of those that the features have.

        Raises:
            UsageError: If a point is outside the image, or the features
                are not finite.
        """
        height, width = self.opened(name).pixels.shape[:2]
        for x, y, _ in points:
            if not (0 <= x < width and 0 <= y < height):
                raise UsageError(
                    f'({x}, {y}) is outside the image of {width}×{height} '
                    'pixels.'
                )
        layers = self.tokens(name, source).layers
        tokens = layers[-1] if source == 'colours' else layers[layer]
        maps = similarity_maps(
            tokens, [(p.y, p.x) for p in points], (height, width)
        ).cpu()
        inside = torch.tensor([p.inside for p in points])
        found = maps[inside].amax(0)
        if not inside.all():
            found[maps[~inside].amax(0) > found] = torch.nan
        if not found.isfinite().any():
            raise UsageError(f'The features of {source} are not finite.')
        result: NDArray[np.float32] = found.numpy()
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
    layers = range(layer_count(model.backbone)) or None
    features = ModelFeatures(model, shortest, layers=layers)

    def untrained() -> ModelFeatures:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            random = load_model(cfg, None)
        return ModelFeatures(random, shortest, layers=layers)

    if size < max(shortest, features.patch_size):
        raise UsageError(
            f'--size {size} is below the {shortest} pixels that the backbone '
            'was made for.'
        )
    return Prompting(features, untrained, shortest, size)
