"""Real files and runners: no file runs code, none is left half-written."""

import argparse
import http.server
import itertools
import multiprocessing
import os
import pickle
import resource
import shutil
import signal
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.infer import BaseInferencer
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.model.weight_init import PretrainedInit
from mmengine.runner import CheckpointLoader, Runner
from torch import nn
from torch.utils.data import DataLoader, Dataset

from mmmoco.apis.exchange.weight_files import encode
from mmmoco.engine import checkpoint_io
from mmmoco.engine.checkpoint_io import (
    CheckpointError,
    UnsafeCheckpointError,
    find_latest,
    load_into,
    read,
    remove_leftovers,
    require_resumable,
    state_dict_of,
    write,
    write_text,
)

from ..conftest import optional


class Tiny(BaseModel):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 2)

    def forward(self, inputs, mode='loss'):
        return {'loss': self.layer(inputs).square().mean()}


class Points(Dataset):
    metainfo = {
        'classes': ('a', 'b'),
        'palette': np.arange(6, dtype=np.uint8).reshape(2, 3),
        'ratio': np.float64(0.5),
    }

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return {'inputs': torch.full((3,), float(index))}


_counter = itertools.count()


def make_runner(work_dir, max_iters=2, **options):
    options.setdefault('model', Tiny())
    return Runner(
        work_dir=str(work_dir),
        train_dataloader=DataLoader(Points(), batch_size=2),
        train_cfg=dict(by_epoch=False, max_iters=max_iters),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
        param_scheduler=dict(type='LinearLR', by_epoch=False, end=4),
        default_hooks=dict(
            checkpoint=dict(
                type='CheckpointHook',
                by_epoch=False,
                interval=1,
                published_keys=['meta', 'state_dict'],
            )
        ),
        custom_hooks=[dict(type='EMAHook')],
        randomness=dict(seed=1),
        log_level='ERROR',
        experiment_name=f'checkpoint_io_{next(_counter)}',
        **options,
    )


@pytest.fixture(autouse=True)
def guarded():
    with checkpoint_io.guarded:
        yield


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """The work directory of a run of two iterations; copy it to change it."""
    work_dir = tmp_path_factory.mktemp('finished')
    with checkpoint_io.guarded:
        make_runner(work_dir).train()
    return work_dir


@pytest.fixture
def work_dir(finished, tmp_path):
    copy = shutil.copytree(finished, tmp_path / 'run')
    (copy / 'last_checkpoint').write_text(str(copy / 'iter_2.pth'))
    return copy


def assert_same(one, other):
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_same(*pair)
    elif isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    elif isinstance(one, np.ndarray | np.generic):
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)
    elif isinstance(one, HistoryBuffer):
        for mine, theirs in zip(one.data, other.data, strict=True):
            assert_same(mine, theirs)
        assert one.max_length == other.max_length
    else:
        assert one == other


# Reading what is honest


def test_full_runner_checkpoint_reads_as_without_restriction(finished):
    path = finished / 'iter_2.pth'
    everything = torch.load(path, weights_only=False)
    checkpoint = read(path)
    assert {'optimizer', 'param_schedulers', 'message_hub'} <= set(checkpoint)
    assert_same(checkpoint, everything)
    losses = checkpoint['message_hub']['log_scalars']['train/loss']
    assert losses.mean() == everything['message_hub']['log_scalars'][
        'train/loss'
    ].statistics('mean')


def test_numpy_in_all_layouts(tmp_path):
    checkpoint = {
        'empty': np.zeros((0, 3)),
        'fortran': np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        'big_endian': np.arange(4, dtype='>i2'),
        'text': np.array(['ab', 'ç']),
        'bool': np.array([True, False]),
        'scalars': [np.float32(1.5), np.int64(-3), np.bool_(True)],
        'dtype': np.dtype('float16'),
        'rng': np.random.RandomState(0).get_state(),
        'shared': [HistoryBuffer([1.0], [1])] * 2,
    }
    torch.save(checkpoint, tmp_path / 'a.pth')
    loaded = read(tmp_path / 'a.pth')
    assert_same(loaded, checkpoint)
    assert loaded['shared'][0] is loaded['shared'][1]
    loaded['empty'].resize(1)  # owns its memory


