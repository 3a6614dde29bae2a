# The views of MoCo v2 ("aug+"): after the crop, the same for both views.
view_q = [
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
    dict(type='FastFlip', horizontal=0.5),
]
view_k = view_q
