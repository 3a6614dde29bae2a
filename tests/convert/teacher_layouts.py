"""Files of DINOv2 and DINOv3 as three libraries write them.

timm builds the networks. The names of the other two are written out here as
facts, from their code.
"""

import re

import torch

from ..conftest import optional
from .layouts import settle

VIT2, VIT3, CONVNEXT = 'dinov2', 'dinov3', 'convnext'
SIZES = {
    'vit_small_patch14_reg4_dinov2': VIT2,
    'vit_base_patch14_reg4_dinov2': VIT2,
    'vit_large_patch14_reg4_dinov2': VIT2,
    'vit_giant_patch14_reg4_dinov2': VIT2,
    'vit_base_patch14_dinov2': VIT2,
    'vit_giant_patch14_dinov2': VIT2,
    'vit_small_patch16_dinov3_qkvb': VIT3,
    'vit_small_plus_patch16_dinov3_qkvb': VIT3,
    'vit_base_patch16_dinov3_qkvb': VIT3,
    'vit_large_patch16_dinov3_qkvb': VIT3,
    'vit_large_patch16_dinov3': VIT3,
    'vit_huge_plus_patch16_dinov3_qkvb': VIT3,
    'vit_7b_patch16_dinov3': VIT3,
    'convnext_tiny': CONVNEXT,
    'convnext_small': CONVNEXT,
    'convnext_base': CONVNEXT,
    'convnext_large': CONVNEXT,
}
SMALL_VIT = dict(embed_dim=32, depth=2, num_heads=2)
SMALL = {
    VIT2: SMALL_VIT | dict(img_size=56, dynamic_img_size=True),
    VIT3: SMALL_VIT,
    CONVNEXT: dict(depths=(1, 2, 1, 1), dims=(8, 16, 24, 32)),
}
LIBRARIES = 'original', 'timm', 'hf'


def network(name, **options):
    """Return a network of timm with random weights, in eval mode."""
    timm = optional('timm')
    net = timm.create_model(name, num_classes=0, **options)
    settle(net, 5)
    with torch.no_grad():
        for key, value in net.named_parameters():
            if 'gamma' in key or 'token' in key:  # No block is negligible.
                value.uniform_(0.5, 1.5)
    return net.eval()


def real_size(name):
    """Return tensors of full size; matrices without memory."""
    timm = optional('timm')
    with torch.device('meta'):
        net = timm.create_model(name, num_classes=0)
    return {
        key: value if value.dim() in (2, 4) else torch.zeros(value.shape)
        for key, value in net.state_dict().items()
    }


def file_of(state, library):
    """Return what a library writes for tensors with timm's names."""
    if library == 'timm':
        return dict(state)
    if 'stem.0.weight' in state:
        return _convnext(state, library)
    if 'pos_embed' in state:
        return _dinov2(state, library)
    return _dinov3(state, library)


def _renamed(state, rules):
    found = {}
    for name, value in state.items():
        for pattern, theirs in rules:
            name = re.sub(pattern, theirs, name)
        found[name] = value
    return found


def _split(state, stem, names, out):
    """Take query, key and value apart."""
    for name in [n for n in state if f'{stem}qkv.' in n]:
        head, what = name.split(f'{stem}qkv.')
        parts = state.pop(name).chunk(3)
        for new, part in zip(names, parts, strict=True):
            state[f'{head}{out}{new}.{what}'] = part
    return state


def _dinov2(state, library):
    state = dict(state)
    width = state['cls_token'].shape[-1]
    if 'reg_token' in state:
        # The class token has a position of its own there.
        place = torch.full((1, 1, width), 0.25)
        state['cls_token'] = state['cls_token'] - place
        state['pos_embed'] = torch.cat([place, state['pos_embed']], 1)
    state['mask_token'] = torch.zeros(1, width)
    fc1, fc2 = (f'blocks.0.mlp.fc{i}.weight' for i in (1, 2))
    gated = len(state[fc1]) == 2 * state[fc2].shape[1]
    rules = [('reg_token', 'register_tokens')]
    if gated:
        rules += [(r'mlp\.fc1', 'mlp.w12'), (r'mlp\.fc2', 'mlp.w3')]
    state = _renamed(state, rules)
    if library == 'original':
        return state
    state = _split(
        state, 'attn.', ('query', 'key', 'value'), 'attention.attention.'
    )
    return _renamed(
        state,
        [
            (r'^(cls|mask)_token', r'embeddings.\1_token'),
            ('^register_tokens', 'embeddings.register_tokens'),
            ('^pos_embed', 'embeddings.position_embeddings'),
            (r'^patch_embed\.proj', 'embeddings.patch_embeddings.projection'),
            (r'^blocks\.', 'encoder.layer.'),
            (r'attn\.proj', 'attention.output.dense'),
            (r'ls(\d)\.gamma', r'layer_scale\1.lambda1'),
            (r'mlp\.w12', 'mlp.weights_in'),
            (r'mlp\.w3', 'mlp.weights_out'),
            (r'^norm\.', 'layernorm.'),
        ],
    )


