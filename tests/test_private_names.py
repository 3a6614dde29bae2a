"""Private names of mmengine and torch: used in one place, still there."""

import ast
import inspect
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.hooks import CheckpointHook
from mmengine.logging import MMLogger
from mmengine.optim import LinearLR, OptimWrapper
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner
from mmengine.visualization import LocalVisBackend, Visualizer
from mmpretrain.models import VisionTransformer
from torch import nn
from torch.utils.data import DataLoader

from mmmoco import private_names as ours
from mmmoco.private_names import Shared, replaced
from tests.import_graph import ROOT, sources

PACKAGE = ROOT / 'mmmoco'
#: Where they may be used.
PLACES = {
    'private_names.py',
    'older_versions.py',
    'engine/checkpoint_io/guard.py',
}
#: Python and torch document these, or a library exports them.
PUBLIC = {'_asdict', '_fields', '_exit', '_ParamScheduler'}
#: Our subclasses use or override these of their own class.
INHERITED = {
    Runner: {
        '_has_loaded',
        '_init_model_weights',
        '_load_from',
        '_maybe_compile',
        '_resume',
        '_test_loop',
        '_train_dataloader',
        '_train_loop',
    },
    EpochBasedTrainLoop: {'_epoch'},
    CheckpointHook: {'_save_checkpoint_with_step'},
    OptimWrapper: {'_clip_grad'},
    BaseDataset: {'_metainfo'},
    nn.BatchNorm2d: {'_check_input_dim'},
    VisionTransformer: {'_freeze_stages'},
}


def private(name):
    return re.fullmatch(r'_[A-Za-z]\w*', name) and name not in PUBLIC


def names_in(tree):
    """Yield (private name, whether it is made here, whether of self)."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name('self' | 'cls'), attr=name):
                yield name, isinstance(node.ctx, ast.Store), True
            case ast.Attribute(attr=name):
                yield name, False, False
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, True, False
            case ast.Name(id=name, ctx=ast.Store()):
                yield name, True, False
            case ast.ImportFrom(module=module, level=0):
                if not (module or '').startswith('mmmoco'):
                    yield from ((n.name, False, False) for n in node.names)
            case ast.Call(func=ast.Name('getattr' | 'setattr' | 'hasattr')):
                if isinstance(node.args[1], ast.Constant):
                    yield node.args[1].value, False, False


def foreign_names(trees):
    """Return (place, name) for what nobody here makes."""
    found = {
        place: [
            (n, made, own) for n, made, own in names_in(tree) if private(n)
        ]
        for place, tree in trees.items()
    }
    known = {n for names in found.values() for n, made, _ in names if made}
    inherited = set().union(*INHERITED.values())
    return {
        (place, name)
        for place, names in found.items()
        for name, _, own in names
        if name not in known
        and not (own and name in inherited)
        and not name.startswith('_foreach_')
        and name not in NAMED_TUPLE
    }


#: Of python's named tuples: documented, in spite of their names.
NAMED_TUPLE = {'_replace', '_fields', '_asdict', '_make'}


def trees():
    return {
        path.relative_to(PACKAGE).as_posix(): ast.parse(
            path.read_text(encoding='utf-8')
        )
        for path in sources(PACKAGE)
    }


def test_each_private_name_is_used_in_one_module():
    found = foreign_names(trees())
    assert not {each for each in found if each[0] not in PLACES}
    assert {place for place, _ in found} == PLACES


def test_the_search_finds_what_it_should():
    code = """
class A(B):
    _made = 1

    def f(self, x):
        self._train_loop, self._made, self._other, x._some
        getattr(x, '_named')
