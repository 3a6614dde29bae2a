"""Which line of OpenMMLab is installed, told from made-up installations."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from mmmoco.apis.process import lacks_openmmlab, tidy
from mmmoco.openmmlab import (
    DISTRIBUTIONS,
    OPS,
    explain_refusal,
    how_to_compile,
    how_to_install,
    owner_of,
    require_one_line,
)

ROOT = Path(__file__).parents[1]


def install(site, name, package, version, *, files=True):
    """Write what pip leaves of a package."""
    (site / package).mkdir(parents=True, exist_ok=True)
    (site / package / '__init__.py').touch()
    info = site / f'{name.replace("-", "_")}-{version}.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text(
        f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n'
    )
    listed = f'{package}/__init__.py,,\n' if files else ''
    (info / 'RECORD').write_text(listed)


@pytest.fixture
def first(tmp_path, monkeypatch):
    """A folder in front of, and one behind it on, the path."""
    places = tmp_path / 'first', tmp_path / 'second'
    for place in reversed(places):
        place.mkdir()
        monkeypatch.syspath_prepend(str(place))
    for package in DISTRIBUTIONS:  # find_spec asks what is imported first.
        monkeypatch.delitem(sys.modules, package, raising=False)
    return places


@pytest.mark.parametrize('package', DISTRIBUTIONS)
def test_two_owners_of_the_same_files_are_refused(first, package):
    names = DISTRIBUTIONS[package]
    install(first[0], names[0], package, '2.3')
    install(first[0], names[1], package, '2.1')
    with pytest.raises(ImportError, match='wrote over each other') as error:
        require_one_line()
    said = str(error.value)
    assert f'uninstall -y {names[0]} {names[1]}' in said
    assert f'{names[0]}==2.3 or ' in said and f'{names[1]}==2.1.' in said


@pytest.mark.parametrize('package', DISTRIBUTIONS)
@pytest.mark.parametrize('front', [0, 1])
def test_an_overlay_owns_what_is_imported(first, package, front):
    names = DISTRIBUTIONS[package]
    install(first[0], names[front], package, '1.0')
    install(first[1], names[1 - front], package, '2.0')
    require_one_line()
    assert owner_of(package).metadata['Name'] == names[front]
    assert owner_of(package).version == '1.0'


def test_what_is_installed_here_is_one_line():
    require_one_line()
    import mmengine

    assert owner_of('mmengine').version == mmengine.__version__
    assert owner_of('nothing_of_this_name') is None


@pytest.mark.parametrize('line', [0, 1])
def test_what_is_missing_is_named_of_the_line_that_is_there(
    first, monkeypatch, line
):
    there = {'mmengine': first[0] / 'mmengine' / '__init__.py'}
    monkeypatch.setattr('mmmoco.openmmlab._place', there.get)
    install(first[0], DISTRIBUTIONS['mmengine'][line], 'mmengine', '1.0')
    monkeypatch.setattr(
        'mmmoco.openmmlab._installed',
        lambda name: name == DISTRIBUTIONS['mmengine'][line],
    )
    named = [DISTRIBUTIONS[name][line] for name in ('mmdet', 'mmseg')]
    assert how_to_install('mmdet', 'mmseg') == f'pip install {" ".join(named)}'
    there.clear()
    said = how_to_install('mmdet')
    assert 'onedl-mmdetection' in said and 'install mmdet ' in said


def test_the_package_says_so_where_it_is_imported(tmp_path):
    for name in DISTRIBUTIONS['mmengine']:
        install(tmp_path, name, 'mmengine', '1.0')
    done = subprocess.run(
        [sys.executable, '-c', 'import mmmoco'],
        env={'PYTHONPATH': f'{tmp_path}:{ROOT}'},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith('ImportError: onedl-mmengine and mmengine are both')


@pytest.mark.parametrize(
    ('line', 'named'), [(0, 'onedl-mmcv'), (1, 'mmcv'), (2, 'mmcv')]
)
def test_how_to_get_compiled_ops(first, monkeypatch, line, named):
    name = DISTRIBUTIONS['mmcv'][line]
    install(first[0], name, 'mmcv', '2.1')
    monkeypatch.setattr('mmmoco.openmmlab._installed', name.__eq__)
    said = how_to_compile(ImportError('none', name=OPS))
    assert 'lacks (none)' in said
    assert said.count('uninstall -y mmcv-lite; ') == (line == 2)
    assert f'--no-build-isolation {named}==2.1; ' in said
    other = ImportError('undefined symbol', name=OPS, path='_ext.so')
    assert 'has for another torch (undef' in how_to_compile(other)


def test_a_job_that_lacks_compiled_ops_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, OPS, None)

    @tidy
    def job():
        import_module(OPS)

    with pytest.raises(ImportError, match='compiled ops of mmcv') as error:
        job()
    assert lacks_openmmlab(error.value)


#: As mmdet 3.3.0 and mmsegmentation 1.2.2 check the version of mmcv; the
#: second does not say what it would take.
CHECKS = {
    'mmdet': """
mmcv_maximum_version = '2.2.0'
assert False, (
    'MMCV==2.3.6 is used but incompatible. Please install mmcv>=2.0.0rc4, '
    '<2.2.0.'
)
""",
    'mmseg': """
MMCV_MAX = '2.2.0'
mmcv_max_version = (2, 2, 0)
assert False, (
    'MMCV==2.3.6 is used but incompatible. Please install mmcv>=2.0.0rc4.'
)
""",
}


@pytest.mark.parametrize('package', CHECKS)
@pytest.mark.parametrize(
    ('mmcv', 'mend'),
    [
        ('mmcv', 'pip install "mmcv<2.2.0".'),
        ('onedl-mmcv', 'pip uninstall -y {}, then pip install onedl-'),
    ],
)
def test_a_refused_mmcv_is_explained(first, package, mmcv, mend):
    name = DISTRIBUTIONS[package][1]
    install(first[0], name, package, '1.2')
    (first[0] / package / '__init__.py').write_text(CHECKS[package])
    install(first[0], mmcv, 'mmcv', '2.3.6')
    with pytest.raises(AssertionError) as error:
        import_module(package)
    said = explain_refusal(error.value)
    assert said.startswith(f'{name} 1.2 takes mmcv below 2.2.0, and {mmcv} ')
    assert str(first[0] / 'mmcv') in said and mend.format(name) in said


@pytest.mark.parametrize('text', ['assert False', 'assert 0, "MMCV is odd"'])
def test_other_assertions_stay(first, text):
    (first[0] / 'mmdet').mkdir()
    (first[0] / 'mmdet' / '__init__.py').write_text(text)
    with pytest.raises(AssertionError) as error:
        import_module('mmdet')
    assert explain_refusal(error.value) is None


@pytest.mark.parametrize('said', [None, 'takes mmcv below 2.2.0'])
def test_a_job_ends_with_the_explanation(monkeypatch, said):
    @tidy
    def job():
        raise AssertionError('MMCV')

    monkeypatch.setattr('mmmoco.apis.process.explain_refusal', lambda _: said)
    with pytest.raises(ImportError if said else AssertionError, match=said):
        job()
