"""How large the house is: mmmoco/ counted, for one checkout or several.

Prints one column for each folder, for example for the state before a change
and after it. What is patched is found by building a model in a process of its
own and comparing what mmengine, mmcv, mmpretrain, torch and OpenCV hold
before and after.
"""

import argparse
import ast
import importlib.util
import inspect
import io
import logging
import os
import re
import subprocess
import sys
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FOREIGN = ('mmengine', 'mmcv', 'mmpretrain', 'torch', 'cv2')
#: Where the reading of MoCo v2 begins; what they import follows.
MOCO_V2 = (
    'models/algorithms/moco.py',
    'models/dictionaries/queue.py',
    'models/losses/info_nce.py',
    'models/preprocessors/view_augmentor.py',
    'engine/hooks/update_hooks.py',
    'engine/optim/contrast_optim_wrapper.py',
)
#: What every module has to do with, whatever it computes.
NOT_MOCO = ('registry.py', 'messages.py', 'version.py', '__init__.py')
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
LAYOUT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def docstring_lines(tree: ast.Module) -> set[int]:
    """Return the lines of all docstrings."""
    found = set()
    for node in ast.walk(tree):
        if (
            isinstance(node, (ast.Module, ast.ClassDef, *FUNCTIONS))
            and ast.get_docstring(node, clean=False) is not None
        ):
            text = node.body[0]
            found.update(range(text.lineno, (text.end_lineno or 0) + 1))
    return found


def code_lines(source: str) -> int:
    """Count the lines without docstrings, comments and empty lines."""
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in LAYOUT:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - docstring_lines(ast.parse(source)))


def own_names(tree: ast.Module) -> Iterator[str]:
    """Yield the names that a module defines or assigns."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, *FUNCTIONS)):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and isinstance(node.value, ast.Name)
            and node.value.id in ('self', 'cls')
        ):
            yield node.attr


def private_names(tree: ast.Module) -> Iterator[str]:
    """Yield the names with one underscore that a module reads or imports."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Attribute):
            names = [node.attr]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [
                *(node.module or '').split('.'),
                *(name.name for name in node.names),
            ]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [node.value]  # As getattr takes it.
        yield from (n for n in names if re.fullmatch(r'_[a-zA-Z]\w*', n))


def defined_by(library: str) -> Callable[[str], bool]:
    """Return a test whether a library defines a name."""
    spec = importlib.util.find_spec(library)
    assert spec is not None and spec.origin is not None
    text = '\n'.join(
        path.read_text(encoding='utf-8', errors='replace')
        for path in sorted(Path(spec.origin).parent.rglob('*.py*'))
        if path.suffix in ('.py', '.pyi')
    )
    names = set(re.findall(r'(?:def |class |self\.|^ *)(_[a-zA-Z]\w*)', text))
    for path in Path(spec.origin).parent.rglob('_*'):
        names.add(path.stem)  # Its private modules.
    return names.__contains__


def reading(package: Path) -> list[Path]:
    """Return the files of MoCo v2: the first ones and what they import."""
    todo = [package / name for name in MOCO_V2]
    found: list[Path] = []
    while todo:
        path = todo.pop()
        if path in found or path.name in NOT_MOCO or not path.is_file():
            continue
        found.append(path)
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.ImportFrom):
                module = (node.module or '').split('.')
                if node.level:
                    base = path.parents[node.level - 1].joinpath(*module)
                elif module[0] == 'mmmoco':
                    base = package.joinpath(*module[1:])
                else:
                    continue
                for name in node.names:
                    todo += defining(base, name.name)
    return found


def defining(base: Path, name: str) -> list[Path]:
    """Return the file that ``from base import name`` reads."""
    for path in (base.with_suffix('.py'), base / f'{name}.py'):
        if path.is_file():
            return [path]
    listed = base / '__init__.py'
    if not listed.is_file():
        return []
    for node in ast.parse(listed.read_text(encoding='utf-8')).body:
        if not (isinstance(node, ast.ImportFrom) and node.level):
            continue
        if name in [alias.name for alias in node.names]:
            inner = base.joinpath(*(node.module or '').split('.'))
            return defining(inner, name)
    return []


def held() -> dict[tuple[str, str], Any]:
    """Return what the modules and classes of the libraries hold now."""
    found: dict[tuple[str, str], Any] = {}
    for module_name, module in list(sys.modules.items()):
        if module_name.split('.')[0] not in FOREIGN:
            continue
        owners = [module]
        owners += [
            value
            for value in vars(module).values()
            if inspect.isclass(value) and value.__module__ == module_name
        ]
        for owner in owners:
            place = module_name
            if inspect.isclass(owner):
                place += f'.{owner.__qualname__}'
            for name, value in list(vars(owner).items()):
                if not name.startswith('__'):
                    found[place, name] = value
    return found


