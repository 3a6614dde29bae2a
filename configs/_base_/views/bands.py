# The views of SSL4EO-S12's MoCo v3, after the crop: brightness and contrast
# instead of colours; the first is always blurred, the second rarely.
colours = [
    dict(
        type='BandBrightnessContrast', brightness=0.4, contrast=0.4, prob=0.8
    ),
    dict(type='BandGray', prob=0.2),
]
flip = dict(type='FastFlip', horizontal=0.5)
view_1 = [*colours, dict(type='BandBlur', sigma=(0.1, 2.0), prob=1.0), flip]
view_2 = [*colours, dict(type='BandBlur', sigma=(0.1, 2.0), prob=0.1), flip]
