# A folder of GeoTIFFs or arrays with any number of bands, at any depth. What
# is known of the bands stands in `multiband` alone: loading, network and
# normalisation follow it.
_base_ = 'loaders.py'
multiband = dict(
    # A name of mmmoco/datasets/band_presets.py; or, instead of it,
    preset='sentinel2-l1c',
    # mean and std of raw values, by band (mmmoco stats prints them), or the
    # raw values that become 0 and 255, as a rule mean ± 2 std.
    mean=None,
    std=None,
    low=None,
    high=None,
    nodata=None,  # the value that says that there is none, if no file tells
    bands=None,  # numbers of those that are taken, counted from 0
    order=None,  # 'chw' or 'hwc', where a file does not tell
)
load = [dict(type='LoadBands'), dict(type='ScaleBands', low=0, high=255)]
train_dataloader = dict(
    batch_size=64,
    dataset=dict(
        type='ImageFolderDataset',
        data_root='data/bands',
        extensions=('.tif', '.tiff', '.npy'),
        include=(),  # patterns, such as ('*_image.tif',)
        exclude=(),  # ('*_mask.tif', 'masks')
    ),
)
