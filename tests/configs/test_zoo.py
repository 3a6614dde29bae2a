"""The list of configs, and where they are found."""

import re
from collections import Counter
from pathlib import Path

import pytest

import mmmoco
from mmmoco.apis import load_config
from mmmoco.apis.lookup import RENAMED, config_root, resolve_config

from .names import NAMES, OWN
from .test_recipes import RECIPES
from .test_sizes import MILLIONS, PARAMETERS


def test_the_list_is_complete():
    assert 'mocov2_r50_8xb32' in NAMES and 'demo/mocov2_digits' in NAMES
    assert not [name for name in NAMES if '_base_' in name]
    assert mmmoco.list_configs('mocov2_digits') == ['demo/mocov2_digits']
    assert {*PARAMETERS, *MILLIONS, *RECIPES} <= set(NAMES)


@pytest.mark.parametrize('name', NAMES)
def test_config_opens_with_its_four_lines_and_is_short(name):
    lines = resolve_config(name).read_text().splitlines()
    assert all(line.startswith('# ') for line in lines[:4])
    for word, line in zip(('Hardware', 'Time', 'Metric'), lines[1:4]):
        assert line.startswith(f'# {word}: '), line
    if not name.startswith('demo/'):
        assert len(lines) < 40


def test_readme_and_metafile_name_every_config_and_no_other():
    import yaml

    readme = (config_root() / 'README.md').read_text()
    detectors = [n for n in NAMES if n.startswith('benchmarks/mmdet')]
    for name in (*OWN, *detectors):
        assert f'`{name}`' in readme, name
    named = re.findall(r'`([a-z]\w*_[\w-]*\dxb[\w-]*|demo/[\w-]+)`', readme)
    assert set(named) <= set(NAMES)
    meta = yaml.safe_load((config_root() / 'metafile.yml').read_text())
    # MIM keeps what it downloads in one folder.
    weights = [m['Weights'] for m in meta['Models'] if 'Weights' in m]
    assert len({Path(url).name for url in weights}) == len(weights) == 8
    assert all(url.startswith('https://') for url in weights)
    collections = {c['Name'] for c in meta['Collections']}
    for entry in meta['Models']:
        assert entry['In Collection'] in collections
        config = Path(entry['Config'])
        assert config.parts[0] == 'configs'
        name = config.relative_to('configs').with_suffix('').as_posix()
        assert name in NAMES
        assert entry['Name'] == config.stem
        assert entry['Metadata']['Source'] == 'published by the authors'
        if name in PARAMETERS:
            assert entry['Metadata']['Parameters'] == PARAMETERS[name]
        for result in entry['Results']:
            (figure,) = result['Metrics'].values()
            assert str(figure) in resolve_config(name).read_text()
            row = next(
                r for r in readme.splitlines() if r.startswith(f'| `{name}`')
            )
            assert str(figure) in row


def test_mim_finds_every_config_by_the_name_of_its_file():
    """It goes through all files of the package, configs or not."""
    package = Path(mmmoco.__file__).parent
    places = (package, config_root())
    paths = {p.resolve() for root in places for p in root.rglob('*.py')}
    files = Counter(path.name for path in paths)
    names = [Path(name).name for name in NAMES]
    assert {name: files[f'{name}.py'] for name in names} == dict.fromkeys(
        names, 1
    )


@pytest.mark.parametrize(('before', 'now'), RENAMED.items())
def test_names_of_before_are_found(before, now, tmp_path):
    assert resolve_config(before) == config_root() / f'{now}.py'
    path = tmp_path / 'mine.py'
    path.write_text(f"_base_ = 'mmmoco::{before}.py'\n")
    if 'mmdetection' not in before:  # It builds on mmdet's.
        assert load_config(str(path)).keys() == load_config(now).keys()


def test_base_of_another_package(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(
        "_base_ = 'mmmoco::mocov2_r50_8xb32.py'\n"
        'model = dict(loss=dict(temperature=0.1))\n'
    )
    cfg = load_config(str(path))
    assert cfg.model.loss.temperature == 0.1
    assert cfg.model.dictionary.size == 65536


@pytest.mark.downstream
@pytest.mark.parametrize(
    'base',
    [
        'mmpretrain::resnet/resnet50_8xb32_in1k.py',
        'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
        'mmseg::fcn/fcn_r50-d8_4xb4-20k_voc12aug-512x512.py',
    ],
)
def test_configs_of_the_other_libraries(base, tmp_path):
    assert load_config(base).model.backbone.type.startswith('ResNet')
    path = tmp_path / 'mine.py'
    path.write_text(f"_base_ = '{base}'\n")
    inherited = load_config(str(path)).model.to_dict()
    assert inherited.pop('_scope_') == base.partition('::')[0]
    assert inherited == load_config(base).model.to_dict()


def test_unknown_names_suggest_known_ones():
    with pytest.raises(FileNotFoundError, match='mocov2_r50_8xb32'):
        resolve_config('mocov2_r51')
    with pytest.raises(FileNotFoundError, match='nowhere::'):
        resolve_config('nowhere::x.py')
    with pytest.raises(KeyError, match='modle'):
        load_config('mocov2_r50_8xb32', {'modle.m': 0.9})


def test_the_type_of_the_data_can_be_changed_on_the_command_line():
    options = {
        'train_dataloader.dataset.type': 'TarShards',
        'train_dataloader.dataset.data_root': '/shards',
    }
    dataset = load_config('mocov2_r50_8xb32', options).train_dataloader.dataset
    assert set(dataset) == {'type', 'data_root', 'pipeline'}
    # What is given is not dropped, but refused.
    options['train_dataloader.dataset.data_prefix'] = 'x'
    with pytest.raises(KeyError, match='TarShards takes'):
        load_config('mocov2_r50_8xb32', options)


def test_the_checkout_and_the_package_show_the_same_configs():
    root = config_root()
    assert (root / '_base_' / 'default_runtime.py').is_file()
    assert Path(root).name == 'configs'
