# Scenes of handwritten digits, drawn when the run starts: no file is needed.
# No digit of the training split stands in the validation split.
scenes = dict(
    type='DigitScenes',
    channels=1,
    background=(30.0, 150.0),
    contrast=(60.0, 105.0),
    noise=(2.0, 6.0),
)
train_dataloader = dict(
    batch_size=128,
    num_workers=0,
    drop_last=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='AddressedSampler', shuffle=True),
    dataset=dict(split='train', **scenes),
)
loader = dict(
    batch_size=512,
    num_workers=0,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='AddressedSampler', shuffle=False),
)
knn = dict(
    k=20,
    temperature=0.07,
    features='backbone',
    bank=dict(dataset=dict(split='train', **scenes), **loader),
    query=dict(dataset=dict(split='val', **scenes), **loader),
)
