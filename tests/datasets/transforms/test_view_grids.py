"""Every parameter of every view acts as strongly as its reference."""

import pytest

from ...comparison import check
from . import view_grids


@pytest.mark.parametrize('name', view_grids.OPERATIONS)
def test_strength_over_the_whole_range(name):
    check(view_grids.compare_strengths(name))


@pytest.mark.parametrize('name', view_grids.OPERATIONS)
def test_pixels_over_the_whole_range(name):
    check(view_grids.compare_pixels(name))


@pytest.mark.parametrize(
    'compare',
    [
        view_grids.compare_blur_with_its_name,
        view_grids.compare_grey,
        view_grids.compare_crops,
        view_grids.compare_boxes,
        view_grids.compare_factors,
        view_grids.compare_rotations,
        view_grids.compare_noise,
        view_grids.compare_bands,
        view_grids.compare_batch_crop,
    ],
)
def test_grid(compare):
    check(compare())
