"""One interface: a checkpoint, a series, live in a hook; ours and yours."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from mmengine.registry import init_default_scope

import mmmoco
from mmmoco.apis.probing.checkpoints import evaluations_of
from mmmoco.engine.evaluation import (
    Evaluation,
    Measurement,
    build_evaluation,
)
from mmmoco.functional import nearest
from mmmoco.registry import EVALUATIONS

from ..conftest import call, results


@EVALUATIONS.register_module()
@dataclass(frozen=True)
class Agreement(Evaluation):
    """How often the nearest image of the bank has the query's class."""

    task = title = 'agreement'
    factor: float = 100.0

    def measure(self, model, data):
        bank, query = data.extract(model)
        found = nearest(bank.values, query.values, 1).indices[:, 0]
        right = (bank.labels[found] == query.labels).float().mean()
        return [Measurement({'share': self.factor * float(right)})]


KINDS = {
    'knn': dict(type='KNN', k=(5, 3)),
    'linear': dict(type='LinearProbe', lrs=[0.1, 0.3], epochs=3),
    'svm': dict(type='SVM', shots=[]),
    'agreement': dict(type='Agreement', factor=10.0),
}


@pytest.mark.slow
@pytest.mark.parametrize('kind', KINDS)
def test_each_evaluation_in_a_run_in_a_series_and_of_one_file(
    kind, small_config, runner_of, tmp_path
):
    entry = KINDS[kind]
    cfg = small_config(evaluations={'mine': entry})
    hook = dict(type='EvaluationHook', evaluation=entry, interval=1)
    cfg.custom_hooks.append(hook)
    cfg.train_cfg.max_epochs = 2
    runner_of(cfg).train()
    folder = tmp_path / 'run'
    mmmoco.evaluate_checkpoints(str(folder), config=cfg, protocol='mine')
    mmmoco.test(str(folder / 'epoch_2.pth'), config=cfg)
    lines = [x for x in results(folder) if x['task'] == kind]
    live = [x for x in lines if x['checkpoint'] is None]
    watched = live[:: len(live) // 2]
    series = [x for x in lines if 'data' in x['protocol']]
    assert [x['epoch'] for x in watched] == [1, 2]
    assert [x['metrics'] for x in watched] == [x['metrics'] for x in series]
    alone = [x for x in lines if x not in live + series]
    if kind != 'knn':  # tools/test.py also has the k-NN of the config.
        assert alone[0]['metrics'] == series[1]['metrics']
        assert alone[0]['protocol'] == watched[1]['protocol']
    scalars = ''.join(p.read_text() for p in folder.rglob('scalars.json'))
    name = next(iter(series[0]['metrics']))
    assert scalars.count(f'"{kind}/{name}":') == 2
    assert ('knn/top1_k3' in scalars) == (kind == 'knn')
    log = ''.join(p.read_text() for p in folder.glob('*/*.log'))
    assert ' after 2 epochs: ' in log and '20 queries)' in log
    # Again: nothing is evaluated twice.
    count = len(results(folder))
    mmmoco.evaluate_checkpoints(str(folder), config=cfg, protocol='mine')
    assert len(results(folder)) == count


@pytest.mark.slow
def test_a_series_by_svm_on_the_command_line(small_config, tmp_path):
    cfg = small_config()
    torch.save(
        {'state_dict': mmmoco.get_model(cfg).state_dict()},
        tmp_path / 'epoch_3.pth',
    )
    argv = [_file(cfg, tmp_path), '--checkpoint-dir', tmp_path]
    for shots in ([1], [1], [], [2]):
        more = ['--protocol', 'svm', '--draws', 1, '--shots', *shots]
        assert call('evaluate_checkpoints.py', *argv, *more) == 0
    found = [line['metrics'] for line in results(tmp_path)]
    assert [set(x) - {'mAP'} for x in found] == [
        {'mAP_1_shot', 'mAP_1_shot_std'},
        set(),
        {'mAP_2_shot', 'mAP_2_shot_std'},
    ]
    assert (tmp_path / 'checkpoints_svm.png').is_file()


def test_an_unknown_protocol_is_named_with_those_that_exist(
    small_config, tmp_path, capsys
):
    cfg = small_config(evaluations={'mine': dict(type='Agreement')})
    (tmp_path / 'epoch_3.pth').touch()
    argv = [_file(cfg, tmp_path), '--checkpoint-dir', tmp_path]
    assert call('evaluate_checkpoints.py', *argv, '--protocol', 'x') == 2
    assert 'knn, linear, svm, mine' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('entry', 'word'),
    [
        (dict(type='Agreemint'), 'Agreemint'),
        (dict(type='Agreement', power=2), 'power'),
        (dict(type='KNN', k=99), 'knn.k=99: the bank holds only 40'),
        (dict(type='KNN', k=0), 'knn.k=0'),
        (dict(type='LinearProbe', held_out=2), 'held_out=2'),
    ],
)
def test_bad_settings_are_named_before_anything_runs(
    entry, word, small_config
):
    init_default_scope('mmmoco')
    with pytest.raises((KeyError, TypeError, ValueError), match=word):
        build_evaluation(entry, small_config().knn, seed=0)


def test_evaluations_are_settings_of_the_command_line():
    options = {'evaluations': {'mine': {'type': 'SVM'}}}
    cfg = mmmoco.load_config('demo/mocov2_digits', options)
    assert cfg.evaluations.mine.type == 'SVM'
    again = mmmoco.load_config(cfg, {'evaluations.mine.draws': 2})
    assert again.evaluations.mine == dict(type='SVM', draws=2)


def _file(cfg, folder):
    path = Path(folder, 'mine.py')
    cfg.dump(str(path))
    return path


@pytest.mark.parametrize(
    'entry',
    [
        5,
        None,
        dict(epochs=3),
        dict(type='KNN', k='a'),
        dict(type='SVM', draws=0),
        dict(type='SVM', shots=[4, 0]),
        dict(type='SVM', shots='a'),
    ],
    ids=str,
)
def test_an_entry_that_is_no_evaluation_is_named(entry, small_config):
    with pytest.raises(ValueError, match='no evaluation|KNN|SVM|draws=|knn'):
        build_evaluation(entry, small_config().knn, seed=0)


def test_evaluations_without_names_are_refused(small_config):
    with pytest.raises(ValueError, match='give each a name'):
        evaluations_of(small_config(evaluations=['KNN']))
