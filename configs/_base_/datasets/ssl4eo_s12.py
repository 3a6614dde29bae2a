# SSL4EO-S12, Sentinel-2 L1C: data/ssl4eo-s12/s2c/<place>/<date>/<band>.tif.
# Raw values become bytes by mean ± 2 standard deviations, as published. A leaf
# config adds the views, and the number of bands to the model.
_base_ = 'loaders.py'
bands = (
    'B1', 'B2', 'B3', 'B4', 'B5', 'B6', 'B7', 'B8', 'B8A', 'B9', 'B10',
    'B11', 'B12',
)  # fmt: skip
mean = (
    1605.6, 1390.8, 1314.9, 1363.5, 1549.4, 2091.7, 2371.7, 2299.9, 2560.3,
    830.1, 22.1, 2177.1, 1524.1,
)  # fmt: skip
std = (
    786.8, 850.3, 875.1, 1138.8, 1122.2, 1161.6, 1274.4, 1248.4, 1345.5,
    577.3, 51.2, 1336.1, 1136.5,
)  # fmt: skip
load = [
    dict(type='LoadBands', bands=bands),
    dict(
        type='ScaleBands',
        low=[m - 2 * s for m, s in zip(mean, std, strict=True)],
        high=[m + 2 * s for m, s in zip(mean, std, strict=True)],
    ),
]
# What the bytes are then: for data_preprocessor.
byte_mean, byte_std = [127.5] * len(bands), [63.75] * len(bands)
train_dataloader = dict(
    batch_size=64,
    dataset=dict(
        type='SeasonalPlaces',
        data_root='data/ssl4eo-s12',
        data_prefix='s2c',
        min_acquisitions=1,
    ),
)
