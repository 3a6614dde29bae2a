# The views of the small-scale recipe of MoCo's authors: those of MoCo v2
# without blur, with the flip first.
view_q = [
    dict(type='FastFlip', horizontal=0.5),
    dict(
        type='FastColorJitter',
        brightness=0.4,
        contrast=0.4,
        saturation=0.4,
        hue=0.1,
        prob=0.8,
    ),
    dict(type='FastGrayscale', prob=0.2),
]
view_k = view_q
