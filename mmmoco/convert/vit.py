"""Names of Vision Transformers; ours are those of mmpretrain.

All of them keep query, key and value in one matrix, in this order, and the
class token before the patches, so that renaming is enough.
"""

from .key_table import KeyTable, unchanged

#: mmpretrain's, and therefore ours.
MMPRETRAIN = unchanged(
    'cls_token',
    'pos_embed',
    'patch_embed.projection.{p}',
    'layers.{i}.{p}',
    'ln1.{p}',
)

#: timm, and what is built on it: MoCo v3, DINO, DINOv2, MAE. ``ls`` is the
#: LayerScale and ``w12``/``w3`` the SwiGLU of DINOv2.
TIMM = KeyTable(
    ('cls_token', 'cls_token'),
    ('pos_embed', 'pos_embed'),
    ('patch_embed.proj.{p}', 'patch_embed.projection.{p}'),
    ('blocks.{i}.norm1.{p}', 'layers.{i}.ln1.{p}'),
    ('blocks.{i}.attn.qkv.{p}', 'layers.{i}.attn.qkv.{p}'),
    ('blocks.{i}.attn.proj.{p}', 'layers.{i}.attn.proj.{p}'),
    ('blocks.{i}.ls1.gamma', 'layers.{i}.attn.gamma1.weight'),
    ('blocks.{i}.norm2.{p}', 'layers.{i}.ln2.{p}'),
    ('blocks.{i}.mlp.fc1.{p}', 'layers.{i}.ffn.layers.0.0.{p}'),
    ('blocks.{i}.mlp.fc2.{p}', 'layers.{i}.ffn.layers.1.{p}'),
    ('blocks.{i}.mlp.w12.{p}', 'layers.{i}.ffn.w12.{p}'),
    ('blocks.{i}.mlp.w3.{p}', 'layers.{i}.ffn.w3.{p}'),
    ('blocks.{i}.ls2.gamma', 'layers.{i}.ffn.gamma2.weight'),
    ('norm.{p}', 'ln1.{p}'),
)

#: mmseg's own class; it shares its linear layers with mmpretrain's.
MMSEG = KeyTable(
    ('layers.{i}.attn.attn.in_proj_{p}', 'layers.{i}.attn.qkv.{p}'),
    ('layers.{i}.attn.attn.out_proj.{p}', 'layers.{i}.attn.proj.{p}'),
) + unchanged(
    'cls_token',
    'pos_embed',
    'patch_embed.projection.{p}',
    'layers.{i}.ln1.{p}',
    'layers.{i}.ln2.{p}',
    'layers.{i}.ffn.layers.0.0.{p}',
    'layers.{i}.ffn.layers.1.{p}',
    'ln1.{p}',
)

_LAYER = 'encoder.layers.encoder_layer_{i}.'

TORCHVISION = KeyTable(
    ('class_token', 'cls_token'),
    ('encoder.pos_embedding', 'pos_embed'),
    ('conv_proj.{p}', 'patch_embed.projection.{p}'),
    (_LAYER + 'ln_1.{p}', 'layers.{i}.ln1.{p}'),
    (_LAYER + 'self_attention.in_proj_{p}', 'layers.{i}.attn.qkv.{p}'),
    (_LAYER + 'self_attention.out_proj.{p}', 'layers.{i}.attn.proj.{p}'),
    (_LAYER + 'ln_2.{p}', 'layers.{i}.ln2.{p}'),
    (_LAYER + 'mlp.0.{p}', 'layers.{i}.ffn.layers.0.0.{p}'),
    (_LAYER + 'mlp.3.{p}', 'layers.{i}.ffn.layers.1.{p}'),
    ('encoder.ln.{p}', 'ln1.{p}'),
)
