"""Who may import whom; read from the source, nothing is imported."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / 'mmmoco'

#: Folder (longest prefix wins) -> what of mmmoco it may import.
BASE = {
    f'mmmoco.{name}'
    for name in ('version', 'registry', 'plain_pickle', 'messages')
}
FUNCTIONAL = BASE | {'mmmoco.functional'}
PARTS = (
    'backbones',
    'necks',
    'heads',
    'losses',
    'norms',
    'dictionaries',
    'encoders',
    'preprocessors',
)
LAYERS = {
    'mmmoco.version': set(),
    'mmmoco.registry': set(),
    'mmmoco.plain_pickle': set(),
    'mmmoco.messages': set(),
    'mmmoco.functional': FUNCTIONAL,
    **{
        f'mmmoco.models.{part}': FUNCTIONAL | {f'mmmoco.models.{part}'}
        for part in PARTS
    },
    'mmmoco.datasets': FUNCTIONAL | {'mmmoco.datasets'},
    'mmmoco.models.algorithms': FUNCTIONAL
    | {'mmmoco.models.algorithms', 'mmmoco.models.encoders'},
    'mmmoco.evaluation': FUNCTIONAL | {'mmmoco.evaluation'},
    'mmmoco.visualization': FUNCTIONAL | {'mmmoco.visualization'},
    'mmmoco.convert': FUNCTIONAL | {'mmmoco.convert'},
    'mmmoco.engine': FUNCTIONAL
    | {
        'mmmoco.engine',
        'mmmoco.evaluation',
        'mmmoco.visualization',
        'mmmoco.convert',
    },
    'mmmoco.apis': {'mmmoco'},
    # The package file only forwards to the API, when asked.
    'mmmoco.models': {'mmmoco.models'},
    'mmmoco': {'mmmoco.version', 'mmmoco.apis'},
}
OPTIONAL = (
    'mmdet',
    'mmseg',
    'faiss',
    'kornia',
    'webdataset',
    'braceexpand',
    'datasets',
    'tifffile',
    'timm',
)
BANNED = {'utils', 'misc', 'helpers', 'common'}


def sources(folder):
    return sorted(p for p in folder.rglob('*.py') if '.mim' not in p.parts)


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def imports_of(path):
    """Yield (full module name, whether at the top of the file)."""
    tree = ast.parse(path.read_text(encoding='utf-8'))
    package = module_of(path).split('.')
    if path.name != '__init__.py':
        package = package[:-1]
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield name.name, id(node) in top
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1]
            prefix = base if node.level else []
            module = '.'.join([*prefix, *filter(None, [node.module])])
            for name in node.names:
                full = f'{module}.{name.name}'
                yield (full if is_module(full) else module), id(node) in top


def is_module(name):
    path = ROOT.joinpath(*name.split('.'))
    return path.is_dir() or path.with_suffix('.py').is_file()


def within(module, names):
    return any(module == n or module.startswith(f'{n}.') for n in names)


def layer_of(module):
    return max((k for k in LAYERS if within(module, [k])), key=len)


@pytest.mark.parametrize('path', sources(PACKAGE), ids=module_of)
def test_imports_follow_the_layers(path):
    module = module_of(path)
    allowed = LAYERS[layer_of(module)]
    if module == 'mmmoco':
        allowed = {'mmmoco.version', 'mmmoco.apis'}
    for imported, _ in imports_of(path):
        if not within(imported, ['mmmoco']) or imported == 'mmmoco':
            # `import mmmoco` by itself brings the version only.
            continue
        assert within(imported, allowed), (
            f'{module} must not import {imported}'
        )


@pytest.mark.parametrize('path', sources(PACKAGE), ids=module_of)
def test_optional_libraries_are_imported_where_they_are_used(path):
    for imported, at_top in imports_of(path):
        assert not (at_top and within(imported, OPTIONAL)), imported


@pytest.mark.parametrize('path', sources(PACKAGE), ids=module_of)
def test_nothing_imports_tools_or_tests(path):
    outside = ('tools', 'demo', 'benchmarks', 'tests', 'configs')
    for imported, _ in imports_of(path):
        assert not within(imported, outside), imported


def test_the_rules_catch_an_upward_import(tmp_path):
    """The checker itself must be able to fail."""
    assert not within('mmmoco.apis', LAYERS['mmmoco.functional'])
    assert layer_of('mmmoco.models.losses.info_nce') == 'mmmoco.models.losses'
    found = dict(imports_of(PACKAGE / 'models' / 'dictionaries' / 'queue.py'))
    assert 'mmmoco.models.dictionaries.base' in found


def test_no_folder_for_everything():
    folders = ('mmmoco', 'configs', 'tools', 'demo', 'benchmarks', 'tests')
    found = [path for name in folders for path in (ROOT / name).rglob('*')]
    assert len(found) > 50
    for path in found:
        assert path.stem not in BANNED, path


def test_every_registry_of_mmpretrain_exists_here():
    """Else building under default_scope='mmmoco' falls back to the root."""
    import mmpretrain.registry as theirs
    from mmengine.registry import Registry

    import mmmoco.registry as ours

    names = [n for n, v in vars(theirs).items() if isinstance(v, Registry)]
    own = {n for n in names if not n.startswith('MMENGINE') and n.isupper()}
    missing = {n for n in own if not hasattr(ours, n)}
    assert not missing
    for name in own:
        registry = getattr(ours, name)
        assert registry.scope == 'mmmoco'
        if registry.parent is not None:
            assert registry.parent.scope == 'mmengine'
