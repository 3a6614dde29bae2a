"""mmpretrain and mmselfsup: pre-training, and any model with a backbone."""

from ..format import DUPLICATE, EMA_STEPS, OTHER_TASK, Format
from ..key_table import SAME, Part, twins
from ..resnet import TORCHVISION
from ..vit import MMPRETRAIN, MMSEG
from .moco import DENSE_QUEUE, QUEUE

BACKBONE = TORCHVISION + MMPRETRAIN
_MOVING = 'momentum_encoder.'

FORMATS = (
    Format(
        name='mmpretrain-moco',
        title='MoCo or DenseCL of mmpretrain or mmselfsup 1.x',
        signs=(r'backbone\.', r'encoder_k\.module\.0\.'),
        parts=(
            *twins('backbone.', 'encoder_k.module.0.', 'backbone', BACKBONE),
            *twins('neck.', 'encoder_k.module.1.', 'neck', SAME),
            Part('', 'dictionary.', QUEUE),
            Part('', 'dense_dictionary.', DENSE_QUEUE),
        ),
        left=((r'encoder_k\.steps', EMA_STEPS),),
        imagenet=True,
    ),
    Format(
        name='mmpretrain-mocov3',
        title='MoCoV3 of mmpretrain or mmselfsup 1.x',
        signs=(r'backbone\.', r'momentum_encoder\.module\.0\.'),
        parts=(
            *twins('backbone.', f'{_MOVING}module.0.', 'backbone', BACKBONE),
            *twins('neck.', f'{_MOVING}module.1.', 'neck', SAME),
            Part('head.predictor.', 'predictor.', SAME),
        ),
        left=((r'momentum_encoder\.steps', EMA_STEPS),),
        imagenet=True,
    ),
    Format(
        name='mmselfsup-0.x',
        title='MoCo, DenseCL or MoCoV3 of mmselfsup 0.x',
        # A name of a layer follows: a number there is another's layout.
        signs=(
            r'(encoder_q|base_encoder)\.0\.[a-z]\w*\.\w',
            r'(encoder_k|momentum_encoder)\.0\.[a-z]\w*\.\w',
        ),
        parts=(
            *twins('encoder_q.0.', 'encoder_k.0.', 'backbone', BACKBONE),
            *twins('encoder_q.1.', 'encoder_k.1.', 'neck', SAME),
            *twins('base_encoder.0.', f'{_MOVING}0.', 'backbone', BACKBONE),
            *twins('base_encoder.1.', f'{_MOVING}1.', 'neck', SAME),
            Part('head.predictor.', 'predictor.', SAME),
            Part('', 'dictionary.', QUEUE),
            Part('', 'dense_dictionary.', DENSE_QUEUE),
        ),
        left=((r'(backbone|neck)\.', DUPLICATE),),
        imagenet=True,
    ),
    Format(
        name='openmmlab',
        title='the backbone of a model of OpenMMLab',
        published=False,
        signs=(r'backbone\.(conv1|layer1|patch_embed|layers|stages)\.',),
        never=(
            r'(encoder_k|encoder_q|momentum_encoder|base_encoder)\.',
            r'(key_encoder|dictionary|predictor|teacher|adapter|heads)\.',
            r'(projector|projection_head|momentum_backbone)\.',
            r'(query_backbone|backbone_momentum)\.',
        ),
        parts=(
            # Any backbone: it is ours by name already.
            Part('backbone.', 'backbone.', SAME),
        ),
        left=(
            (
                r'(neck|head|rpn_head|roi_head|bbox_head|mask_head|decode_head'
                r'|auxiliary_head|data_preprocessor)\.',
                OTHER_TASK,
            ),
        ),
    ),
    Format(
        name='mmpretrain-vit',
        title='a bare VisionTransformer of mmpretrain',
        published=False,
        signs=(r'layers\.0\.ln1\.', r'layers\.0\.attn\.qkv\.'),
        parts=(Part('', 'backbone.', MMPRETRAIN),),
    ),
    Format(
        name='mmseg-vit',
        title='a bare VisionTransformer of mmseg',
        published=False,
        signs=(r'layers\.0\.attn\.attn\.in_proj_weight',),
        parts=(Part('', 'backbone.', MMSEG),),
    ),
)
