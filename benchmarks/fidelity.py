"""The numerical parity of everything, in one table.

Runs the comparisons of the tests (plain transcriptions of the papers, and
reference implementations) and prints the largest difference that each one
finds, beside what is allowed. Ends with 1 if a bound is exceeded.
"""

import importlib
import platform
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy
import PIL
import torch
import torchvision
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

from mmmoco.apis import cli

ROOT = Path(__file__).parents[1]
PAGE = ROOT / 'docs' / 'fidelity.md'
BEGIN, END = '<!-- benchmarks/fidelity.py -->', '<!-- end -->'

#: Section → modules of the tests, each with ``all_comparisons()``.
SECTIONS = {
    'Algorithms, step by step': [
        'golden.test_moco',
        'golden.test_mochi',
        'golden.test_densecl',
        'golden.test_mocov3',
        'golden.test_mmc',
    ],
    'Moving average, optimizer, schedules': [
        'models.test_momentum',
        'engine.test_lars',
        'configs.test_recipes',
    ],
    'Evaluation': [
        'functional.test_knn',
        'evaluation.test_linear_probe',
        'apis.test_davis',
    ],
    'Views': ['datasets.transforms.view_grids'],
}


def comparisons(module: str) -> Iterator[Any]:
    """Yield the comparisons of a module of the tests.

    The package is named by its path: another library may have installed a
    package of the same name.
    """
    if 'tests' not in sys.modules:
        package = types.ModuleType('tests')
        package.__path__ = [str(ROOT / 'tests')]
        sys.modules['tests'] = package
    yield from importlib.import_module(f'tests.{module}').all_comparisons()


def row(each: Any) -> str:
    """Return a comparison as a row of the table."""
    mark = '' if each.holds else ' **exceeded**'
    return (
        f'| {each.what} | {each.against} | {number(each.difference)}{mark} | '
        f'{number(each.bound)} | {each.unit} | {each.over} |'
    )


def number(value: float) -> str:
    """Two digits that count; an exact zero as 0."""
    return '0' if value == 0 else f'{value:.2g}'


def tables(only: str | None) -> tuple[list[str], list[str]]:
    """Run everything; return the lines of the tables and what failed."""
    lines: list[str] = []
    failed: list[str] = []
    for section, modules in SECTIONS.items():
        if only and only.lower() not in section.lower():
            continue
        lines += [
            f'### {section}',
            '',
            '| what | against | largest difference | allowed | in | over |',
            '| --- | --- | --- | --- | --- | --- |',
        ]
        for module in modules:
            try:
                for each in comparisons(module):
                    lines.append(row(each))
                    if not each.holds:
                        failed.append(each.what)
            except AssertionError as error:
                # A transcription and ours went apart on the way.
                text = str(error).strip().splitlines() or ['']
                lines.append(f'| {module} | | **failed**: {text[0]} | | | |')
                failed.append(module)
        lines.append('')
    return lines, failed


def machine() -> str:
    """Return what the figures depend on."""
    return (
        f'torch {torch.__version__}, torchvision {torchvision.__version__}, '
        f'Pillow {PIL.__version__}, OpenCV {cv2.__version__}, NumPy '
        f'{numpy.__version__}, Python {platform.python_version()}; float32 '
        f'on a CPU ({platform.machine()}), {torch.get_num_threads()} thread.'
    )


def write_page(lines: list[str]) -> None:
    """Put the tables into the page, in place of the old ones.

    Raises:
        ValueError: If the page has no place for them.
    """
    text = PAGE.read_text(encoding='utf-8')
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f'{PAGE} needs one line {BEGIN} and one line {END}.')
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    body = '\n'.join(lines).strip()
    PAGE.write_text(f'{before}{BEGIN}\n\n{body}\n\n{END}{after}', 'utf-8')


def benchmark(
    *,
    write: bool = False,
    only: Annotated[str | None, {'metavar': 'TEXT'}] = None,
) -> None:
    """The numerical parity of everything, in one table.

    Args:
        write: Also into docs/fidelity.md.
        only: Sections whose title holds this.
    """
    if write and only:
        raise cli.UsageError('--write needs all sections: leave --only out.')
    torch.set_num_threads(1)
    init_default_scope('mmmoco')
    MMLogger.get_instance('fidelity', log_level='ERROR')
    start = time.perf_counter()
    lines, failed = tables(only)
    lines = [machine(), '', *lines]
    sys.stdout.write('\n'.join(lines))
    sys.stdout.write(f'\n{time.perf_counter() - start:.0f} s\n')
    if write:
        write_page(lines)
    if failed:
        sys.stdout.write(f'Exceeded: {", ".join(failed)}\n')
        sys.exit(1)


if __name__ == '__main__':
    cli.main(benchmark)
