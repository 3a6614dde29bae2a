"""Checkpoint formats: state dicts in, state dicts out; no file is read here.

``formats`` describes each foreign layout by its keys, the tables of names
stand in ``resnet``, ``vit`` and ``heads``.
"""

from .anatomy import (
    below,
    describe_backbone,
    describe_model,
    family_of,
    has_conv_stem,
)
from .config_text import read_config_text
from .exporting import TARGETS, rename_backbone
from .flattened import flattened, without_wrappers
from .formats import FORMATS
from .importing import (
    Imported,
    count_by_module,
    import_weights,
    recognise,
    resize_all_positions,
)
from .positions import are_fixed, grid_side, resize_positions
from .preprocessing import preprocessing_of

__all__ = [
    'FORMATS',
    'TARGETS',
    'Imported',
    'are_fixed',
    'below',
    'count_by_module',
    'describe_backbone',
    'describe_model',
    'family_of',
    'flattened',
    'grid_side',
    'has_conv_stem',
    'import_weights',
    'preprocessing_of',
    'read_config_text',
    'recognise',
    'rename_backbone',
    'resize_all_positions',
    'resize_positions',
    'without_wrappers',
]
