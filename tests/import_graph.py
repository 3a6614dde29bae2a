"""The rooms of mmmoco and who imports whom, read from the source.

``python tests/import_graph.py [FOLDER]`` prints the rooms layer by layer, each
with what it imports, and every arrow that should not be there: then it ends
with 1. FOLDER holds a checkout, by default this one. Imports inside functions
count; nothing is imported.
"""

import argparse
import ast
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: From low to high: layer, its rooms, and what they may import: layers, or
#: single rooms; None: every layer before. A room is a folder with all below
#: it, or a module. Rooms of one layer never import each other.
LAYERS: list[tuple[str, list[str], list[str] | None]] = [
    (
        '0',
        [
            'version',
            'registry',
            'plain_pickle',
            'messages',
            'json_lines',
            'older_versions',
            'openmmlab',
            'private_names',
            'progress',
            'restarts',
            'system',
        ],
        None,
    ),
    ('0a', ['files'], None),
    ('1', ['functional'], None),
    # What OpenMMLab, then runner, hooks and tools know of a model.
    ('1a', ['feature_model'], None),
    ('1b', ['two_phase'], None),
    (
        '2',
        [
            'models/backbones',
            'models/necks',
            'models/heads',
            'models/losses',
            'models/norms',
            'models/dictionaries',
            'models/encoders',
            'models/preprocessors',
            'datasets',
        ],
        None,
    ),
    (
        '3',
        ['models/algorithms'],
        ['0', '0a', '1', '1a', '1b', 'models/encoders'],
    ),
    ('4', ['evaluation', 'visualization', 'convert'], ['0', '0a', '1']),
    # No model but through its documented methods: neither 2 nor 3.
    ('5a', ['engine/checkpoint_io'], ['0', '0a', '1', '1b', '4']),
    ('5b', ['engine'], ['0', '0a', '1', '1b', '4', '5a']),
    (
        '5c',
        ['engine/evaluation', 'engine/optim'],
        ['0', '0a', '1', '1b', '4', '5a', '5b'],
    ),
    (
        '5d',
        ['engine/hooks', 'engine/runner'],
        ['0', '0a', '1', '1b', '4', '5a', '5b', '5c'],
    ),
    ('6', ['apis/process', 'apis/lookup', 'apis/foreign_flags'], None),
    ('6-', ['apis/early_checks'], None),
    ('6a', ['apis/cli'], None),
    ('6b', ['apis/config'], None),
    ('6b+', ['apis/image_input'], None),
    ('6c', ['apis/model'], None),
    ('6d', ['apis/exchange'], None),
    ('6e', ['apis/training'], None),
    ('6e+', ['apis/own_data'], None),
    ('6f', ['apis/probing'], None),
    ('6g', ['apis/dense'], None),
    ('6h', ['apis/data'], None),
    ('6i', ['apis/preflight'], None),
    ('6j', ['apis/planning'], None),
    ('6k', ['apis/page', 'apis/report'], None),
    # Names the jobs of all rooms.
    ('6z', ['apis/command'], None),
    # These files list what stands below them.
    ('7', [f'{name}/__init__' for name in ('engine', 'models', 'apis')], None),
    ('8', ['__init__', '__main__'], None),
]
#: Arrows that do not hold yet: (module, what it imports). Only to be removed.
KNOWN: set[tuple[str, str]] = set()


def sources(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob('*.py') if '.mim' not in p.parts)


def module_of(path: Path, root: Path = ROOT) -> str:
    parts = path.relative_to(root).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def is_module(name: str, root: Path = ROOT) -> bool:
    path = root.joinpath(*name.split('.'))
    return (path / '__init__.py').is_file() or path.with_suffix('.py').exists()


def imports_of(path: Path, root: Path = ROOT) -> Iterator[tuple[str, bool]]:
    """Yield (full module name, whether at the top of the file).

    ``import mmmoco`` and its ``__version__`` bring the version only.
    """
    tree = ast.parse(path.read_text(encoding='utf-8'))
    package = module_of(path, root).split('.')
    if path.name != '__init__.py':
        package = package[:-1]
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                module = name.name
                if module == 'mmmoco':
                    module = 'mmmoco.version'
                yield module, id(node) in top
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1]
            prefix = base if node.level else []
            module = '.'.join([*prefix, *filter(None, [node.module])])
            for name in node.names:
                full = f'{module}.{name.name}'
                if full == 'mmmoco.__version__':
                    full = 'mmmoco.version'
                yield (
                    full if is_module(full, root) else module,
                    id(node) in top,
                )


def within(module: str, names: Iterable[str]) -> bool:
    return any(module == n or module.startswith(f'{n}.') for n in names)


@cache
def room_of(module: str) -> str | None:
    """Return the room of a module of mmmoco; None if it stands in none."""
    name = '/'.join(module.split('.')[1:])
    rooms = {room for _, some, _ in LAYERS for room in some}
    if f'{name}/__init__'.lstrip('/') in rooms:
        return f'{name}/__init__'.lstrip('/')
    while name and name not in rooms:
        name = name.rpartition('/')[0]
    return name or None


def allowed_rooms(room: str) -> set[str]:
    """Return the rooms that a room may import."""
    lower: dict[str, list[str]] = {}
    for layer, rooms, wanted in LAYERS:
        if room in rooms:
            names = lower if wanted is None else wanted
            return {room}.union(*(lower.get(n, [n]) for n in names))
        lower[layer] = rooms
    raise KeyError(room)


def arrows(root: Path = ROOT) -> dict[tuple[str, str], bool]:
    """Return (module, imported module) → whether the layers allow it."""
    found = {}
    for path in sources(root / 'mmmoco'):
        module = module_of(path, root)
        room = room_of(module)
        allowed = allowed_rooms(room) if room else set()
        for imported, _ in imports_of(path, root):
            if within(imported, ['mmmoco']):
                found[module, imported] = room_of(imported) in allowed
    return found


def cycle(pairs: dict[tuple[str, str], bool]) -> list[str]:
    """Return modules that import each other in a ring, or none."""
    graph: dict[str, set[str]] = {}
    for module, imported in pairs:
        if module != imported:
            graph.setdefault(module, set()).add(imported)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('folder', nargs='?', type=Path, default=ROOT)
    root = parser.parse_args().folder.resolve()
    pairs = arrows(root)
    files = Counter(
        room_of(module_of(path, root)) for path in sources(root / 'mmmoco')
    )
    for layer, rooms, _ in LAYERS:
        for room in rooms:
            if not files[room]:
                continue
            targets = Counter(
                room_of(imported)
                for module, imported in pairs
                if room_of(module) == room != room_of(imported)
            )
            names = ', '.join(
                f'{name} {count}' for name, count in targets.most_common()
            )
            print(f'{layer:3} {room:22} {files[room]:2}  → {names or "-"}')
    wrong = sorted(pair for pair, holds in pairs.items() if not holds)
    ring = cycle(pairs)
    for module, imported in wrong:
        print(f'not allowed: {module} imports {imported}')
    if ring:
        print(f'a cycle: {" → ".join(ring)}')
    print(
        f'{len(pairs)} imports between {sum(files.values())} modules, '
        f'{len(wrong)} not allowed, {"a" if ring else "no"} cycle'
    )
    return int(bool(wrong or ring))


if __name__ == '__main__':
    sys.exit(main())
