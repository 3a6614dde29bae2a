"""Configs of OpenMMLab turned into ours."""

from typing import NamedTuple

from mmengine.config import Config

from mmmoco.apis.model import build_without_memory
from mmmoco.convert.openmmlab_config import Converted, convert_config
from mmmoco.engine import checkpoint_io

BASES = [
    'mmmoco::_base_/datasets/image_folder.py',
    'mmmoco::_base_/default_runtime.py',
]


class Conversion(NamedTuple):
    """A config that was written.

    Attributes:
        path: Where.
        converted: What became of every field.
    """

    path: str
    converted: Converted

    def __str__(self) -> str:
        """Say what became of every field."""
        unknown, replaced = self.converted.unknown, self.converted.replaced
        lines = [f'Not converted: {len(unknown)} fields']
        lines += [f'  {path} = {value!r}' for path, value in unknown.items()]
        lines.append(f'Ours instead: {len(replaced)} fields')
        lines += [f'  {path}: {reason}' for path, reason in replaced.items()]
        if self.converted.variables:
            names = ', '.join(self.converted.variables)
            lines.append(f'Variables that no runner reads: {names}')
        lines += [f'Note: {note}' for note in self.converted.notes]
        lines.append(
            f'Written: {self.path}. Check it: python tools/verify_config.py '
            f'{self.path}'
        )
        return '\n'.join(lines)


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


def write(converted: Converted, config: str, out: str) -> Conversion:
    """Write a converted config; what was not converted stands in its head."""
    lines = [f'# Converted from {config}.']
    lines += [
        f'# Not converted: {path} = {value!r}'
        for path, value in converted.unknown.items()
    ]
    body = Config(converted.config).pretty_text
    text = '\n'.join([*lines, f'_base_ = {BASES!r}', '', body])
    checkpoint_io.write_text(out, text)
    return Conversion(out, converted)
