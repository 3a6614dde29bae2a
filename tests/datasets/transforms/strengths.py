"""How strongly a view acts: effective parameters, measured on its output.

Two filters can differ by little in grey levels and yet one of them hardly
act. Here a parameter is read back from what an operation did: the slope of a
brightness, the angle of a hue, the width of an edge.
"""

import numpy as np

GREY = np.array([0.299, 0.587, 0.114])


def patches(low, high, chroma, side=64, seed=0):
    """Smooth coloured patches, uint8, their values between two levels.

    Args:
        low: Lowest grey level.
        high: Highest.
        chroma: Largest distance of a channel from the grey level.
        side: In pixels.
        seed: Of the patches.
    """
    draws = np.random.default_rng(seed)
    grey = draws.uniform(low + chroma, high - chroma, (side, side, 1))
    colours = grey + draws.uniform(-chroma, chroma, (side, side, 3))
    return np.clip(np.rint(colours), 0, 255).astype(np.uint8)


def edge(side=48):
    """Black, then white."""
    image = np.zeros((side, side, 3), np.uint8)
    image[:, side // 2 :] = 255
    return image


def point(side=49):
    """One white pixel."""
    image = np.zeros((side, side, 3), np.uint8)
    image[side // 2, side // 2] = 255
    return image


def gain(before, after):
    """Slope of a line through the origin."""
    a, b = before.astype(float), np.asarray(after, float)
    return float((a * b).sum() / (a * a).sum())


def spread(before, after):
    """Slope of the deviations from the mean."""
    a, b = before.astype(float), np.asarray(after, float)
    return gain(a - a.mean(), b - b.mean())


def chroma(before, after):
    """Slope of the deviations from each pixel's grey."""
    a, b = before.astype(float), np.asarray(after, float)
    return gain(a - (a @ GREY)[..., None], b - (b @ GREY)[..., None])


def colour(before, after):
    """Ratio of the deviations from grey, whatever their direction."""

    def size(image):
        x = np.asarray(image, float)
        return np.sqrt(((x - (x @ GREY)[..., None]) ** 2).sum())

    return float(size(after) / size(before))


def turn(before, after):
    """Mean turn of the hue, as a fraction of the circle.

    In the plane orthogonal to grey, weighted by the chroma.
    """

    def plane(image):
        r, g, b = np.moveaxis(np.asarray(image, float), -1, 0)
        return r - (g + b) / 2 + 1j * np.sqrt(3) / 2 * (g - b)

    a, b = plane(before), plane(after)
    return float(np.angle((b * a.conj()).sum()) / (2 * np.pi))


def edge_width(_, after):
    """Standard deviation of the derivative across an edge, in pixels."""
    steps = np.diff(np.asarray(after, float)[len(after) // 2, :, 0])
    return deviation(steps)


def point_width(_, after):
    """Standard deviation of a point along one axis, in pixels."""
    return deviation(np.asarray(after, float)[..., 0].sum(0))


def deviation(weights):
    """Standard deviation of a place that is weighted so."""
    place = np.arange(len(weights))
    weights = weights / weights.sum()
    mean = (weights * place).sum()
    return float(np.sqrt(max(0.0, (weights * (place - mean) ** 2).sum())))


def detail(before, after):
    """Share of the energy of the gradient that is left."""

    def energy(image):
        return np.mean(np.diff(np.asarray(image, float), axis=1) ** 2)

    return float(energy(after) / energy(before))


def inverted(before, after):
    """Share of the pixels that changed."""
    return float(np.mean(np.asarray(after, float) != before))
