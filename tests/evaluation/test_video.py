"""Labels that travel, and J and F on masks made by hand."""

import math

import numpy as np
import pytest
import torch

from mmmoco.evaluation.video import (
    contour,
    contour_accuracy,
    propagate,
    region_similarity,
    score_video,
    to_index,
)


def square(top, left, side=10, shape=(60, 80)):
    mask = np.zeros(shape, bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_region_similarity():
    a, b = square(10, 10), square(10, 15)
    assert region_similarity(a, a) == 1.0
    assert region_similarity(a, b) == pytest.approx(50 / 150)
    empty = a & False
    assert region_similarity(a, empty) == 0.0
    assert region_similarity(empty, empty) == 1.0


def test_contour_of_a_square():
    edge = contour(square(10, 20))
    # Ten pixels a side, once inside and once just before it.
    assert edge[9, 19:30].all() and edge[19, 19:30].all()
    assert edge[9:20, 19].all() and edge[9:20, 29].all()
    assert edge.sum() == 4 * 10


def test_contour_accuracy():
    """The tolerance is 0.008 of 100 pixels, one pixel rounded up."""
    a = square(10, 20)
    assert math.ceil(0.008 * math.hypot(60, 80)) == 1
    assert contour_accuracy(a, a) == 1.0
    assert contour_accuracy(square(11, 20), a) == 1.0
    # Shifted by two rows: the 2 × 11 pixels of the horizontal edges miss,
    # but for the corners that lie on the vertical ones.
    shifted = contour_accuracy(square(12, 20), a)
    own, other = contour(square(12, 20)), contour(a)
    ys, xs = np.nonzero(own)
    near = [
        any(
            0 <= y + dy < 60 and 0 <= x + dx < 80 and other[y + dy, x + dx]
            for dy, dx in ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0))
        )
        for y, x in zip(ys, xs, strict=True)
    ]
    assert 0.3 < np.mean(near) < 0.9
    assert shifted == pytest.approx(np.mean(near))  # equal both ways
    assert contour_accuracy(square(40, 60), a) == 0.0
    assert contour_accuracy(a & False, a) == 0.0
    assert contour_accuracy(a & False, a & False) == 1.0


def test_first_and_last_frame_do_not_count():
    truth = np.stack([square(10, 10 + t) for t in range(4)]).astype(np.uint8)
    truth[:, 50:55, 60:70] = 2
    found = truth.copy()
    found[0], found[-1] = 0, 0
    scores = score_video(found, truth)
    assert scores.j == [1.0, 1.0] and scores.f == [1.0, 1.0]
    found[1] = 0
    scores = score_video(found, truth)
    assert scores.j == [0.5, 0.5] and scores.f == [0.5, 0.5]
    with pytest.raises(ValueError, match='three frames'):
        score_video(found[:2], truth[:2])


def moving_features(steps, shift=1, size=12):
    """An object with features of its own moves over a textured canvas."""
    draws = torch.Generator().manual_seed(0)
    canvas = torch.randn(16, size, size, generator=draws)
    thing = torch.randn(16, 3, 3, generator=draws)
    frames, masks = [], []
    for t in range(steps):
        frame, mask = canvas.clone(), torch.zeros(size, size)
        x = 1 + shift * t
        frame[:, 4:7, x : x + 3] = thing
        mask[4:7, x : x + 3] = 1
        frames.append(frame)
        masks.append(mask)
    return frames, masks


def test_labels_follow_the_object():
    frames, masks = moving_features(6)
    first = torch.stack([1 - masks[0], masks[0]])
    found = list(propagate(frames, first, topk=1))
    assert len(found) == 5
    for labels, mask in zip(found, masks[1:], strict=True):
        follows(labels, mask, masks[0])
        torch.testing.assert_close(labels.sum(0), torch.ones_like(mask))


def follows(labels, mask, first):
    """What the object hid in the first frame is unknown, if now bare."""
    known = (first == 0) | (mask == 1)
    assert torch.equal(labels.argmax(0)[known], mask.long()[known])
    assert mask.sum() == 9


def test_the_window_bounds_how_far_labels_travel():
    frames, masks = moving_features(2, shift=5)
    first = torch.stack([1 - masks[0], masks[0]])
    (near,) = propagate(frames, first, topk=1, radius=2)
    assert not near[1, :, 6:].any()
    (far,) = propagate(frames, first, topk=1, radius=5)
    follows(far, masks[1], masks[0])


def test_the_weights_are_a_softmax_over_the_best():
    frames = [torch.randn(4, 1, 5), torch.randn(4, 1, 5)]
    first = torch.rand(2, 1, 5)
    (labels,) = propagate(frames, first, topk=3, temperature=0.5, radius=9)
    a, b = (torch.nn.functional.normalize(f.flatten(1), dim=0) for f in frames)
    for p in range(5):
        cosine = a.T @ b[:, p]
        best = cosine.topk(3).indices
        weight = (cosine[best] / 0.5).exp()
        expected = (first[:, 0, best] * weight).sum(1) / weight.sum()
        torch.testing.assert_close(labels[:, 0, p], expected)


def test_the_context_forgets_all_but_the_first_and_the_last_frames():
    frames, masks = moving_features(3)
    marked = torch.stack([1 - masks[0], masks[0]])
    # The second frame shows nothing known; the third is the first again.
    frames = [frames[0], torch.randn(16, 12, 12), frames[0]]
    *_, last = propagate(frames, marked, context=1, topk=1)
    follows(last, masks[0], masks[0])


def test_soft_labels_become_an_index_image():
    labels = torch.zeros(3, 2, 2)
    labels[0, :, 0], labels[1, 0, 1], labels[2, 1, 1] = 1.0, 0.6, 0.3
    index = to_index(labels, (20, 20))
    assert index.dtype == np.uint8 and index.shape == (20, 20)
    assert (index[2, 2], index[2, 18], index[18, 18]) == (0, 1, 2)
    assert not to_index(torch.zeros(2, 2, 2), (4, 4)).any()
