"""From a path to uint8 views: decode once, then one pipeline a view.

The transforms between work on ``results['img']``, a PIL image, as those of
torchvision do, on which the papers' recipes are defined.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from PIL import Image, ImageFilter
from torch import Tensor

from mmmoco.registry import TRANSFORMS

from .pipeline import build_pipeline

Results = dict[str, Any]


@TRANSFORMS.register_module()
class LoadRGB(BaseTransform):
    """Decode ``img_path`` to an RGB PIL image in ``img``."""

    def transform(self, results: Results) -> Results:
        """Read the file.

        Raises:
            OSError: If it cannot be read or decoded, naming it.
        """
        path = results['img_path']
        try:
            with Image.open(path) as image:
                results['img'] = image.convert('RGB')
        except (OSError, SyntaxError, ValueError) as error:
            raise OSError(f'Cannot decode image {path!r}: {error}') from error
        return results


@TRANSFORMS.register_module()
class GaussianBlur(BaseTransform):
    """Blur by PIL with a radius drawn from ``sigma`` (SimCLR, MoCo v2).

    Args:
        sigma: Range of the radius in pixels.
        prob: Probability of blurring.
    """

    def __init__(
        self, sigma: tuple[float, float] = (0.1, 2.0), prob: float = 0.5
    ) -> None:
        if not 0.0 <= sigma[0] <= sigma[1]:
            raise ValueError(f'sigma={sigma} must be positive, low to high.')
        self.sigma, self.prob = sigma, prob

    def transform(self, results: Results) -> Results:
        """Blur ``img``, or leave it."""
        if np.random.rand() < self.prob:
            radius = np.random.uniform(*self.sigma)
            blur = ImageFilter.GaussianBlur(radius)
            results['img'] = results['img'].filter(blur)
        return results


@TRANSFORMS.register_module()
class Views(BaseTransform):
    """Send one decoded image through a pipeline for each view.

    Returns what the collate function stacks: ``inputs`` (uint8 C×H×W by
    name of the view) and ``ids`` (position in the data set).

    Args:
        views: Name of the view → configs of its transforms.
    """

    def __init__(self, views: Mapping[str, Sequence[dict[str, Any]]]) -> None:
        self.views = {
            name: build_pipeline(view) for name, view in views.items()
        }

    def transform(self, results: Results) -> Results:
        """Make every view of ``img``."""
        inputs = {}
        for name, pipeline in self.views.items():
            view = pipeline({'img': results['img']})
            inputs[name] = to_uint8_tensor(view['img'])
        return {'inputs': inputs, 'ids': results['sample_idx']}


@TRANSFORMS.register_module()
class PackImage(BaseTransform):
    """Return the image itself, for evaluation, with its label if known."""

    def transform(self, results: Results) -> Results:
        """Pack ``img``, ``sample_idx`` and ``gt_label``."""
        packed = {
            'inputs': {'image': to_uint8_tensor(results['img'])},
            'ids': results['sample_idx'],
        }
        if 'gt_label' in results:
            packed['labels'] = results['gt_label']
        return packed


def to_uint8_tensor(image: Image.Image) -> Tensor:
    """Return a PIL image as a uint8 tensor C×H×W."""
    array = np.array(image, dtype=np.uint8)
    if array.ndim == 2:
        array = array[..., None]
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()
