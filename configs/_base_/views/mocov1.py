# The views of MoCo v1: after the crop, the same for both views. The colours
# are always jittered, after the greyscale, and hue is as strong as the rest.
crop = dict(type='FastRandomResizedCrop', size=224, scale=(0.2, 1.0))
view_q = [
    dict(type='FastGrayscale', prob=0.2),
    dict(
        type='FastColorJitter',
        brightness=0.4,
        contrast=0.4,
        saturation=0.4,
        hue=0.4,
    ),
    dict(type='FastFlip', horizontal=0.5),
]
view_k = view_q
views = dict(view_q=[crop, *view_q], view_k=[crop, *view_k])
