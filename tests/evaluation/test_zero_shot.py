"""Segmentation by a prompt, where the answer is known."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from mmmoco.evaluation.zero_shot import (
    THRESHOLDS,
    central_point,
    random_points,
    score_objects,
    similarity_maps,
    summarise,
)

PATCH = 8


def scene():
    """Three objects whose edges are those of patches, and the rest."""
    ids = torch.zeros(6, 8, dtype=torch.long)
    ids[:2, :3], ids[3:, 4:6], ids[0, 5:] = 1, 2, 3
    oracle = torch.nn.functional.one_hot(ids).permute(2, 0, 1).float()
    pixels = ids.repeat_interleave(PATCH, 0).repeat_interleave(PATCH, 1)
    masks = torch.stack([pixels == i for i in (1, 2, 3)])
    return oracle, masks


def score(tokens, masks, upsample='nearest'):
    points = [central_point(mask.numpy()) for mask in masks]
    maps = similarity_maps(tokens, points, masks.shape[1:], upsample)
    return score_objects(maps, masks)


def test_an_oracle_finds_every_object_exactly():
    oracle, masks = scene()
    scores = score(oracle, masks)
    assert torch.equal(scores.ious[:, :-1], torch.ones(3, 100))
    assert not scores.ious[:, -1].any()  # nothing is above 1
    torch.testing.assert_close(scores.ap, torch.ones(3))


def test_an_oracle_loses_only_edges_by_smooth_upsampling():
    oracle, masks = scene()
    best = score(oracle, masks, 'bilinear').ious.max(1).values
    assert (best > 0.8).all() and (best < 1.0).all()


@pytest.mark.parametrize('seed', range(8))
def test_points_and_maps_of_sizes_that_no_patch_divides(seed):
    """Any grid on any image: a pixel belongs to the patch under its centre.

    With perfect features the map of each pixel is the patch that it lies in,
    no pixel more or less, and its middle is that of the patch.
    """
    draws = np.random.default_rng(seed)
    rows, columns = draws.integers(2, 7, 2)
    height, width = draws.integers(14, 60, 2)
    tokens = torch.eye(rows * columns).view(-1, rows, columns)
    y, x = np.mgrid[:height, :width]
    patch = (2 * y + 1) * rows // (2 * height) * columns
    patch += (2 * x + 1) * columns // (2 * width)
    for point in zip(*draws.integers(0, (height, width), (12, 2)).T):
        place = int(point[0]), int(point[1])
        size = int(height), int(width)
        (one,) = similarity_maps(tokens, [place], size, 'nearest')
        inside = torch.tensor(patch == patch[place])
        assert torch.equal(one == 1, inside), (place, size)
        (smooth,) = similarity_maps(tokens, [place], size)
        peak = np.argwhere(np.isclose(smooth, smooth.max())).mean(0)
        middle = np.argwhere(inside.numpy()).mean(0)
        # At the edge of the image the map stays at its peak outwards.
        if all(
            0 < i < n - 1
            for i, n in zip(
                divmod(int(patch[place]), columns), (rows, columns)
            )
        ):
            assert np.abs(peak - middle).max() <= 1


def test_constant_features_give_the_base_rate():
    _, masks = scene()
    scores = score(torch.ones(5, 6, 8), masks)
    rate = masks.float().mean((1, 2))
    torch.testing.assert_close(
        scores.ious[:, :-1], rate[:, None].expand(-1, 100)
    )
    torch.testing.assert_close(scores.ap, rate)


def test_all_thresholds_at_once_equal_one_after_the_other():
    draws = torch.Generator().manual_seed(0)
    maps = torch.rand(4, 10, 12, generator=draws) * 2 - 1
    maps[0] = (maps[0] * 10).round() / 10  # exactly at thresholds
    masks = torch.rand(4, 10, 12, generator=draws) < 0.3
    scores = score_objects(maps, masks)
    for i, t in enumerate(THRESHOLDS):
        # A tenth of 0.001 either way: rounding in the last digit of float32
        # must not decide the comparison.
        found = maps > t + 1e-6
        union = (found | masks).sum((1, 2))
        expected = (found & masks).sum((1, 2)) / union
        if not torch.allclose(scores.ious[:, i], expected, atol=1e-6):
            # A pixel within the resolution of 0.001.
            near = ((maps - t).abs() < 1.1e-3).sum((1, 2)).max()
            assert near > 0
            gap = (scores.ious[:, i] - expected).abs().max()
            assert gap <= near / union.min()
    for q in range(4):
        expected = average_precision_score(
            masks[q].flatten(), maps[q].flatten()
        )
        assert scores.ap[q] == pytest.approx(expected, abs=0.01)


def test_ties_count_as_in_scikit_learn():
    maps = torch.tensor([[[0.5, 0.5, 0.5, 0.2, 0.2, -1.0]]])
    masks = torch.tensor([[[True, False, True, True, False, False]]])
    expected = average_precision_score(masks.flatten(), maps.flatten())
    assert score_objects(maps, masks).ap[0] == pytest.approx(expected)


def test_a_prompt_is_looked_up_where_it_lies():
    tokens = torch.zeros(48, 6, 8)
    tokens.view(48, 48).fill_diagonal_(1.0)
    points = [(0, 0), (47, 63), (17, 40)]
    maps = similarity_maps(tokens, points, (48, 64), 'nearest')
    for (y, x), one in zip(points, maps, strict=True):
        assert one[y, x] == pytest.approx(1.0)
        assert one.sum() == pytest.approx(PATCH**2)
    assert maps[2, 16:24, 40:48].all()


def test_the_centre_is_far_from_every_edge():
    mask = np.zeros((20, 30), bool)
    mask[2:9, 3:10] = True
    mask[15:, 20:] = True  # cut by the corner of the image
    assert central_point(mask) == (5, 6)
    mask[2:9, 3:10] = False
    assert central_point(mask)[0] == 17


def test_random_points_lie_on_the_mask_and_depend_on_the_address():
    mask = np.zeros((20, 30), bool)
    mask[4:9, 20:25] = True
    points = random_points(mask, 50, 0, 3, 1)
    assert all(mask[p] for p in points) and len(set(points)) > 10
    assert points == random_points(mask, 50, 0, 3, 1)
    assert points != random_points(mask, 50, 0, 3, 2)


def test_an_empty_mask_is_refused():
    maps, masks = torch.zeros(1, 2, 2), torch.zeros(1, 2, 2) > 1
    with pytest.raises(ValueError, match='without a pixel'):
        score_objects(maps, masks)


def test_means_and_thresholds():
    """Classes count equally; the chosen T comes from the other half."""
    thresholds = (0.1, 0.2, 0.3)
    images = [0, 0, 1, 2, 3, 3]
    classes = [7, 7, 7, 7, 7, 9]
    ious = torch.tensor([[0.2, 0.4, 0.1]] * 5 + [[0.8, 0.0, 0.0]])
    ap = torch.tensor([0.5] * 5 + [1.0])
    result = summarise(ious, ap, classes, images, thresholds)
    m = result.metrics
    assert m['miou_t0.1_objects'] == pytest.approx(30.0)
    assert m['miou_t0.1_classes'] == pytest.approx(50.0)
    assert m['t_oracle'] == 0.2
    assert m['miou_oracle_objects'] == pytest.approx(100 * 2.0 / 6)
    assert m['ap_objects'] == pytest.approx(100 * 3.5 / 6)
    assert m['ap_classes'] == pytest.approx(75.0)
    assert result.curve[0.3][0] == pytest.approx(100 * 0.5 / 6)


def test_the_held_out_figure_sees_other_images_than_its_threshold():
    """T fits the half that chose it; the other half wants another."""
    thresholds, images = (0.1, 0.2, 0.3), list(range(10))
    ap = torch.ones(10)
    chosen_by = {}
    for seed in range(6):
        # Which images choose: those that alone vote for 0.3.
        votes = []
        for image in images:
            ious = torch.zeros(10, 3)
            ious[:, 1] = 0.001
            ious[image, 2] = 1.0
            m = summarise(
                ious, ap, [0] * 10, images, thresholds, seed=seed
            ).metrics
            votes.append(m['t_held_out'] == 0.3)
            held = m['miou_held_out_objects']
            # The image that decided has no part in the figure.
            assert held == pytest.approx(0.0 if votes[-1] else 0.1)
        assert sum(votes) == 5
        chosen_by[seed] = tuple(votes)
    assert len(set(chosen_by.values())) > 1
    with pytest.raises(ValueError, match='two'):
        summarise(torch.zeros(1, 3), ap[:1], [0], [0], thresholds)
