"""From a decoded image to the uint8 tensors that are collated."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from PIL import Image
from torch import Tensor

from mmmoco.registry import TRANSFORMS

from .pipeline import build_pipeline

Results = dict[str, Any]


@TRANSFORMS.register_module()
class Views(BaseTransform):
    """Send one decoded image through a pipeline for each view.

    Returns what the collate function stacks: ``inputs`` (C×H×W by name of
    the view), ``ids`` (position in the data set) and ``groups`` (number of
    the group, where the data set says one). The views may differ in number,
    size and operations.

    Args:
        views: Name of the view → configs of its transforms.

    Attributes:
        record: Return the decoded image as ``original`` too, and as
            ``drawn``, for each view, what its operations drew.
    """

    def __init__(self, views: Mapping[str, Sequence[dict[str, Any]]]) -> None:
        self.views = {
            name: build_pipeline(view) for name, view in views.items()
        }
        self.record = False

    def transform(self, results: Results) -> Results:
        """Make every view of ``img``."""
        return self.pack([results['img']] * len(self.views), results)

    def pack(self, images: Sequence[Any], results: Results) -> Results:
        """Make the views from one image each."""
        inputs, drawn = {}, {}
        for image, (name, pipeline) in zip(
            images, self.views.items(), strict=True
        ):
            view: Results = {'img': image}
            if self.record:
                drawn[name] = view['drawn'] = []
            inputs[name] = to_tensor(pipeline(view)['img'])
        packed = {'inputs': inputs, 'ids': results['sample_idx']}
        if 'group' in results:
            packed['groups'] = results['group']
        if self.record:
            packed |= {'original': images[0], 'drawn': drawn}
        return packed


@TRANSFORMS.register_module()
class PackImage(BaseTransform):
    """Return the image itself, with its label and group if known."""

    def transform(self, results: Results) -> Results:
        """Pack ``img``, ``sample_idx``, ``gt_label`` and ``group``."""
        packed = {
            'inputs': {'image': to_tensor(results['img'])},
            'ids': results['sample_idx'],
        }
        for name, packed_as in (('gt_label', 'labels'), ('group', 'groups')):
            if name in results:
                packed[packed_as] = results[name]
        return packed


def to_tensor(image: Image.Image | np.ndarray[Any, Any]) -> Tensor:
    """Return a PIL image or an array H×W[×C] as a tensor C×H×W.

    The type stays, except that uint16 becomes int32: NCCL cannot send it.
    """
    array = np.array(image) if isinstance(image, Image.Image) else image
    if array.ndim == 2:
        array = array[..., None]
    if array.dtype == np.uint16:
        array = array.astype(np.int32)
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()
