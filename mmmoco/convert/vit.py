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

#: transformers' Dinov2Model and Dinov2WithRegistersModel, in DINOv2's names.
DINOV2_OF_HF = KeyTable(
    ('embeddings.cls_token', 'cls_token'),
    ('embeddings.register_tokens', 'register_tokens'),
    ('embeddings.position_embeddings', 'pos_embed'),
    ('embeddings.patch_embeddings.projection.{p}', 'patch_embed.proj.{p}'),
    ('encoder.layer.{i}.norm1.{p}', 'blocks.{i}.norm1.{p}'),
    (
        'encoder.layer.{i}.attention.attention.qkv.{p}',
        'blocks.{i}.attn.qkv.{p}',
    ),
    (
        'encoder.layer.{i}.attention.output.dense.{p}',
        'blocks.{i}.attn.proj.{p}',
    ),
    ('encoder.layer.{i}.layer_scale1.lambda1', 'blocks.{i}.ls1.gamma'),
    ('encoder.layer.{i}.norm2.{p}', 'blocks.{i}.norm2.{p}'),
    ('encoder.layer.{i}.mlp.fc1.{p}', 'blocks.{i}.mlp.fc1.{p}'),
    ('encoder.layer.{i}.mlp.fc2.{p}', 'blocks.{i}.mlp.fc2.{p}'),
    ('encoder.layer.{i}.mlp.weights_in.{p}', 'blocks.{i}.mlp.w12.{p}'),
    ('encoder.layer.{i}.mlp.weights_out.{p}', 'blocks.{i}.mlp.w3.{p}'),
    ('encoder.layer.{i}.layer_scale2.lambda1', 'blocks.{i}.ls2.gamma'),
    ('layernorm.{p}', 'norm.{p}'),
)

_IN_TIMM = unchanged(
    'cls_token',
    'reg_token',
    'pos_embed',
    'patch_embed.proj.{p}',
    'blocks.{i}.norm1.{p}',
    'blocks.{i}.attn.qkv.weight',
    'blocks.{i}.attn.qkv.bias',
    'blocks.{i}.attn.proj.{p}',
    'blocks.{i}.norm2.{p}',
    'blocks.{i}.mlp.fc1.{p}',
    'blocks.{i}.mlp.fc2.{p}',
    'norm.{p}',
)

#: To timm's ViTs with registers, from DINOv2's names or their own.
REGISTERS = (
    KeyTable(
        ('register_tokens', 'reg_token'),
        ('blocks.{i}.mlp.w12.{p}', 'blocks.{i}.mlp.fc1.{p}'),
        ('blocks.{i}.mlp.w3.{p}', 'blocks.{i}.mlp.fc2.{p}'),
    )
    + unchanged('blocks.{i}.ls1.gamma', 'blocks.{i}.ls2.gamma')
    + _IN_TIMM
)

#: To timm's ViTs of DINOv3, from DINOv3's names or their own.
DINOV3 = (
    KeyTable(
        ('storage_tokens', 'reg_token'),
        ('blocks.{i}.ls1.gamma', 'blocks.{i}.gamma_1'),
        ('blocks.{i}.ls2.gamma', 'blocks.{i}.gamma_2'),
        ('blocks.{i}.mlp.w1.{p}', 'blocks.{i}.mlp.fc1_g.{p}'),
        ('blocks.{i}.mlp.w2.{p}', 'blocks.{i}.mlp.fc1_x.{p}'),
        ('blocks.{i}.mlp.w3.{p}', 'blocks.{i}.mlp.fc2.{p}'),
    )
    + unchanged(
        'blocks.{i}.attn.q_bias',
        'blocks.{i}.attn.v_bias',
        'blocks.{i}.gamma_1',
        'blocks.{i}.gamma_2',
        'blocks.{i}.mlp.fc1_g.{p}',
        'blocks.{i}.mlp.fc1_x.{p}',
    )
    + _IN_TIMM
)

#: The same from transformers' DINOv3ViTModel.
DINOV3_OF_HF = KeyTable(
    ('embeddings.cls_token', 'cls_token'),
    ('embeddings.register_tokens', 'reg_token'),
    ('embeddings.patch_embeddings.{p}', 'patch_embed.proj.{p}'),
    ('layer.{i}.norm1.{p}', 'blocks.{i}.norm1.{p}'),
    ('layer.{i}.attention.qkv.{p}', 'blocks.{i}.attn.qkv.{p}'),
    ('layer.{i}.attention.o_proj.{p}', 'blocks.{i}.attn.proj.{p}'),
    ('layer.{i}.layer_scale1.lambda1', 'blocks.{i}.gamma_1'),
    ('layer.{i}.norm2.{p}', 'blocks.{i}.norm2.{p}'),
    ('layer.{i}.mlp.gate_proj.{p}', 'blocks.{i}.mlp.fc1_g.{p}'),
    ('layer.{i}.mlp.up_proj.{p}', 'blocks.{i}.mlp.fc1.{p}'),
    ('layer.{i}.mlp.down_proj.{p}', 'blocks.{i}.mlp.fc2.{p}'),
    ('layer.{i}.layer_scale2.lambda1', 'blocks.{i}.gamma_2'),
    ('norm.{p}', 'norm.{p}'),
)

#: transformers' ViTModel: DINO, DeiT and others.
HF = KeyTable(
    ('embeddings.cls_token', 'cls_token'),
    ('embeddings.position_embeddings', 'pos_embed'),
    (
        'embeddings.patch_embeddings.projection.{p}',
        'patch_embed.projection.{p}',
    ),
    ('encoder.layer.{i}.layernorm_before.{p}', 'layers.{i}.ln1.{p}'),
    (
        'encoder.layer.{i}.attention.attention.qkv.{p}',
        'layers.{i}.attn.qkv.{p}',
    ),
    (
        'encoder.layer.{i}.attention.output.dense.{p}',
        'layers.{i}.attn.proj.{p}',
    ),
    ('encoder.layer.{i}.layernorm_after.{p}', 'layers.{i}.ln2.{p}'),
    (
        'encoder.layer.{i}.intermediate.dense.{p}',
        'layers.{i}.ffn.layers.0.0.{p}',
    ),
    ('encoder.layer.{i}.output.dense.{p}', 'layers.{i}.ffn.layers.1.{p}'),
    ('layernorm.{p}', 'ln1.{p}'),
)
