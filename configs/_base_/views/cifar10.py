# The views of the small-scale recipe of MoCo's authors: those of MoCo v2
# without blur, with the flip first.
view_q = [
    dict(type='mmpretrain.torchvision/RandomHorizontalFlip'),
    dict(
        type='RandomApply',
        transforms=[
            dict(
                type='mmpretrain.torchvision/ColorJitter',
                brightness=0.4,
                contrast=0.4,
                saturation=0.4,
                hue=0.1,
            )
        ],
        prob=0.8,
    ),
    dict(type='mmpretrain.torchvision/RandomGrayscale', p=0.2),
]
view_k = view_q
