"""MoCo v2's views as published: torchvision's transforms on PIL images."""

import random
from typing import Any

from mmcv.transforms import BaseTransform
from PIL import Image, ImageFilter
from torchvision import transforms

from mmmoco.registry import TRANSFORMS


class OfficialBlur:
    """Gaussian blur of PIL, its radius drawn from [0.1, 2]."""

    def __call__(self, image: Image.Image) -> Image.Image:
        """Return the blurred image."""
        radius = random.uniform(0.1, 2.0)
        return image.filter(ImageFilter.GaussianBlur(radius))


def official_views(size: int) -> list[Any]:
    """Return the operations of "aug+", up to the PIL image.

    Args:
        size: Side of the views.
    """
    jitter = transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)
    return [
        transforms.RandomResizedCrop(size, scale=(0.2, 1.0)),
        transforms.RandomApply([jitter], p=0.8),
        transforms.RandomGrayscale(p=0.2),
        transforms.RandomApply([OfficialBlur()], p=0.5),
        transforms.RandomHorizontalFlip(),
    ]


@TRANSFORMS.register_module()
class OfficialViews(BaseTransform):
    """The same as a transform of our pipelines; takes a PIL image.

    Args:
        size: Side of the views.
    """

    def __init__(self, size: int) -> None:
        self.views = transforms.Compose(official_views(size))

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Change ``img``."""
        results['img'] = self.views(results['img'])
        return results
