"""Each place where OpenMMLab's libraries read a checkpoint, and what is left.

While we run, all go through the restricted reader; afterwards, all of them
are the libraries' own again.
"""

import ast
import gc
import os
import pickle
import sys
import types
from importlib.util import find_spec
from pathlib import Path

import mmengine.runner.checkpoint as theirs
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import checkpoint_hook
from mmengine.infer import BaseInferencer
from mmengine.registry import DefaultScope
from mmengine.runner import CheckpointLoader, load_checkpoint

import mmmoco
from mmmoco.engine import checkpoint_io
from mmmoco.engine.checkpoint_io import UnsafeCheckpointError, guarded
from mmmoco.engine.pretrained import initialize
from mmmoco.engine.runner import ContrastRunner
from mmmoco.registry import MODELS

from ..conftest import optional

#: Calls that read pickles, by file. The first three are replaced, with all
#: that lies behind them. The others read no checkpoint of a run: data sets,
#: exchanges between processes, demos, caches that a config names.
READERS = {
    'mmengine/runner/checkpoint.py',
    'mmengine/utils/dl_utils/hub.py',
    'mmengine/dist/dist.py',
    'mmengine/dataset/base_dataset.py',
    'mmengine/fileio/handlers/pickle_handler.py',
    'mmpretrain/apis/multimodal_retrieval.py',
    'mmpretrain/datasets/cifar.py',
    'mmpretrain/engine/hooks/swav_hook.py',
    'mmpretrain/models/multimodal/ram/gradio_demo.py',
    'mmpretrain/models/multimodal/ram/openset_utils.py',
    'mmpretrain/models/multimodal/ram/ram.py',
    'mmpretrain/models/retrievers/image2image.py',
    'mmpretrain/models/utils/vector_quantizer.py',
    'mmdet/evaluation/metrics/base_video_metric.py',
    'mmdet/utils/dist_utils.py',
    'mmseg/utils/io.py',
}
LIBRARIES = ('mmengine', 'mmcv', 'mmpretrain', 'mmdet', 'mmseg')
CALLS = {'torch.load', 'pickle.load', 'pickle.loads', 'joblib.load'}


def readers_in(folder):
    for path in folder.rglob('*.py'):
        if '.mim' in path.parts:
            continue
        text = path.read_text(encoding='utf-8')
        if not ('torch' in text or 'pickle' in text):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in CALLS:
                yield path.relative_to(folder.parent).as_posix()
                break


@pytest.mark.parametrize('library', LIBRARIES)
def test_no_library_reads_in_a_place_that_is_not_known(library):
    optional(library)
    (folder,) = find_spec(library).submodule_search_locations
    found = set(readers_in(Path(folder)))
    known = {place for place in READERS if place.startswith(f'{library}/')}
    assert found <= known


