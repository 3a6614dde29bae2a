"""Turn a config of OpenMMLab into ours: behind ``tools/convert_config.py``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmmoco.apis import cli
from mmmoco.apis.config.files import load_config
from mmmoco.apis.model import build_without_memory
from mmmoco.convert.openmmlab_config import Converted
from mmmoco.convert.openmmlab_config import convert_config as convert
from mmmoco.engine import checkpoint_io

BASES = [
    'mmmoco::_base_/datasets/image_folder.py',
    'mmmoco::_base_/default_runtime.py',
]


def parser() -> argparse.ArgumentParser:
    """Return the command line of ``tools/convert_config.py``."""
    result = argparse.ArgumentParser(
        prog='convert_config.py',
        description='Turn a MoCo or MoCoV3 config of mmpretrain or mmselfsup '
        '1.x into one of ours. A config is Python code and is executed: use '
        'only those that you trust.',
        epilog='Example: python tools/convert_config.py '
        'mmpretrain::mocov2/mocov2_resnet50_8xb32-coslr-200e_in1k.py '
        'my_mocov2.py',
    )
    result.add_argument('config', help='path, or package::path')
    result.add_argument('out', help='new config, .py')
    cli.add_debug(result)
    return result


def convert_config(config: str, out: str) -> Converted:
    """Write a config of mmpretrain or mmselfsup in our terms.

    Args:
        config: Path, or ``mmpretrain::path``.
        out: New file, ``.py``. What was not converted stands in its head.

    Raises:
        FileNotFoundError: If the config does not exist.
        ValueError: If it is of another method or an older layout, or if the
            result would not build.
    """
    if Path(out).suffix != '.py':
        raise cli.UsageError(f'{out}: give a name that ends in .py.')
    source = load_config(config)
    converted = convert(source.to_dict(), _archs())
    _check_builds(converted)
    checkpoint_io.write_text(out, _text(converted, config))
    return converted


def _archs() -> dict[str, dict[str, Any]]:
    from mmpretrain.models.backbones import VisionTransformer

    return {
        name: dict(shape) for name, shape in VisionTransformer.arch_zoo.items()
    }


def _check_builds(converted: Converted) -> None:
    cfg = Config(dict(model=converted.config['model'], default_scope='mmmoco'))
    try:
        build_without_memory(cfg)
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(
            f'The converted model does not build ({error}). Nothing was '
            'written.'
        ) from error


def _text(converted: Converted, config: str) -> str:
    lines = [f'# Converted from {config}.']
    lines += [
        f'# Not converted: {path} = {value!r}'
        for path, value in converted.unknown.items()
    ]
    body = Config(converted.config).pretty_text
    return '\n'.join([*lines, f'_base_ = {BASES!r}', '', body])


def describe(converted: Converted, out: str) -> str:
    """Say what became of every field."""
    unknown, replaced = converted.unknown, converted.replaced
    lines = [f'Not converted: {len(unknown)} fields']
    lines += [f'  {path} = {value!r}' for path, value in unknown.items()]
    lines.append(f'Ours instead: {len(replaced)} fields')
    lines += [f'  {path}: {reason}' for path, reason in replaced.items()]
    if converted.variables:
        lines.append(
            'Variables that no runner reads: ' + ', '.join(converted.variables)
        )
    lines += [f'Note: {note}' for note in converted.notes]
    lines.append(
        f'Written: {out}. Check it: python tools/verify_config.py {out}'
    )
    return '\n'.join(lines)


def run(args: argparse.Namespace) -> None:
    """Convert as the command line says, and print the report."""
    converted = convert_config(args.config, args.out)
    sys.stdout.write(f'{describe(converted, args.out)}\n')


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``tools/convert_config.py``."""
    args = parser().parse_args(argv)
    cli.run(lambda: run(args), 'convert_config.py', args.debug)
