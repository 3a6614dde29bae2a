# Scenes of handwritten digits, drawn when the run starts: no file is needed.
# No digit of the training split stands in the validation split.
train_dataloader = dict(
    batch_size=128,
    num_workers=0,
    drop_last=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='AddressedSampler', shuffle=True),
    dataset=dict(type='DigitScenes', split='train', channels=1),
)
knn = dict(
    k=20,
    temperature=0.07,
    features='backbone',
    bank=dict(
        batch_size=512,
        num_workers=0,
        collate_fn=dict(type='default_collate'),
        sampler=dict(type='AddressedSampler', shuffle=False),
        dataset=dict(type='DigitScenes', split='train', channels=1),
    ),
    query=dict(
        batch_size=512,
        num_workers=0,
        collate_fn=dict(type='default_collate'),
        sampler=dict(type='AddressedSampler', shuffle=False),
        dataset=dict(type='DigitScenes', split='val', channels=1),
    ),
)