@pytest.mark.parametrize('zipped', [True, False])
def test_checkpoints_of_reference_implementations(tmp_path, zipped):
    layer = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(layer.parameters(), 0.1, momentum=0.9)
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    path = tmp_path / 'checkpoint_0199.pth.tar'
    torch.save(
        {
            'epoch': 200,
            'arch': 'resnet50',
            'state_dict': nn.DataParallel(layer).state_dict(),
            'optimizer': optimizer.state_dict(),
            'args': argparse.Namespace(lr=np.float64(1), mean=np.ones(3)),
        },
        path,
        _use_new_zipfile_serialization=zipped,
    )
    checkpoint = read(path)
    # Its content only: nothing of the file becomes an attribute.
    assert_same(checkpoint['args'], {'lr': np.float64(1), 'mean': np.ones(3)})
    assert_same(checkpoint['optimizer'], optimizer.state_dict())
    load_into(nn.Linear(2, 2), state_dict_of(checkpoint))


def test_resume_continues_the_run(work_dir, tmp_path):
    make_runner(tmp_path / 'whole', max_iters=4).train()
    resumed = make_runner(work_dir, max_iters=4, resume=True)
    resumed.train()
    assert resumed.iter == 4
    whole = read(tmp_path / 'whole/iter_4.pth')
    again = read(work_dir / 'iter_4.pth')
    for name in ('optimizer', 'param_schedulers'):
        assert_same(again[name], whole[name])
    losses = again['message_hub']['log_scalars']['train/loss']
    assert len(losses.data[0]) == 4


def test_safetensors(tmp_path):
    torch_part = optional('safetensors.torch')
    weights = {'a': torch.arange(3.0)}
    path = tmp_path / 'a.safetensors'
    torch_part.save_file(weights, path, metadata={'config': 'import os'})
    assert_same(
        read(path),
        {'state_dict': weights, 'meta': {'config_text': 'import os'}},
    )
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match='a.safetensors'):
        read(path)


def test_safetensors_library_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'safetensors', None)
    (tmp_path / 'a.safetensors').write_bytes(b'x')
    with pytest.raises(ImportError, match='pip install safetensors'):
        read(tmp_path / 'a.safetensors')


# Reading what is not


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


def damage_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


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


def test_file_without_checksums_reads(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({'a': torch.ones(2)}, tmp_path / 'a.pth')
    finally:
        torch.serialization.set_crc32_options(True)
    assert_same(read(tmp_path / 'a.pth'), {'a': torch.ones(2)})


# The newest good one


def test_find_latest(work_dir, tmp_path):
    assert find_latest(tmp_path) is None
    assert find_latest(work_dir) == str(work_dir / 'iter_2.pth')
    # By number, not by name or time; published and best ones are no states.
    shutil.copy(work_dir / 'iter_1.pth', work_dir / 'iter_10.pth')
    os.utime(work_dir / 'iter_10.pth', (0, 0))
    for name in ('best_acc_iter_20.pth', 'iter_30-12345678.pth', 'r50.pth'):
        torch.save({'state_dict': {}}, work_dir / name)
    (work_dir / 'r50.pth').unlink()
    assert find_latest(work_dir) == str(work_dir / 'iter_10.pth')


def test_all_unreadable_is_an_error(work_dir):
    for path in work_dir.glob('*.pth'):
        path.write_bytes(b'PK')
    with pytest.raises(CheckpointError, match='None of the 2'):
        find_latest(work_dir)


def test_weights_are_no_state_to_resume(work_dir):
    weights = {'state_dict': read(work_dir / 'iter_2.pth')['state_dict']}
    torch.save(weights, work_dir / 'iter_2.pth')
    with pytest.raises(CheckpointError, match='lacks optimizer.*load_from'):
        require_resumable(weights, work_dir / 'iter_2.pth')
    assert find_latest(work_dir) == str(work_dir / 'iter_1.pth')


def test_resume_skips_a_damaged_newest(work_dir):
    damage_half(work_dir / 'iter_2.pth')
    leftover = work_dir / '.iter_2.pth~another-host~1.tmp'
    leftover.write_bytes(b'half')
    make_runner(work_dir, max_iters=2, resume=True).train()
    losses = read(work_dir / 'iter_2.pth')['message_hub']['log_scalars']
    assert len(losses['train/loss'].data[0]) == 2
    assert not leftover.exists()


def latest_of_rank(rank, folder, store, report):
    from mmengine.runner import find_latest_checkpoint

    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{store}', rank=rank, world_size=2
    )
    for _ in range(2):
        try:
            # Rank 1 looks where there is nothing: rank 0 decides for both.
            path = find_latest_checkpoint(folder if rank == 0 else '/empty')
            report.send(path)
        except CheckpointError as error:
            report.send(str(error)[:4])
        torch.distributed.barrier()
        if rank == 0:
            for path in folder.glob('*.pth'):
                path.write_bytes(b'PK')