def _dinov3(state, library):
    state = dict(state)
    width = state['cls_token'].shape[-1]
    heads = {32: 2, 1280: 20, 4096: 32}.get(width, width // 64)
    mask = torch.zeros(1, 1, width)
    if library == 'hf':
        state['mask_token'] = mask
        state = _split(
            state, 'attn.', ('q_proj', 'k_proj', 'v_proj'), 'attention.'
        )
        return _renamed(
            state,
            [
                (r'^(cls|mask)_token', r'embeddings.\1_token'),
                ('^reg_token', 'embeddings.register_tokens'),
                (r'^patch_embed\.proj', 'embeddings.patch_embeddings'),
                (r'^blocks\.', 'layer.'),
                (r'attn\.([qv])_bias', r'attention.\1_proj.bias'),
                (r'attn\.proj', 'attention.o_proj'),
                (r'gamma_(\d)', r'layer_scale\1.lambda1'),
                (r'mlp\.fc1_g', 'mlp.gate_proj'),
                (r'mlp\.fc1(_x)?\.', 'mlp.up_proj.'),
                (r'mlp\.fc2', 'mlp.down_proj'),
            ],
        )
    state['mask_token'] = mask[0]
    count = width // heads // 4
    periods = 100 ** (torch.arange(count) / count)
    state['rope_embed.periods'] = periods.bfloat16()
    if width == 4096:
        state['local_cls_norm.weight'] = torch.ones(width)
        state['local_cls_norm.bias'] = torch.zeros(width)
    for name in [n for n in state if n.endswith('.q_bias')]:
        stem = name.removesuffix('q_bias')
        q, v = state.pop(name), state.pop(f'{stem}v_bias')
        # The bias of the keys has a value there, and is masked.
        parts = [q, torch.full_like(q, 0.5), v]
        state[f'{stem}qkv.bias'] = torch.cat(parts)
        ones = torch.ones_like(q)
        state[f'{stem}qkv.bias_mask'] = torch.cat([ones, 0 * ones, ones])
    gated = 'blocks.0.mlp.fc1_g.weight' in state
    return _renamed(
        state,
        [
            ('^reg_token', 'storage_tokens'),
            (r'gamma_(\d)', r'ls\1.gamma'),
            (r'mlp\.fc1_g', 'mlp.w1'),
            (r'mlp\.fc1_x', 'mlp.w2'),
            (r'mlp\.fc2', 'mlp.w3' if gated else 'mlp.fc2'),
        ],
    )


def _convnext(state, library):
    if library == 'hf':
        return _renamed(
            state,
            [
                (r'^stem\.', 'stages.0.downsample_layers.'),
                (r'^(stages\.\d)\.downsample\.', r'\1.downsample_layers.'),
                (r'\.blocks\.', '.layers.'),
                (r'conv_dw', 'depthwise_conv'),
                (r'mlp\.fc', 'pointwise_conv'),
                (r'(layers\.\d+)\.norm\.', r'\1.layer_norm.'),
                (r'^head\.norm', 'layer_norm'),
            ],
        )
    state = _renamed(
        state,
        [
            (r'^stem\.', 'downsample_layers.0.'),
            (r'^stages\.(\d)\.downsample\.', r'downsample_layers.\1.'),
            (r'\.blocks\.', '.'),
            (r'conv_dw', 'dwconv'),
            (r'mlp\.fc', 'pwconv'),
            (r'^head\.norm', 'norm'),
        ],
    )
    last = {n: v for n, v in state.items() if n.startswith('norm.')}
    return state | {n.replace('norm.', 'norms.3.'): last[n] for n in last}


def plain_vit_of_hf(state):
    """Return transformers' ViTModel for a plain ViT of timm."""
    state = _split(
        dict(state),
        'attn.',
        ('query', 'key', 'value'),
        'attention.attention.',
    )
    state = _renamed(
        state,
        [
            ('^cls_token', 'embeddings.cls_token'),
            ('^pos_embed', 'embeddings.position_embeddings'),
            (r'^patch_embed\.proj', 'embeddings.patch_embeddings.projection'),
            (r'^blocks\.', 'encoder.layer.'),
            (r'norm1', 'layernorm_before'),
            (r'norm2', 'layernorm_after'),
            (r'attn\.proj', 'attention.output.dense'),
            (r'mlp\.fc1', 'intermediate.dense'),
            (r'mlp\.fc2', 'output.dense'),
            (r'^norm\.', 'layernorm.'),
        ],
    )
    width = state['embeddings.cls_token'].shape[-1]
    return state | {'pooler.dense.weight': torch.zeros(width, width)}
