# The views of MoCo v2 ("aug+"): after the crop, the same for both views.
view_q = [
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
    dict(type='GaussianBlur', sigma=(0.1, 2.0), prob=0.5),
    dict(type='mmpretrain.torchvision/RandomHorizontalFlip'),
]
view_k = view_q
