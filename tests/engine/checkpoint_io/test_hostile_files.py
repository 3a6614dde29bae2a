"""No file runs code; what is damaged is named."""

import http.server
import os
import pickle
import shutil
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.infer import BaseInferencer
from mmengine.logging import HistoryBuffer
from mmengine.model.weight_init import PretrainedInit
from mmengine.runner import CheckpointLoader
from torch import nn

from mmmoco.engine.checkpoint_io import (
    CheckpointError,
    UnsafeCheckpointError,
    find_latest,
    read,
)

from ...conftest import optional, since_torch
from .tiny_runs import Tiny, assert_same, damage_half, make_runner


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call

    def __call__(self):
        raise AssertionError


def get(value, name):
    return Call(getattr, value, name)


def through_getattr(code):
    """From a method of an allowed class to exec, by getattr alone."""
    module = get(get(HistoryBuffer, 'update'), '__globals__')
    builtins = Call(get(module, 'get'), '__builtins__')
    return Call(Call(get(builtins, 'get'), 'exec'), code)


def as_optimizer_state(gadget):
    return {
        'state_dict': Tiny().state_dict(),
        'meta': {'epoch': 0, 'iter': 1},
        'message_hub': {
            'log_scalars': {},
            'runtime_info': {},
            'resumed_keys': {},
        },
        'optimizer': {'state': {0: gadget}, 'param_groups': []},
    }


def save_raw(value, path):
    Path(path).write_bytes(pickle.dumps(value, protocol=4))


save_legacy = partial(torch.save, _use_new_zipfile_serialization=False)
GADGETS = {
    'system': (lambda s, _: Call(os.system, s), torch.save),
    'exec': (lambda _, p: Call(exec, p), torch.save),
    'eval': (lambda _, p: Call(eval, p), torch.save),
    'getattr': (lambda _, p: through_getattr(p), torch.save),
    'optimizer': (
        lambda s, _: as_optimizer_state(Call(os.system, s)),
        torch.save,
    ),
    'legacy': (
        lambda s, _: as_optimizer_state(Call(os.system, s)),
        save_legacy,
    ),
    'raw pickle': (lambda s, _: Call(os.system, s), save_raw),
}


@pytest.fixture(params=GADGETS)
def hostile(request, tmp_path):
    """A file, and the marker that it makes if anything in it is run."""
    make, save = GADGETS[request.param]
    path, marker = tmp_path / 'hostile.pth', tmp_path / 'marker'
    save(make(f'touch {marker}', f'open({str(marker)!r}, "w").close()'), path)
    # It is loaded, armed:
    if save is save_raw:
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    marker.unlink()
    return path, marker


def test_hostile_file_is_refused(hostile):
    path, marker = hostile
    with pytest.raises(UnsafeCheckpointError) as error:
        read(path)
    assert not marker.exists()
    message = str(error.value)
    assert str(path) in message and '\n' not in message
    assert 'save only the tensors' in message


def test_refusal_names_the_culprit(tmp_path):
    for function in (os.system, eval, getattr):
        torch.save(Call(function, '1', '1'), tmp_path / 'a.pth')
        with pytest.raises(UnsafeCheckpointError, match=function.__name__):
            read(tmp_path / 'a.pth')


def resume(path, folder):
    make_runner(folder, load_from=str(path), resume=True).train()


def load_from(path, folder):
    make_runner(folder, load_from=str(path)).train()


def resume_latest(path, folder):
    folder.mkdir()
    shutil.copy(path, folder / 'iter_1.pth')
    (folder / 'last_checkpoint').write_text(str(folder / 'iter_1.pth'))
    make_runner(folder, resume=True).train()


def pretrained(path, folder):
    model = Tiny()
    model.init_cfg = dict(type='Pretrained', checkpoint=str(path))
    model.init_weights()


def pretrained_prefix(path, folder):
    PretrainedInit(str(path), prefix='backbone.')(Tiny())


ROUTES = [resume, load_from, resume_latest, pretrained, pretrained_prefix]


@pytest.mark.parametrize('route', ROUTES)
@pytest.mark.parametrize('hostile', ['optimizer', 'legacy'], indirect=True)
def test_hostile_file_is_refused_by_mmengine(hostile, route, tmp_path):
    path, marker = hostile
    refused = CheckpointError
    if route is not resume_latest:  # which finds no usable file at all
        refused = UnsafeCheckpointError
    with pytest.raises(refused):
        route(path, tmp_path / 'work_dir')
    assert not marker.exists()


@pytest.mark.parametrize('hostile', ['system'], indirect=True)
def test_hostile_file_is_refused_by_other_loaders(hostile, monkeypatch):
    path, marker = hostile
    monkeypatch.setenv('MMENGINE_HOME', str(path.parent))
    path.with_name('open_mmlab.json').write_text('{"a": "hostile.pth"}')
    with pytest.raises(UnsafeCheckpointError):
        CheckpointLoader.load_checkpoint('openmmlab://a')
    assert not marker.exists()


def test_missing_file_is_explained_by_mmengine_too(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'a\.pth.*Check the path'):
        load_from(tmp_path / 'a.pth', tmp_path)


