# The views of MoCo v3, after the crop: the first is always blurred, the
# second rarely, and sometimes solarised.
crop = dict(type='FastRandomResizedCrop', size=224, scale=(0.2, 1.0))
colours = [
    dict(
        type='FastColorJitter',
        brightness=0.4,
        contrast=0.4,
        saturation=0.2,
        hue=0.1,
        prob=0.8,
    ),
    dict(type='FastGrayscale', prob=0.2),
]
flip = dict(type='FastFlip', horizontal=0.5)
view_1 = [
    *colours,
    dict(type='FastGaussianBlur', sigma=(0.1, 2.0), prob=1.0),
    flip,
]
view_2 = [
    *colours,
    dict(type='FastGaussianBlur', sigma=(0.1, 2.0), prob=0.1),
    dict(type='FastSolarize', threshold=128, prob=0.2),
    flip,
]
views = dict(view_1=[crop, *view_1], view_2=[crop, *view_2])
