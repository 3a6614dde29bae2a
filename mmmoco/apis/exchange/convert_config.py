"""Configs of OpenMMLab turned into ours."""

from mmengine.config import Config

from mmmoco.convert.openmmlab_config import Converted, convert_config
from mmmoco.engine import checkpoint_io
from mmmoco.engine.without_memory import build_without_memory

BASES = [
    'mmmoco::_base_/datasets/image_folder.py',
    'mmmoco::_base_/default_runtime.py',
]


def convert(source: Config) -> Converted:
    """Convert a config of mmpretrain or mmselfsup 1.x.

    Raises:
        ValueError: If it is of another method or an older layout, or if the
            result would not build.
    """
    from mmpretrain.models.backbones import VisionTransformer

    archs = {
        name: dict(shape) for name, shape in VisionTransformer.arch_zoo.items()
    }
    converted = convert_config(source.to_dict(), archs)
    model = converted.config['model']
    try:
        build_without_memory(Config(dict(model=model, default_scope='mmmoco')))
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(
            f'The converted model does not build ({error}). Nothing was '
            'written.'
        ) from error
    return converted


def write(converted: Converted, config: str, out: str) -> Converted:
    """Write a converted config; what was not converted stands in its head."""
    lines = [f'# Converted from {config!r}.']
    lines += [
        f'# Not converted: {path} = {value!r}'
        for path, value in converted.unknown.items()
    ]
    body = Config(converted.config).pretty_text
    text = '\n'.join([*lines, f'_base_ = {BASES!r}', '', body])
    # In a text mmengine fills in what stands in two braces.
    checkpoint_io.write_text(out, text.replace('{{', r'{\x7b'))
    return converted._replace(path=out)