def print_patched() -> None:
    """Build the demo's model and print which names another object has."""
    import mmpretrain  # noqa: F401
    from mmengine.hooks import checkpoint_hook  # noqa: F401
    from mmengine.infer import infer  # noqa: F401

    import mmmoco

    logging.disable()
    package = str(Path(mmmoco.__file__).parent)
    before = held()
    mmmoco.get_model('demo/mocov2_digits')
    places = {place for place, _ in before}
    for (place, name), value in held().items():
        function = value
        if isinstance(value, (staticmethod, classmethod)):
            function = value.__func__
        if (
            place in places
            and value is not before.get((place, name))
            and inspect.isfunction(function)
            and function.__code__.co_filename.startswith(package)
        ):
            print(f'{place}.{name}')


def patched(root: Path) -> list[str]:
    """Return what a checkout replaces in other libraries."""
    return subprocess.run(
        [sys.executable, '-W', 'ignore', __file__, '--patched'],
        cwd=root,
        env={**os.environ, 'PYTHONPATH': str(root)},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout.split()


def count(root: Path) -> dict[str, Any]:
    """Return title → figure of a checkout."""
    package = root / 'mmmoco'
    sources = {
        path: path.read_text(encoding='utf-8')
        for path in sorted(package.rglob('*.py'))
        if '.mim' not in path.parts
    }
    trees = {path: ast.parse(text) for path, text in sources.items()}
    nodes = [node for tree in trees.values() for node in ast.walk(tree)]
    called = [
        node.func.id
        for node in nodes
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    public = {
        path: [
            node.name
            for node in tree.body
            if isinstance(node, (ast.ClassDef, *FUNCTIONS))
            and not node.name.startswith('_')
        ]
        for path, tree in trees.items()
    }
    lengths = {
        str(path.relative_to(package)): len(text.splitlines())
        for path, text in sources.items()
    }
    functions = {
        f'{path.relative_to(package)} {node.name}': (node.end_lineno or 0)
        - node.lineno
        + 1
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, FUNCTIONS)
    }
    own = {name for tree in trees.values() for name in own_names(tree)}
    used = {n for tree in trees.values() for n in private_names(tree)} - own
    foreign: dict[str, list[str]] = {}
    for library in ('mmengine', 'torch'):
        foreign[library] = sorted(filter(defined_by(library), used))
        used -= {*foreign[library]}
    moco = reading(package)
    replaced = patched(root)
    file = max(lengths, key=lengths.__getitem__)
    function = max(functions, key=functions.__getitem__)
    return {
        'files': len(sources),
        'lines': sum(lengths.values()),
        'code lines': sum(map(code_lines, sources.values())),
        'public names': sum(map(len, public.values())),
        'of these in apis': sum(
            len(names)
            for path, names in public.items()
            if 'apis' in path.relative_to(package).parts
        ),
        'getattr': called.count('getattr'),
        'hasattr': called.count('hasattr'),
        'lines with Any': sum(
            bool(re.search(r'\bAny\b', line))
            for text in sources.values()
            for line in text.splitlines()
        ),
        'functions that take a Namespace': sum(
            isinstance(node, FUNCTIONS)
            and any(
                'Namespace' in ast.unparse(arg.annotation)
                for arg in node.args.args
                if arg.annotation
            )
            for node in nodes
        ),
        'longest file': f'{file}, {lengths[file]}',
        'longest function': f'{function}, {functions[function]}',
        'files of MoCo v2': len(moco),
        'lines of MoCo v2': sum(len(sources[p].splitlines()) for p in moco),
        **{f'private names of {k}': len(v) for k, v in foreign.items()},
        'patched names': len(replaced),
        'which': [
            *(f'{k}: {", ".join(v)}' for k, v in foreign.items()),
            'patched: ' + ', '.join(replaced),
            'MoCo v2: '
            + ', '.join(str(path.relative_to(package)) for path in moco),
        ],
    }


def main() -> int:
    """Print the table, then which names and files were counted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'folders', nargs='*', type=Path, default=[ROOT], help='checkouts'
    )
    parser.add_argument(
        '--patched', action='store_true', help=argparse.SUPPRESS
    )
    args = parser.parse_args()
    if args.patched:
        print_patched()
        return 0
    columns = [count(folder.resolve()) for folder in args.folders]
    which = [column.pop('which') for column in columns]
    print('|', *args.folders, sep=' | ', end=' |\n')
    print('| --- ' * (1 + len(columns)) + '|')
    for title in columns[0]:
        print('|', title, end=' | ')
        print(*(column[title] for column in columns), sep=' | ', end=' |\n')
    for folder, lines in zip(args.folders, which, strict=True):
        print(f'\n{folder}', *lines, sep='\n  ')
    return 0


if __name__ == '__main__':
    sys.exit(main())
