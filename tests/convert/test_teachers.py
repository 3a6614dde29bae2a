"""DINOv2 with registers and DINOv3: from any library, the same features."""

import itertools
import re
from functools import partial

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmmoco.apis.config.files import load_config
from mmmoco.convert.anatomy import below, describe_backbone
from mmmoco.convert.importing import import_weights
from mmmoco.convert.preprocessing import preprocessing_of
from mmmoco.engine.checkpoint_io import CheckpointError
from mmmoco.engine.without_memory import check_complete
from mmmoco.registry import MODELS

from . import plain_teachers, teacher_layouts
from .teacher_layouts import (
    LIBRARIES,
    SIZES,
    SMALL,
    SMALL_VIT,
    file_of,
    network,
    plain_vit_of_hf,
)

NETWORKS = (
    'vit_small_patch14_reg4_dinov2',
    'vit_giant_patch14_reg4_dinov2',
    'vit_small_patch16_dinov3_qkvb',
    'vit_small_patch16_dinov3',
    'vit_small_plus_patch16_dinov3_qkvb',
    'convnext_tiny',
)


def small(name, **options):
    return network(name, **SMALL[SIZES.get(name, 'dinov3')], **options)


def read(source, layout=None, num_heads=2):
    imported = import_weights(source, layout)
    backbone = below(imported.weights, 'backbone.')
    heads = num_heads or imported.told.num_heads
    return imported, backbone, describe_backbone(backbone, heads)


def built(config, backbone, **options):
    with DefaultScope.overwrite_default_scope('mmmoco'):
        net = MODELS.build(Config({**config, **options}).to_dict())
    net.load_state_dict(backbone, strict=True)
    net.eval()  # mmpretrain's ConvNeXt returns nothing.
    return net


@pytest.mark.parametrize('library', LIBRARIES)
@pytest.mark.parametrize('name', NETWORKS)
@torch.no_grad()
def test_features_are_those_of_timm_and_of_the_papers(name, library):
    theirs = small(name)
    state = theirs.state_dict()
    source = file_of(state, library)
    kept = dict(source)
    imported, backbone, config = read(source)
    assert source.keys() == kept.keys()  # The caller's stays as it is.
    # Each tensor of timm's was written, and came back; where timm has left
    # the biases out, they are zero.
    biases = [k for k in backbone if '_bias' in k and k[11:] not in state]
    assert len(backbone) == len(state) + len(biases)
    assert len(biases) == 4 * (name == 'vit_small_patch16_dinov3')
    assert not any(backbone[k].any() for k in biases)
    x = torch.randn(2, 3, 112, 224)
    raw = theirs.forward_features(x)
    original = file_of(state, 'original')
    if 'convnext' in name:
        cls = theirs.forward_head(raw, pre_logits=True)
        maps = built(config, backbone, gap_before_final_norm=False)(x)[-1]
        patches = maps.flatten(2).transpose(1, 2)
        plain = plain_teachers.convnext(original, x)
        timms = cls, theirs.head.norm(raw).flatten(2).transpose(1, 2)
    else:
        tokens = built(config, backbone, out_type='raw')(x)[-1]
        cls, patches = tokens[:, 0], tokens[:, 1:]
        kind = SIZES.get(name, 'dinov3')
        plain = getattr(plain_teachers, kind)(original, x, 2)
        timms = raw[:, 0], raw[:, 5:]
    own = built(config, backbone)(x)[-1], patches
    for ours, their, written in zip(own, timms, plain, strict=True):
        assert ours.std() > 0.1
        torch.testing.assert_close(ours, their, atol=1e-4, rtol=0)
        torch.testing.assert_close(ours, written, atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'library'), [*zip(SIZES, itertools.cycle(LIBRARIES))]
)
def test_published_sizes_are_read_off_their_shapes(name, library):
    state = teacher_layouts.real_size(name)
    source = file_of(state, library)
    imported, backbone, config = read(source, num_heads=None)
    check_complete(backbone, config)
    form = imported.format.name
    if 'convnext' in name:
        wanted = 'convnext' if library == 'timm' else 'dinov3-convnext'
    else:
        wanted = 'dinov3' if 'dinov3' in name else 'dinov2'
        wanted += '-registers' * ('reg4' in name)
    assert form == wanted
    licensed = 'dinov3' in form
    assert imported.format.license == ('dinov3-license' if licensed else None)
    seen = preprocessing_of(imported.format, imported.weights)
    assert (seen is None) == (form == 'convnext')
    assert bool(imported.notes) == (
        form == 'convnext'
        or '7b' in name
        or ('vit_large' in name and 'dinov3' in name and library != 'original')
    )
    dropped = [k for k in source if any(d in k for d in _DROPPED)]
    assert sorted(imported.left) == sorted(dropped)


