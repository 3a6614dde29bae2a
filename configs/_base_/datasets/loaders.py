# How images are loaded for a training, and for an evaluation; a data set adds
# its images and the size of a batch.
train_dataloader = dict(
    num_workers='auto',  # the cores of the process
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='AddressedSampler', shuffle=True),
)
loader = dict(
    num_workers='auto',
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='AddressedSampler', shuffle=False),
)
