"""DINOv2 with registers and DINOv3, written down from their papers and code.

Each takes the tensors of a file as its authors save it, and images; it gives
the class token, N×C, and the patch tokens, N×T×C.
"""

import math

import torch
import torch.nn.functional as F


def dinov2(state, x, heads):
    """A ViT whose registers get no positions; images may be of any size."""
    tokens, grid = _patches(state, x)
    positions = state['pos_embed']
    side = math.isqrt(positions.shape[1] - 1)
    table = positions[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    table = F.interpolate(table, grid, mode='bicubic', antialias=True)
    tokens = tokens + table.flatten(2).transpose(1, 2)
    first = state['cls_token'] + positions[:, :1]
    return _blocks(state, _lined_up(state, first, tokens), heads, 1e-6)


def dinov3(state, x, heads):
    """A ViT that turns queries and keys of patches by their place."""
    tokens, grid = _patches(state, x)
    tokens = _lined_up(state, state['cls_token'], tokens)
    width = tokens.shape[-1] // heads
    periods = 100 ** (torch.arange(width // 4) / (width // 4))
    rows, columns = (2 * (torch.arange(n) + 0.5) / n - 1 for n in grid)
    places = torch.cartesian_prod(rows, columns)  # T×2, from −1 to 1
    angles = 2 * math.pi * places[:, :, None] / periods
    angles = angles.flatten(1).repeat(1, 2)
    return _blocks(state, tokens, heads, 1e-5, angles)


def convnext(state, x):
    """A ConvNeXt; its class token is the norm of the mean."""
    for s in range(4):
        stem = f'downsample_layers.{s}.'
        first, second = ('1', '0') if s == 0 else ('0', '1')
        conv = state[f'{stem}{second}.weight'], state[f'{stem}{second}.bias']
        if s:
            x = _norm_of_map(state, f'{stem}{first}.', x)
        x = F.conv2d(x, *conv, stride=conv[0].shape[-1])
        if s == 0:
            x = _norm_of_map(state, f'{stem}{first}.', x)
        i = 0
        while f'stages.{s}.{i}.gamma' in state:
            x = x + _convnext_block(state, f'stages.{s}.{i}.', x)
            i += 1
    patches = x.flatten(2).transpose(1, 2)
    return tuple(
        _norm(state, 'norm.', each, 1e-6)
        for each in (patches.mean(1), patches)
    )


def _convnext_block(state, name, x):
    weight, bias = state[f'{name}dwconv.weight'], state[f'{name}dwconv.bias']
    x = F.conv2d(x, weight, bias, padding=3, groups=len(weight))
    x = _norm(state, f'{name}norm.', x.permute(0, 2, 3, 1), 1e-6)
    x = F.gelu(_linear(state, f'{name}pwconv1.', x))
    x = _linear(state, f'{name}pwconv2.', x) * state[f'{name}gamma']
    return x.permute(0, 3, 1, 2)


def _patches(state, x):
    weight = state['patch_embed.proj.weight']
    bias = state['patch_embed.proj.bias']
    x = F.conv2d(x, weight, bias, stride=weight.shape[-1])
    return x.flatten(2).transpose(1, 2), x.shape[2:]


def _lined_up(state, first, patches):
    registers = state.get('register_tokens', state.get('storage_tokens'))
    fixed = torch.cat([first, registers], 1).expand(len(patches), -1, -1)
    return torch.cat([fixed, patches], 1)


def _blocks(state, x, heads, eps, angles=None):
    i = 0
    while f'blocks.{i}.norm1.weight' in state:
        name = f'blocks.{i}.'
        y = _norm(state, f'{name}norm1.', x, eps)
        y = _attention(state, f'{name}attn.', y, heads, angles)
        x = x + y * state[f'{name}ls1.gamma']
        y = _norm(state, f'{name}norm2.', x, eps)
        x = x + _mlp(state, f'{name}mlp.', y) * state[f'{name}ls2.gamma']
        i += 1
    x = _norm(state, 'norm.', x, eps)
    return x[:, 0], x[:, 5:]


def _attention(state, name, x, heads, angles):
    weight, bias = state[f'{name}qkv.weight'], state.get(f'{name}qkv.bias')
    if f'{name}qkv.bias_mask' in state:
        bias = bias * state[f'{name}qkv.bias_mask']
    q, k, v = (
        part.unflatten(-1, (heads, -1)).transpose(1, 2)
        for part in F.linear(x, weight, bias).chunk(3, -1)
    )
    if angles is not None:
        q, k = _turned(q, angles), _turned(k, angles)
    shares = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
    x = (shares @ v).transpose(1, 2).flatten(2)
    return _linear(state, f'{name}proj.', x)


def _turned(x, angles):
    fixed, x = x[:, :, :5], x[:, :, 5:]
    a, b = x.chunk(2, -1)
    turned = x * angles.cos() + torch.cat([-b, a], -1) * angles.sin()
    return torch.cat([fixed, turned], 2)


def _mlp(state, name, x):
    if f'{name}w12.weight' in state:
        gate, value = _linear(state, f'{name}w12.', x).chunk(2, -1)
    elif f'{name}w1.weight' in state:
        gate = _linear(state, f'{name}w1.', x)
        value = _linear(state, f'{name}w2.', x)
    else:
        hidden = F.gelu(_linear(state, f'{name}fc1.', x))
        return _linear(state, f'{name}fc2.', hidden)
    return _linear(state, f'{name}w3.', F.silu(gate) * value)


def _linear(state, name, x):
    return F.linear(x, state[f'{name}weight'], state[f'{name}bias'])


def _norm(state, name, x, eps):
    weight, bias = state[f'{name}weight'], state[f'{name}bias']
    return F.layer_norm(x, weight.shape, weight, bias, eps)


def _norm_of_map(state, name, x):
    x = _norm(state, name, x.permute(0, 2, 3, 1), 1e-6)
    return x.permute(0, 3, 1, 2)
