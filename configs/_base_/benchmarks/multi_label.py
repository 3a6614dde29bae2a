# Features of images with several labels: resize 256, centre crop 224.
centre = [
    dict(type='mmmoco.LoadRGB'),
    dict(type='mmmoco.ToPIL'),
    dict(type='mmpretrain.torchvision/Resize', size=256),
    dict(type='mmpretrain.torchvision/CenterCrop', size=224),
]
loader = dict(
    batch_size=64,
    num_workers=4,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
knn = dict(temperature=0.07, features='backbone')