@pytest.mark.parametrize('hostile', ['system'], indirect=True)
def test_hostile_download_is_refused(hostile, finished, monkeypatch, tmp_path):
    path, marker = hostile
    shutil.copy(finished / 'iter_1.pth', path.with_name('good.pth'))
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    handler = partial(
        http.server.SimpleHTTPRequestHandler, directory=str(path.parent)
    )
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f'http://127.0.0.1:{server.server_port}'
        with pytest.raises(UnsafeCheckpointError):
            CheckpointLoader.load_checkpoint(f'{url}/hostile.pth')
        good = CheckpointLoader.load_checkpoint(f'{url}/good.pth')
        server.shutdown()
    assert not marker.exists()
    assert_same(good, read(finished / 'iter_1.pth'))
    cached = tmp_path / 'cache/hub/checkpoints/good.pth'
    cached.write_bytes(cached.read_bytes()[:100])
    with pytest.raises(CheckpointError, match='downloaded again'):
        CheckpointLoader.load_checkpoint(f'{url}/good.pth')


def test_torchscript_is_refused(tmp_path):
    example = torch.ones(1, 1)
    torch.jit.trace(nn.Linear(1, 1), example).save(str(tmp_path / 'a.pt'))
    with pytest.raises(UnsafeCheckpointError, match='TorchScript') as error:
        read(tmp_path / 'a.pt')
    assert len(str(error.value)) < 500


def test_pickle_named_safetensors_runs_nothing(tmp_path):
    optional('safetensors')
    path, marker = tmp_path / 'a.safetensors', tmp_path / 'marker'
    torch.save(Call(os.system, f'touch {marker}'), path)
    with pytest.raises(CheckpointError):
        read(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    'forged',
    [
        # Objects laid over raw bytes are pointers of the file's choice.
        Call(np.ndarray, (1,), 'O', bytearray(8)),
        np.array([{}], dtype=object),
        np.zeros(1, dtype=[('a', 'O')]),
        np.dtype([('a', 'i4')]),
        print,
        {'a': [(nn.Linear,)]},
        torch.optim.SGD([nn.Parameter(torch.ones(1))], 0.1),
    ],
)
def test_only_plain_data(tmp_path, forged):
    torch.save({'state_dict': {}, 'extra': forged}, tmp_path / 'a.pth')
    with pytest.raises(UnsafeCheckpointError):
        read(tmp_path / 'a.pth')


def test_allowed_functions_do_not_stay_as_values(tmp_path):
    rebuild = torch._utils._rebuild_tensor_v2  # on torch's own list
    for place in ({'items': rebuild}, [rebuild], {rebuild}, (1, rebuild)):
        torch.save({'a': place}, tmp_path / 'a.pth')
        with pytest.raises(UnsafeCheckpointError):
            read(tmp_path / 'a.pth')


@since_torch('2.5')
def test_allowances_of_other_libraries_do_not_count(tmp_path):
    marker = tmp_path / 'marker'
    code = f'open({str(marker)!r}, "w").close()'
    torch.save(Call(exec, code), tmp_path / 'a.pth')
    with torch.serialization.safe_globals([exec]):
        allowed = set(torch.serialization.get_safe_globals())
        with pytest.raises(UnsafeCheckpointError):
            read(tmp_path / 'a.pth')
        assert set(torch.serialization.get_safe_globals()) == allowed
        assert not marker.exists()
        torch.load(tmp_path / 'a.pth', weights_only=True)
        assert marker.exists()


def test_config_text_is_not_executed(work_dir, tmp_path):
    marker = tmp_path / 'marker'
    text = f'open({str(marker)!r}, "w").close()\ngpu_ids = [0, 1]'
    path = work_dir / 'iter_2.pth'
    checkpoint = read(path)
    checkpoint['meta'].update(config=text, cfg=text)
    checkpoint['message_hub']['runtime_info']['cfg'] = text
    torch.save(checkpoint, path)
    Config.fromstring(text, '.py')  # it is live
    marker.unlink()

    runner = make_runner(work_dir, max_iters=3, resume=True)
    runner.train()
    assert runner.iter == 3
    with pytest.raises(CheckpointError, match='Give the config'):
        BaseInferencer._init_model(object(), Config(), str(path))
    assert not marker.exists()
    assert read(path)['meta']['config_text'] == text


def damage_nothing(path):
    path.unlink()


def damage_one_bit(path):
    content = bytearray(path.read_bytes())
    weights = read(path)['state_dict']['layer.weight'].numpy().tobytes()
    content[content.index(weights)] ^= 1
    path.write_bytes(content)


DAMAGES = {
    'missing': (damage_nothing, FileNotFoundError),
    'empty': (lambda path: path.write_bytes(b''), CheckpointError),
    'text': (lambda path: path.write_text('hello, world'), CheckpointError),
    'half': (damage_half, CheckpointError),
    'one bit': (damage_one_bit, CheckpointError),
    'tensor': (lambda path: torch.save(torch.ones(1), path), CheckpointError),
    'folder': (lambda path: (path.unlink(), path.mkdir()), CheckpointError),
}


@pytest.mark.parametrize('damage', DAMAGES)
def test_damaged_file(work_dir, damage):
    function, expected = DAMAGES[damage]
    path = work_dir / 'iter_2.pth'
    function(path)
    with pytest.raises(expected, match='iter_2.pth') as error:
        read(path)
    assert not isinstance(error.value, UnsafeCheckpointError)
    assert '\n' not in str(error.value)
    assert find_latest(work_dir) == str(work_dir / 'iter_1.pth')


@since_torch('2.6')
def test_file_without_checksums_reads(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({'a': torch.ones(2)}, tmp_path / 'a.pth')
    finally:
        torch.serialization.set_crc32_options(True)
    assert_same(read(tmp_path / 'a.pth'), {'a': torch.ones(2)})
