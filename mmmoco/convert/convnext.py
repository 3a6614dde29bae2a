"""Names of ConvNeXts; ours are those of mmpretrain."""

from .key_table import KeyTable

_BLOCK = 'stages.{s}.{i}.'

#: The authors'; DINOv3 has its last norm twice.
ORIGINAL = KeyTable(
    ('downsample_layers.{s}.{j}.{p}', 'downsample_layers.{s}.{j}.{p}'),
    (_BLOCK + 'dwconv.{p}', _BLOCK + 'depthwise_conv.{p}'),
    (_BLOCK + 'norm.{p}', _BLOCK + 'norm.{p}'),
    (_BLOCK + 'pwconv{j}.{p}', _BLOCK + 'pointwise_conv{j}.{p}'),
    (_BLOCK + 'gamma', _BLOCK + 'gamma'),
    ('norm.{p}', 'norm3.{p}'),
)

TIMM = KeyTable(
    ('stem.{j}.{p}', 'downsample_layers.0.{j}.{p}'),
    ('stages.{s}.downsample.{j}.{p}', 'downsample_layers.{s}.{j}.{p}'),
    ('stages.{s}.blocks.{i}.conv_dw.{p}', _BLOCK + 'depthwise_conv.{p}'),
    ('stages.{s}.blocks.{i}.norm.{p}', _BLOCK + 'norm.{p}'),
    ('stages.{s}.blocks.{i}.mlp.fc{j}.{p}', _BLOCK + 'pointwise_conv{j}.{p}'),
    ('stages.{s}.blocks.{i}.gamma', _BLOCK + 'gamma'),
    ('head.norm.{p}', 'norm3.{p}'),
)

#: transformers' DINOv3ConvNextModel.
HF = KeyTable(
    ('stages.{s}.downsample_layers.{j}.{p}', 'downsample_layers.{s}.{j}.{p}'),
    ('stages.{s}.layers.{i}.layer_norm.{p}', _BLOCK + 'norm.{p}'),
    (
        'stages.{s}.layers.{i}.depthwise_conv.{p}',
        _BLOCK + 'depthwise_conv.{p}',
    ),
    (
        'stages.{s}.layers.{i}.pointwise_conv{j}.{p}',
        _BLOCK + 'pointwise_conv{j}.{p}',
    ),
    ('stages.{s}.layers.{i}.gamma', _BLOCK + 'gamma'),
    ('layer_norm.{p}', 'norm3.{p}'),
)
