"""Who may import whom; read from the source, nothing is imported."""

import pytest

from tests.import_graph import (
    KNOWN,
    LAYERS,
    ROOT,
    allowed_rooms,
    arrows,
    cycle,
    imports_of,
    module_of,
    room_of,
    sources,
    within,
)

PACKAGE = ROOT / 'mmmoco'
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
    'onnx',
    'onnxscript',
    'onnxruntime',
)
BANNED = {'utils', 'misc', 'helpers', 'common'}


@pytest.fixture(scope='module')
def pairs():
    return arrows()


def test_every_module_stands_in_a_room():
    homeless = {m for p in sources(PACKAGE) if not room_of(m := module_of(p))}
    assert not homeless, 'name their room in tests/import_graph.py'


def test_imports_follow_the_layers(pairs):
    """An arrow that holds now leaves ``KNOWN``."""
    assert {pair for pair, holds in pairs.items() if not holds} == KNOWN


def test_no_modules_import_each_other_in_a_ring(pairs):
    assert not cycle(pairs)
    back = next((b, a) for a, b in pairs if b.startswith('mmmoco.functional.'))
    assert len(cycle({**pairs, back: True})) > 2


def test_a_layer_imports_lower_ones_only():
    seen = set()
    for _, rooms, _ in LAYERS:
        for room in rooms:
            assert allowed_rooms(room) <= seen | {room}
        seen.update(rooms)


@pytest.fixture(scope='module')
def imports():
    """(module, what it imports, whether at the top) of all of mmmoco."""
    return [
        (module_of(path), *found)
        for path in sources(PACKAGE)
        for found in imports_of(path)
    ]


def test_optional_libraries_are_imported_where_they_are_used(imports):
    assert len(imports) > 1000
    found = [(m, i) for m, i, top in imports if top and within(i, OPTIONAL)]
    assert not found


def test_nothing_imports_tools_or_tests(imports):
    outside = ('tools', 'demo', 'benchmarks', 'tests', 'configs', 'projects')
    assert not [(m, i) for m, i, _ in imports if within(i, outside)]


def test_the_rules_catch_an_upward_import(tmp_path):
    """The checker itself must be able to fail."""
    package = tmp_path / 'mmmoco'
    for name in ('functional', 'datasets', 'apis/config', 'apis/data'):
        (package / name).mkdir(parents=True)
        (package / name / '__init__.py').touch()
    for name in ('', 'apis/'):
        (package / f'{name}__init__.py').touch()
    (package / 'apis' / 'config' / 'files.py').write_text(
        'from ...datasets import x\n'
        'def f():\n    from ..data import y\n    from mmmoco import z\n'
    )
    assert arrows(tmp_path) == {
        ('mmmoco.apis.config.files', 'mmmoco.datasets'): True,
        ('mmmoco.apis.config.files', 'mmmoco.apis.data'): False,
        ('mmmoco.apis.config.files', 'mmmoco'): False,
    }


def test_no_folder_for_everything():
    folders = ('mmmoco', 'configs', 'tools', 'demo', 'benchmarks', 'tests')
    folders += ('projects',)
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