_DROPPED = ('mask_token', 'bias_mask', 'periods', 'local_cls_norm', 'norms.3')


@pytest.mark.parametrize(
    ('name', 'write', 'layout'),
    [
        ('vit_small_patch16_224', plain_vit_of_hf, 'hf-vit'),
        ('vit_small_patch14_dinov2', partial(file_of, library='hf'), 'dinov2'),
        ('vit_giant_patch14_dinov2', partial(file_of, library='hf'), 'dinov2'),
        (
            'vit_giant_patch14_dinov2',
            partial(file_of, library='original'),
            'dinov2',
        ),
    ],
)
def test_other_names_of_the_same_network(name, write, layout):
    state = network(name, **SMALL_VIT, img_size=56 if '14' in name else 64)
    state = state.state_dict()
    wanted = import_weights(state).weights
    found = import_weights(write(state))
    assert found.format.name == layout
    assert found.weights.keys() == wanted.keys()
    for key, value in found.weights.items():
        assert torch.equal(value, wanted[key]), key


def original(name, **changes):
    source = file_of(small(name).state_dict(), 'original')
    return {**source, **changes}


@pytest.mark.parametrize(
    ('name', 'changes', 'message'),
    [
        (
            'vit_small_patch16_dinov3_qkvb',
            {'blocks.1.attn.qkv.bias_mask': torch.ones(96)},
            r'blocks\.1\.attn\.qkv\.bias: the part of the keys',
        ),
        (
            'vit_small_patch16_dinov3_qkvb',
            {'blocks.1.attn.qkv.bias_mask': torch.full((96,), float('nan'))},
            r'blocks\.1\.attn\.qkv\.bias: the part of the keys',
        ),
        (
            'vit_small_patch16_dinov3_qkvb',
            {'rope_embed.periods': 10000 ** (torch.arange(4) / 4)},
            r'rope_embed\.periods are not those of DINOv3',
        ),
        (
            'vit_small_patch14_reg4_dinov2',
            {'blocks.0.attn.rel_pos': torch.zeros(3)},
            r'1 keys do not belong.*rel_pos',
        ),
        (
            'convnext_tiny',
            {'norms.3.weight': torch.zeros(32)},
            r'norms\.3\.weight should be equal to norm\.weight',
        ),
    ],
)
def test_what_would_compute_something_else_is_refused(name, changes, message):
    with pytest.raises(ValueError, match=message) as error:
        import_weights(original(name, **changes))
    assert '\n' not in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'library'),
    [
        ('vit_small_patch14_reg4_dinov2', 'original'),
        ('vit_small_patch14_reg4_dinov2', 'hf'),
        ('vit_giant_patch14_dinov2', 'timm'),
        ('vit_small_plus_patch16_dinov3_qkvb', 'original'),
        ('vit_small_patch16_dinov3_qkvb', 'hf'),
        ('convnext_tiny', 'original'),
    ],
)
def test_damaged_tensors_end_in_one_line(name, library):
    whole = file_of(small(name).state_dict(), library)
    # One block of each kind will do.
    some = [
        k for k in whole if not re.match(r'.*(blocks|layer)\.1|.*s\.[23]\.', k)
    ]
    for i, key in enumerate(some):
        draws = torch.Generator().manual_seed(i)
        dims = int(torch.randint(0, 5, (), generator=draws))
        sides = torch.randint(0, 4, (dims,), generator=draws).tolist()
        damages = {**whole, key: torch.zeros(sides)}, {**whole}
        del damages[1][key]
        for source in damages:
            try:
                _, backbone, config = read(source)
                check_complete(backbone, config)
            except (ValueError, CheckpointError) as error:
                assert '\n' not in str(error), key
            else:
                # What is left behind may be anything, and without registers
                # or periods a file is whole, too.
                unneeded = ('mask_token', 'norms.3')
                if key not in source:
                    unneeded += ('register_tokens', 'rope_embed.periods')
                assert any(word in key for word in unneeded), key


