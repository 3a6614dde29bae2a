from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from mmmoco.registry import TRANSFORMS


@TRANSFORMS.register_module()
class MultiHot(BaseTransform):
    """Turn the class indices of a multi-label image into one vector.

    1 where a class is present, 0 where it is not, −1 where it does not count
    (``gt_label_difficult`` of mmpretrain's VOC, unless also present).

    Args:
        num_classes: Length of the vector.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Replace ``gt_label``.

        Raises:
            ValueError: If an index is not below ``num_classes``.
        """
        present = [int(i) for i in np.atleast_1d(results['gt_label'])]
        vector = np.zeros(self.num_classes, np.int64)
        for value, indices in (
            (-1, results.get('gt_label_difficult') or ()),
            (1, present),
        ):
            for index in indices:
                if not 0 <= index < self.num_classes:
                    raise ValueError(
                        f'{results.get("img_path")!r} has class {index}, but '
                        f'MultiHot has num_classes={self.num_classes}.'
                    )
                vector[index] = value
        results['gt_label'] = vector
        return results
