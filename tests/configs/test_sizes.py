"""Every config builds what its paper counted, the key encoder included."""

import pytest

from mmmoco.apis import load_config
from mmmoco.engine.without_memory import build_without_memory
from mmmoco.two_phase import TwoPhaseModel

from .names import CORE, OWN, RUNTIME_HOOKS

R50, VIT_S, VIT_B, VIT_L = 23_508_032, 21_665_664, 85_798_656, 303_301_632


def conv_vit(width):
    """Eleven blocks, stem, positions, class token, final norm."""
    attention = 4 * width * width + 4 * width
    mlp = 8 * width * width + 5 * width
    block = attention + mlp + 4 * width
    sides = [3, *(width * 2**i // 8 for i in range(4))]
    convs = zip(sides, sides[1:], strict=False)
    stem = sum(9 * a * b + 2 * b for a, b in convs) + width * width + width
    return 11 * block + stem + (197 + 1 + 2) * width


def linear(width):
    """Twice the backbone with one linear layer."""
    return 2 * (width + 2048 * 128 + 128)


def v3(backbone, width, layers):
    hidden = 4096 * 4096 + 2 * 4096
    projector = width * 4096 + 2 * 4096 + 4096 * 256 + (layers - 2) * hidden
    predictor = 256 * 4096 + 2 * 4096 + 4096 * 256
    return 2 * (backbone + projector) + predictor


#: Published totals.
PARAMETERS = {
    'mocov2_r50_8xb32': 55_933_312,
    'mocov2_r50_8xb32_800e': 55_933_312,
    'mocov3_r50_16xb256_100e': 68_012_160,
    'mocov3_r50_16xb256_300e': 68_012_160,
    'mocov3_r50_16xb256_1000e': 68_012_160,
    'mocov3_r50_2xb64_accum4_low-vram': 68_012_160,
    'mocov3_vit-s_32xb128_300e': 84_266_752,
    'mocov3_vit-s_8xb128_300e': 84_266_752,
    'mocov3_vit-b_64xb64_300e': 215_678_464,
    'mocov3_vit-l_64xb64_300e': 652_781_568,
    # Counted by hand from the published shapes.
    **dict.fromkeys(
        ('densecl_r50_8xb32_200e', 'densecl_r50_8xb32_coco_800e'),
        2 * (R50 + 2 * (2048 * 2048 + 2048 + 2048 * 128 + 128)),
    ),
    'mocov1_r50_8xb32': linear(R50),
    'mocov1_r50_64xb16_1250k': linear(R50),
    'mocov1_r50_8xb32_memory-bank': linear(R50) // 2,
    'mocov1_r50_8xb32_end-to-end': linear(R50) // 2,
    'mocov3_vit-conv-s_32xb128_300e': v3(conv_vit(384), 384, 3),
    'mocov3_vit-conv-b_64xb64_300e': v3(conv_vit(768), 768, 3),
    # At 96 pixels there are 6×6 positions in place of 14×14.
    'mocov3_vit-s_1xb256_cifar10-96px': 84_266_752 - 2 * (196 - 36) * 384,
    # Ten more channels in a projection of 16×16 pixels, in both encoders.
    'mocov3_vit-s_4xb64_sentinel2-13band': 84_266_752 + 20 * 256 * 384,
    'mocov2_r50_8xb32_mochi': 55_933_312,
    'mocov2_r50_8xb32_satellite': 55_933_312,
    # Thirteen bands in place of three, in the first kernels of 7×7 and 16×16.
    'mocov2_r50_1xb64_bands': 55_933_312 + 20 * 49 * 64,
    'mocov3_vit-s_1xb64_bands': 84_266_752 + 20 * 256 * 384,
    # ResNet-18 without its last layer, 3×3 kernels in the first.
    'mocov2_r18_1xb512_cifar10': 2 * (11_168_832 + 512 * 128 + 128),
}
#: Published size of one encoder, in millions.
MILLIONS = {
    'mocov1_r50_8xb32': 24,
    'mocov1_rx50_8xb32': 46,
    'mocov1_r50w2x_8xb32': 94,
    'mocov1_r50w4x_8xb32': 375,
    'mocov2_r50_8xb32': 24,
    'mocov3_vit-s_32xb128_300e': 22,
    'mocov3_vit-b_64xb64_300e': 86,
    # 304 in the paper; 303.3 with the positions counted.
    'mocov3_vit-l_64xb64_300e': 303,
}


def test_the_hand_count_agrees_with_the_published_totals():
    assert v3(R50, 2048, 2) == 68_012_160
    assert v3(VIT_S, 384, 3) == 84_266_752
    assert v3(VIT_B, 768, 3) == 215_678_464
    assert v3(VIT_L, 1024, 3) == 652_781_568


@pytest.mark.parametrize('name', CORE)
def test_config_builds_on_the_meta_device(name):
    cfg = load_config(name)
    model = build_without_memory(cfg)
    total = sum(p.numel() for p in model.parameters())
    if name in PARAMETERS:
        assert total == PARAMETERS[name]
    if name in MILLIONS:
        encoder = sum(p.numel() for p in model.backbone.parameters())
        assert round(encoder / 1e6) == MILLIONS[name]
    if name in OWN:
        assert isinstance(model, TwoPhaseModel)
        hooks = {hook.type for hook in cfg.custom_hooks}
        assert model.needs <= RUNTIME_HOOKS <= hooks
        assert cfg.optim_wrapper.type == 'ContrastOptimWrapper'
