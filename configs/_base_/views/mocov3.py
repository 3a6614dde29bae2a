# The views of MoCo v3, after the crop: the first is always blurred, the
# second rarely, and sometimes solarised.
colours = [
    dict(
        type='RandomApply',
        transforms=[
            dict(
                type='mmpretrain.torchvision/ColorJitter',
                brightness=0.4,
                contrast=0.4,
                saturation=0.2,
                hue=0.1,
            )
        ],
        prob=0.8,
    ),
    dict(type='mmpretrain.torchvision/RandomGrayscale', p=0.2),
]
flip = dict(type='mmpretrain.torchvision/RandomHorizontalFlip')
solarize = dict(
    type='mmpretrain.torchvision/RandomSolarize', threshold=128, p=0.2
)
view_1 = [
    *colours,
    dict(type='GaussianBlur', sigma=(0.1, 2.0), prob=1.0),
    flip,
]
view_2 = [
    *colours,
    dict(type='GaussianBlur', sigma=(0.1, 2.0), prob=0.1),
    solarize,
    flip,
]
