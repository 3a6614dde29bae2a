# One view, which student and teacher both see.
view = [
    dict(type='FastRandomResizedCrop', size=224, scale=(0.2, 1.0)),
    dict(type='FastFlip', horizontal=0.5),
]
