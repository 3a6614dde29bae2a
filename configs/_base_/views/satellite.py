# The views of MoCo v2 for images from above, after the crop: no direction is
# up, and the sensor adds its noise last.
crop = dict(type='FastRandomResizedCrop', size=224, scale=(0.2, 1.0))
view_q = [
    dict(type='DiscreteRotation'),
    dict(type='FastFlip', horizontal=0.5, vertical=0.5),
    dict(
        type='FastColorJitter',
        brightness=0.4,
        contrast=0.4,
        saturation=0.4,
        hue=0.1,
        prob=0.8,
    ),
    dict(type='FastGrayscale', prob=0.2),
    dict(type='FastGaussianBlur', sigma=(0.1, 2.0), prob=0.5),
    dict(type='GaussianNoise', std=5.0, prob=0.5),
]
view_k = view_q
views = dict(view_q=[crop, *view_q], view_k=[crop, *view_k])
