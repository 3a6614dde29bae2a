"""Names of projections and predictors below their prefix."""

from .key_table import KeyTable

#: MoCo v1: one linear layer.
LINEAR = KeyTable(('weight', 'fc.weight'), ('bias', 'fc.bias'))

#: MoCo v2: linear, ReLU, linear.
TWO_LINEAR = KeyTable(('0.{p}', 'mlp.0.{p}'), ('2.{p}', 'mlp.2.{p}'))

#: MoCo v3: linear and BatchNorm in turns, a ReLU between the pairs.
WITH_BATCH_NORM = KeyTable(
    ('0.{p}', 'fc0.{p}'),
    ('1.{p}', 'bn0.{p}'),
    ('3.{p}', 'fc1.{p}'),
    ('4.{p}', 'bn1.{p}'),
    ('6.{p}', 'fc2.{p}'),
    ('7.{p}', 'bn2.{p}'),
)