def test_rank_0_chooses_for_all(work_dir, tmp_path):
    pipes = [multiprocessing.Pipe(duplex=False) for _ in range(2)]
    processes = [
        fork(latest_of_rank, rank, work_dir, tmp_path / 'store', sender)
        for rank, (_, sender) in enumerate(pipes)
    ]
    for expected in (str(work_dir / 'iter_2.pth'), 'None'):
        for receiver, _ in pipes:
            assert receiver.poll(20)
            assert receiver.recv() == expected
    for process in processes:
        process.join()


# Writing


def alone(function, *arguments):
    # The threads that OpenMP started before the fork do not exist here.
    torch.set_num_threads(1)
    function(*arguments)


def fork(function, *arguments):
    process = multiprocessing.get_context('fork').Process(
        target=alone, args=(function, *arguments), daemon=True
    )
    process.start()
    return process


class Unpicklable:
    def __reduce__(self):
        raise ValueError('cannot be pickled')


@pytest.fixture
def target(tmp_path):
    path = tmp_path / 'checkpoint.pth'
    write({'a': torch.ones(2)}, path)
    yield path
    assert_same(read(path), {'a': torch.ones(2)})
    assert os.listdir(tmp_path) == [path.name]


def test_unpicklable_object_leaves_the_old_file(target):
    with pytest.raises(ValueError, match='cannot be pickled'):
        write({'a': torch.zeros(2), 'b': Unpicklable()}, target)


