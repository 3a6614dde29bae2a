import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope='session')
def photographs():
    """Photographs, uint8 H×W×3.

    Those that come with scikit-learn, in four parts each; or the images of
    the folder in MMMOCO_PHOTOGRAPHS (run pytest with -rP to see the figures).
    """
    folder = os.environ.get('MMMOCO_PHOTOGRAPHS')
    if folder:
        files = sorted(Path(folder).rglob('*.jpg'))
        return [np.array(Image.open(f).convert('RGB')) for f in files]
    from sklearn.datasets import load_sample_images

    parts = []
    for image in load_sample_images().images:
        h, w = image.shape[0] // 2, image.shape[1] // 2
        for y in (0, h):
            for x in (0, w):
                parts.append(image[y : y + h, x : x + w].copy())
    return parts


@pytest.fixture(scope='session')
def crops(photographs):
    """The photographs at 224 pixels, as the operations see them."""
    return [
        np.array(Image.fromarray(p).resize((224, 224), Image.BILINEAR))
        for p in photographs
    ]