"""
    found = {name for _, name in foreign_names({'a': ast.parse(code)})}
    assert found == {'_other', '_some', '_named'}


@pytest.mark.parametrize('base', INHERITED)
def test_what_our_classes_inherit_is_there(base):
    source = ''.join(map(inspect.getsource, base.__mro__[:-1][:3]))
    for name in INHERITED[base]:
        assert re.search(rf'(def |self\.){name}\b', source), name


# Each function on real objects


def test_layers():
    for layer in (nn.BatchNorm1d(2), nn.BatchNorm3d(2), nn.SyncBatchNorm(2)):
        assert isinstance(layer, ours.BatchNorm)
        assert isinstance(layer, ours.Normalisation)
    assert isinstance(nn.InstanceNorm2d(2), ours.Normalisation)
    assert not isinstance(nn.GroupNorm(1, 2), ours.Normalisation)
    assert isinstance(nn.Conv2d(1, 1, 1), ours.Convolution)
    assert not isinstance(nn.Linear(1, 1), ours.Convolution)


def test_cpu():
    assert isinstance(ours.cpu_has_bfloat16(), bool)


def test_workers_end():
    loader = DataLoader([1, 2], num_workers=1, persistent_workers=True)
    ours.end_workers(loader)  # Not yet begun
    assert list(map(int, loader)) == [1, 2]
    (worker,) = loader._iterator._workers
    assert worker.is_alive()
    ours.end_workers(loader)
    assert not worker.is_alive()


def test_writes_of_a_tensor():
    tensor = torch.zeros(1)
    before = ours.writes_to(tensor)
    tensor.fill_(1)
    assert ours.writes_to(tensor) == before + 1


def test_versions():
    before, after = nn.BatchNorm1d(2).state_dict(prefix='a.'), {}
    after = type(before)()
    ours.keep_versions(before, after, lambda name: f'b{name}')
    assert after._metadata['ba']['version'] == 2
    ours.keep_versions({}, after, str)
    assert 'ba' in after._metadata


def optimizer():
    return torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)


def test_accumulation():
    wrapper = OptimWrapper(optimizer(), accumulative_counts=3)
    assert ours.accumulation_of(wrapper) == 3
    assert ours.accumulation_of(object()) == 1


def test_schedules():
    one = optimizer()
    ours.begin_steps(one)
    schedule = LinearLR(one, start_factor=0.5, end=4)
    assert ours.steps_of(schedule) == 0
    assert schedule.get_last_value() == [0.5]
    schedule.step()
    assert ours.steps_of(schedule) == 1
    last = schedule.get_last_value()[0]
    ours.scale_values(schedule, 2.0)
    assert schedule.get_last_value() == [2 * last]
    assert schedule.state_dict()['base_values'] == [2.0]


class Loop(EpochBasedTrainLoop):
    def __init__(self):
        BaseLoop.__init__(self, None, DataLoader([1]))
        self._iter = 0


def test_who_tests():
    runner = Runner.__new__(Runner)
    for train, test, only in (
        ({}, Loop(), True),
        (Loop(), Loop(), False),
        (Loop(), {}, False),
    ):
        runner._train_loop, runner._test_loop = train, test
        assert ours.only_tests(runner) is only
    assert '_test_loop' in inspect.getsource(Runner.test)


def test_batches_from_elsewhere():
    loader = DataLoader(range(6), batch_size=2)
    ours.set_batches(loader, [[5], [0, 4]])
    assert [batch.tolist() for batch in loader] == [[5], [0, 4]]


def test_loop():
    loop = Loop()
    ours.set_iteration(loop, 5)
    assert loop.iter == 5
    assert '_iter' in inspect.getsource(EpochBasedTrainLoop)


def test_visualizer(tmp_path):
    backend = LocalVisBackend(str(tmp_path))
    visualizer = Visualizer(vis_backends=[backend], save_dir=str(tmp_path))
    assert list(ours.backends_of(visualizer)) == [backend]
    backend.add_scalar('a', 1.0)
    text = Path(ours.scalar_file_of(backend)).read_text(encoding='utf-8')
    assert '"a": 1.0' in text
    assert ours.scalar_file_of(Loop()) is None


def test_instances():
    logger = MMLogger.get_instance('private_names')
    assert ours.instances_of(MMLogger)['private_names'] is logger
    del ours.instances_of(MMLogger)['private_names']


def test_bases(tmp_path):
    (tmp_path / 'a.py').write_text("_base_ = 'somewhere'\na = 1")
    (tmp_path / 'b.py').write_text('b = 2')
    here = str(tmp_path / 'b.py')
    assert ours.base_of('b.py', str(tmp_path / 'a.py')) == (here, None)
    with ours.bases_found_by(lambda base, filename: (here, None)):
        assert Config.fromfile(str(tmp_path / 'a.py')).b == 2
    with pytest.raises(FileNotFoundError):
        Config.fromfile(str(tmp_path / 'a.py'))


# Replacing


def test_a_name_that_is_not_there_is_not_replaced():
    with pytest.raises(AttributeError, match='has no gone'):
        replaced(ours, 'gone', 1).__enter__()
    assert not hasattr(ours, 'gone')


def test_who_enters_first_does_not_end_it_for_others():
    class Owner:
        name = 1

    shared = Shared(lambda: replaced(Owner, 'name', 2))
    shared.__enter__()
    shared.__enter__()
    shared.__exit__(None, None, None)
    assert Owner.name == 2
    shared.__exit__(None, None, None)
    assert Owner.name == 1
    with shared:
        assert Owner.name == 2