def test_interruption_leaves_the_old_file(target):
    class Interrupt:
        def __reduce__(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write({'b': Interrupt()}, target)


def write_over_quota(path, report):
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
    for save in (
        lambda: write({'a': torch.zeros(1 << 17)}, path),
        lambda: write_text(path, 'a' * (1 << 17)),
    ):
        try:
            save()
        except OSError as error:
            report.send((error.errno, str(error)))


def test_full_disk_leaves_the_old_file(target):
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = fork(write_over_quota, target, sender)
    for _ in range(2):
        assert receiver.poll(10)
        errno, message = receiver.recv()
        assert errno == 27  # EFBIG
        assert str(target) in message and 'untouched' in message
    process.join()
    assert process.exitcode == 0


def test_no_such_place(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(OSError, match='could not be saved'):
        write({}, tmp_path / 'file/a.pth')


def test_kill_during_a_save_leaves_the_old_file(target):
    large = {'a': torch.zeros(1 << 26)}  # 256 MB
    process = fork(write, large, target)
    deadline = time.monotonic() + 20
    unfinished = []
    while time.monotonic() < deadline:
        unfinished = list(target.parent.glob('.*.tmp'))
        if unfinished and unfinished[0].stat().st_size > 1 << 20:
            break
    assert not remove_leftovers(target.parent)  # its process lives
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert_same(read(target), {'a': torch.ones(2)})
    assert remove_leftovers(target.parent) == unfinished


def test_runner_saves_through_us(tmp_path, monkeypatch):
    """Checkpoint, pointer and published file appear by renaming only."""
    renamed = []
    replace = Path.replace

    def note(self, other):
        renamed.append(Path(other).name)
        return replace(self, other)

    monkeypatch.setattr(Path, 'replace', note)
    make_runner(tmp_path, max_iters=1).train()
    published = next(tmp_path.glob('iter_1-*.pth'))
    assert renamed == ['iter_1.pth', 'last_checkpoint', published.name]
    assert set(read(published)) == {'meta', 'state_dict'}
    pointer = (tmp_path / 'last_checkpoint').read_text()
    assert pointer == str(tmp_path / 'iter_1.pth')


# Weights


def test_state_dict_of():
    weights = {'module.layer.weight': torch.ones(2), 'b': torch.ones(1)}
    for checkpoint in ({'state_dict': weights}, {'model': weights}, weights):
        assert list(state_dict_of(checkpoint)) == ['layer.weight', 'b']
    for checkpoint in ({}, {'epoch': 1, 'model_ema': weights}):
        with pytest.raises(CheckpointError, match='No weights found'):
            state_dict_of(checkpoint)


def test_state_dict_of_keeps_versions(tmp_path):
    torch.save(nn.BatchNorm1d(2).state_dict(), tmp_path / 'a.pth')
    state = state_dict_of(read(tmp_path / 'a.pth'))
    assert state._metadata['']['version'] == 2


def test_load_into_says_all_in_one_line():
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    state = dict(module.state_dict())
    filled = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    load_into(filled, state)
    assert_same(dict(filled.state_dict()), state)

    state['0.weight'] = torch.ones(5, 2)
    state['head.weight'] = state['head.bias'] = torch.ones(1)
    del state['1.running_mean'], state['1.running_var']
    with pytest.raises(CheckpointError) as error:
        load_into(filled, state, 'a.pth')
    assert str(error.value) == (
        'a.pth does not fit Sequential: 3 of 6 tensors fit; 2 missing in the '
        'file: 1.running_mean, 1.running_var; 1 of another shape: 0.weight '
        '(5, 2) for (3, 2); 2 unknown to the model: head.weight, head.bias.'
    )


def test_load_into_allows_only_what_is_named():
    module = nn.ModuleDict(
        {'backbone': nn.Linear(1, 1), 'fc': nn.Linear(1, 1)}
    )
    state = {'backbone.weight': torch.ones(1, 1), 'head.bias': torch.ones(1)}
    allow = dict(allow_missing=['fc.*'], allow_extra=['head.*'])
    with pytest.raises(CheckpointError, match=r'backbone\.bias') as error:
        load_into(module, state, **allow)
    assert 'fc.weight' not in str(error.value)
    assert 'head' not in str(error.value)
    state['backbone.bias'] = torch.ones(1)
    load_into(module, state, **allow)
    assert module['backbone'].weight.item() == 1


@pytest.mark.parametrize('layout', ['archive', 'before 1.6', 'safetensors'])
def test_meta_is_read_without_the_tensors(tmp_path, layout):
    """A large file tells how it was trained at once."""
    if layout == 'safetensors':
        optional('safetensors')
    text = 'model = dict(m=0.99)'
    content = {
        'state_dict': {'w': torch.randn(1000)},
        'meta': {'cfg': text},
    }
    path = tmp_path / 'a.pth'
    if layout == 'safetensors':
        path = path.with_suffix('.safetensors')
        path.write_bytes(
            encode(content['state_dict'], content['meta'], '.safetensors')
        )
    else:
        torch.save(
            content,
            path,
            _use_new_zipfile_serialization=layout == 'archive',
        )
    noise = content['state_dict']['w'].numpy().tobytes()
    damaged = path.read_bytes().replace(noise, b'x' * len(noise))
    assert noise not in damaged
    path.write_bytes(damaged)
    meta = checkpoint_io.read_meta(path)
    assert meta['cfg'] == text
    assert checkpoint_io.config_in(meta) == {'model': {'m': 0.99}}
    if layout == 'archive':
        with pytest.raises(CheckpointError, match='checksum'):
            read(path)


@pytest.mark.parametrize('content', [[1], {'meta': [1]}, {'w': 1}])
def test_a_file_without_meta_tells_nothing(tmp_path, content):
    torch.save(content, tmp_path / 'a.pth')
    meta = checkpoint_io.read_meta(tmp_path / 'a.pth')
    assert meta == {} and checkpoint_io.config_in(meta) is None
    assert checkpoint_io.config_in({'cfg': 'a = open("x")'}) is None
