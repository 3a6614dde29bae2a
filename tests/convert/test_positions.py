import pytest
import torch
import torch.nn.functional as F
from mmpretrain.models.utils import resize_pos_embed

from mmmoco.convert.importing import resize_all_positions
from mmmoco.convert.positions import are_fixed, grid_side, resize_positions
from mmmoco.models.backbones.mocov3_vit import sincos_positions


def with_cls(patches):
    return torch.cat([torch.zeros(1, patches.shape[1]), patches])[None]


def test_like_mmpretrain():
    old = torch.randn(1, 1 + 16, 12)
    new = resize_positions(old, 6)
    theirs = resize_pos_embed(old, (4, 4), (6, 6), mode='bicubic')
    assert torch.allclose(new, theirs, atol=1e-6)
    assert torch.equal(new[:, 0], old[:, 0])
    assert resize_positions(old, 4) is old


def test_a_constant_stays_constant():
    old = torch.ones(1, 1 + 9, 4)
    assert torch.allclose(resize_positions(old, 7), torch.ones(1, 50, 4))


@pytest.mark.parametrize('shape', [(1, 12, 4), (2, 10, 4), (1, 1, 4), (10, 4)])
def test_only_square_grids(shape):
    with pytest.raises(ValueError, match='side²'):
        grid_side(torch.zeros(shape))


def test_fixed_positions_are_known_by_their_values():
    fixed = with_cls(sincos_positions(4, 4, 16))
    assert are_fixed(fixed)
    assert not are_fixed(fixed + 0.01)
    assert not are_fixed(F.pad(fixed[:, 1:], (0, 0, 1, 0), value=0.5))
    assert not are_fixed(torch.randn(1, 17, 16))


def test_all_encoders_follow_but_not_a_frozen_teacher():
    """MMC's key encoder is its teacher; that of a distillation is frozen."""
    places = ('', 'key_encoder.', 'teacher.')
    resized = [f'{place}backbone.pos_embed' for place in places]
    names = [*resized, 'teacher.pos_embed']
    weights = {name: torch.randn(1, 1 + 9, 4) for name in names}
    assert resize_all_positions(weights, 4) == resized
    assert [len(weights[name][0]) for name in names] == [17, 17, 17, 10]