class Armed:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f'touch {self.marker}',)


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """A file in the cache of all URLs, that makes a marker if it is run."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    monkeypatch.setenv('MMENGINE_HOME', str(tmp_path))
    path = tmp_path / 'hub/checkpoints/a.pth'
    path.parent.mkdir(parents=True)
    marker = tmp_path / 'marker'
    torch.save({'state_dict': {'a': Armed(marker)}}, path)
    torch.load(path, weights_only=False)
    assert marker.exists()  # It is armed.
    marker.unlink()
    url = 'https://nowhere.invalid/a.pth'
    for models in ('torchvision', 'mmcls', 'external'):
        monkeypatch.setattr(theirs, f'get_{models}_models', lambda: {'a': url})
    store = types.SimpleNamespace(get=lambda _: path.read_bytes())
    monkeypatch.setattr(theirs, 'get_file_backend', lambda *_, **__: store)
    remote = types.SimpleNamespace(
        name='a.pth',
        download=lambda to: Path(to).write_bytes(path.read_bytes()),
    )
    cloud = types.SimpleNamespace(get=lambda _: remote)
    pavi = types.SimpleNamespace(modelcloud=cloud)
    monkeypatch.setitem(sys.modules, 'pavi', pavi)
    return path, marker


PLACES = {
    '': '{path}',
    'http://': 'http://nowhere.invalid/a.pth',
    'https://': 'https://nowhere.invalid/a.pth',
    'pavi://': 'pavi://a.pth',
    r'(\S+\:)?s3://': 's3://a.pth',
    r'(\S+\:)?petrel://': 'petrel://a.pth',
    'modelzoo://': 'modelzoo://a',
    'torchvision://': 'torchvision://a',
    'open-mmlab://': 'open-mmlab://a',
    'openmmlab://': 'openmmlab://a',
    'mmcls://': 'mmcls://a',
}


def test_every_scheme_of_mmengine_is_tried():
    assert set(PLACES) == set(CheckpointLoader._schemes)


@pytest.mark.parametrize('place', PLACES.values())
def test_every_scheme_refuses_code(hostile, place):
    path, marker = hostile
    with guarded, pytest.raises(UnsafeCheckpointError):
        CheckpointLoader.load_checkpoint(place.format(path=path))
    assert not marker.exists()


@pytest.mark.parametrize('prefix', [None, 'a.'])
def test_each_process_of_ours_refuses_code(hostile, small_config, prefix):
    """Also where nothing but the model's ``init_cfg`` reads."""
    path, marker = hostile
    cfg = small_config()
    cfg.model.backbone.init_cfg = dict(
        type='Pretrained', checkpoint=str(path), prefix=prefix
    )
    with pytest.raises(UnsafeCheckpointError):
        mmmoco.get_model(cfg)
    with DefaultScope.overwrite_default_scope('mmmoco'):
        model = MODELS.build(cfg.model)
    with pytest.raises(UnsafeCheckpointError):
        initialize(model)
    assert not marker.exists()


def test_a_runner_built_by_others_refuses_code(
    hostile, small_config, monkeypatch
):
    """OpenMMLab's own tools build it; a teacher is read meanwhile."""
    path, marker = hostile

    class Taught(MODELS.get('MoCoV2')):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            load_checkpoint(self, str(path))

    monkeypatch.setitem(MODELS.module_dict, 'MoCoV2', Taught)
    with pytest.raises(UnsafeCheckpointError):
        ContrastRunner.from_cfg(small_config())
    assert not marker.exists()


# What is left


@pytest.fixture(autouse=True)
def settled():
    gc.collect()  # Hooks of other tests' runs that failed


def state():
    """Return what was ours while we ran, by identity."""
    from mmpretrain.datasets import custom

    modules = [
        sys.modules[name]
        for name in sorted(sys.modules)
        if name.startswith(('mmengine.runner', 'mmengine.config'))
    ]
    owners = [
        *modules,
        checkpoint_hook,
        custom,
        BaseInferencer,
        CheckpointLoader,
        Config,
        pickle,
        torch.serialization,
    ]
    return {
        (owner.__name__, name): id(value)
        for owner in owners
        for name, value in vars(owner).items()
    }


def assert_left(before):
    changed = {k for k, v in state().items() if before.get(k) != v}
    assert not changed and before.keys() == state().keys()


def test_the_context_gives_everything_back():
    before = state()
    with guarded:
        ours = state()
        assert {k for k in ours if ours[k] != before.get(k)} >= {
            ('mmengine.runner.checkpoint', 'torch'),
            ('mmengine.runner.runner', 'save_checkpoint'),
            ('mmengine.hooks.checkpoint_hook', 'open'),
        }
        with guarded:
            pass
        assert state() == ours  # Who entered first still needs it.
    assert_left(before)


def test_the_context_gives_everything_back_after_an_error():
    before = state()
    with pytest.raises(KeyError), guarded:
        raise KeyError
    assert_left(before)


def test_a_model_and_a_config_leave_nothing(tmp_path):
    (tmp_path / 'a.py').write_text("_base_ = 'mmmoco::demo/mocov2_digits.py'")
    before = state()
    model = mmmoco.get_model(str(tmp_path / 'a.py'))
    assert_left(before)
    path = tmp_path / 'a.pth'
    checkpoint_io.write({'state_dict': model.state_dict()}, path)
    mmmoco.get_model(str(tmp_path / 'a.py'), str(path))
    assert_left(before)


def test_another_mmengine_is_an_error(monkeypatch):
    monkeypatch.delattr(theirs, 'load_url')
    before = state()
    with pytest.raises(RuntimeError, match='load_url'), guarded:
        pass
    assert_left(before)
