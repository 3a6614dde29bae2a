# The views of MoCo v1: after the crop, the same for both views. The colours
# are always jittered, after the greyscale, and hue is as strong as the rest.
view_q = [
    dict(type='mmpretrain.torchvision/RandomGrayscale', p=0.2),
    dict(
        type='mmpretrain.torchvision/ColorJitter',
        brightness=0.4,
        contrast=0.4,
        saturation=0.4,
        hue=0.4,
    ),
    dict(type='mmpretrain.torchvision/RandomHorizontalFlip'),
]
view_k = view_q