def test_half_a_triple_is_not_joined():
    source = file_of(small('vit_small_patch14_reg4_dinov2').state_dict(), 'hf')
    del source['encoder.layer.1.attention.attention.key.weight']
    with pytest.raises(ValueError, match=r'2 keys.*attention\.query\.weight'):
        import_weights(source)


def test_heads_are_told_by_periods():
    imported = import_weights(original('vit_small_patch16_dinov3_qkvb'))
    assert imported.told.num_heads == 2
    with pytest.raises(ValueError, match='--num-heads'):
        read(
            file_of(small('vit_small_patch16_dinov3').state_dict(), 'timm'),
            num_heads=None,
        )


@pytest.mark.parametrize('library', LIBRARIES)
def test_satellite_images_had_other_means(library):
    state = teacher_layouts.real_size('vit_large_patch16_dinov3')
    source = file_of(state, library)
    if library == 'original':  # Of these only that one has it.
        source['local_cls_norm.weight'] = torch.ones(1024)
        source['local_cls_norm.bias'] = torch.zeros(1024)
    found = import_weights(source)
    if library != 'original':
        assert '--from dinov3-sat' in found.notes[0] and not found.told.seen
        found = import_weights(source, 'dinov3-sat')
    seen = preprocessing_of(found.format, found.weights, None, found.told.seen)
    assert not found.notes
    levels = [*seen['mean'], *seen['std']]
    wanted = (0.43, 0.411, 0.296, 0.213, 0.156, 0.143)
    assert levels == pytest.approx([255 * x for x in wanted])
    assert found.format.license == 'dinov3-license'


def test_timms_convnext_of_dinov3_is_chosen_by_name():
    source = small('convnext_tiny').state_dict()
    assert '--from dinov3-convnext' in import_weights(source).notes[0]
    with_head = {**source, 'head.fc.weight': torch.zeros(10, 32)}
    found = import_weights(with_head)
    assert not found.notes and [*found.left] == ['head.fc.weight']
    chosen = import_weights(source, 'dinov3-convnext')
    assert chosen.format.imagenet and chosen.format.license
    # Its 1×1 convolutions compute what linear layers do.
    for name, value in source.items():
        if 'mlp' in name and value.dim() == 2:
            source[name] = value[..., None, None]
    again = import_weights(source, 'dinov3-convnext')
    assert again.weights.keys() == chosen.weights.keys()
    for name, value in again.weights.items():
        assert torch.equal(value, chosen.weights[name])


@pytest.mark.slow
@pytest.mark.parametrize(
    ('config', 'name'),
    [
        ('distill_r50_8xb128_dinov2', 'vit_base_patch14_dinov2'),
        ('distill_vit-s_8xb128_dinov3', 'vit_base_patch16_dinov3_qkvb'),
        ('distill_vit-s_8xb128_dinov3', 'vit_base_patch16_dinov3'),
    ],
)
def test_teachers_of_the_configs_take_every_tensor(config, name):
    teacher = load_config(config).model.teacher.backbone.to_dict()
    teacher.pop('init_cfg')
    state = teacher_layouts.real_size(name)
    for library in LIBRARIES:
        weights = import_weights(file_of(state, library)).weights
        check_complete(below(weights, 'backbone.'), teacher)
