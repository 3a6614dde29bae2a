"""Our own training checkpoints."""

from ..format import Format
from ..key_table import SAME, Part

FORMATS = (
    Format(
        name='mmmoco',
        title='a pre-training checkpoint of mmmoco',
        published=False,
        signs=(
            r'backbone\.',
            r'(key_encoder\.|dictionary\.|predictor\.(fc|bn)|teacher\.'
            r'|adapter\.|heads\.)',
        ),
        never=(r'(encoder_k|momentum_encoder|projector|momentum_backbone)\.',),
        parts=(Part('', '', SAME),),
    ),
)
