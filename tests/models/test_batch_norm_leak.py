"""The guard against the BatchNorm leak on one process."""

import torch
import torch.nn.functional as F

from mmmoco.functional import shuffle_plan
from mmmoco.registry import MODELS


def moco(norm):
    torch.manual_seed(0)
    backbone = dict(
        type='PlainConvNet',
        in_channels=1,
        channels=(4, 8),
        strides=(1, 2),
        out_indices=(1,),
        norm_cfg=norm,
    )
    neck = dict(
        type='mmpretrain.MoCoV2Neck',
        in_channels=8,
        hid_channels=8,
        out_channels=4,
    )
    return MODELS.build(
        dict(
            type='MoCoV2',
            backbone=backbone,
            neck=neck,
            dictionary=dict(type='Queue', size=16, feat_dim=4),
            loss=dict(type='InfoNCE', temperature=0.2),
            m=0.9,
            data_preprocessor=dict(type='ViewAugmentor', mean=(0,), std=(1,)),
        )
    )


SPLIT = dict(type='mmmoco.SplitBN', num_splits=2)


def test_keys_are_encoded_in_another_order_and_come_back_in_theirs():
    model = moco(SPLIT)
    x = torch.randn(8, 1, 6, 6)
    model.set_address(seed=3, step=5, rank=0)
    keys = model.encode_key(x)

    take = shuffle_plan(8, seed=3, step=5, device=x.device).take
    expected = torch.empty(8, 4)
    expected[take] = F.normalize(model.key_encoder(x[take])[0], dim=1)
    torch.testing.assert_close(keys, expected)
    # In their own order they would have had other companions.
    own = F.normalize(model.key_encoder(x)[0], dim=1)
    assert not torch.allclose(keys, own, atol=1e-3)
    model.set_address(seed=3, step=6, rank=0)
    assert not torch.allclose(keys, model.encode_key(x), atol=1e-3)
