"""The pre-flight check, and the guards that it shares with training."""

import numpy as np
import pytest
from PIL import Image

from mmmoco.apis import load_config
from mmmoco.apis.preflight.jobs import verify_config
from mmmoco.engine.batch_checks import check_samples

from ..conftest import call

pytestmark = pytest.mark.slow

SMALL = [
    'train_dataloader.dataset.num_scenes=64',
    'train_dataloader.batch_size=16',
    'auto_scale_lr.base_batch_size=16',
    'model.dictionary.size=64',
    'knn.bank.dataset.num_scenes=40',
    'knn.query.dataset.num_scenes=20',
]


def small():
    pairs = (item.split('=') for item in SMALL)
    return load_config(
        'demo/mocov2_digits', {key: int(value) for key, value in pairs}
    )


def rows(verification):
    assert all(check.value for check in verification.checks)
    return {check.name: check for check in verification.checks}


def test_a_sound_config_passes(capsys):
    assert (
        call(verify_config, 'demo/mocov2_digits', '--cfg-options', *SMALL) == 0
    )
    out = capsys.readouterr().out
    verdicts = {line.split()[0] for line in out.splitlines()[2:] if line}
    assert verdicts == {'ok'}
    for words in (
        'batch 8, float32, loss',
        'reach all 16 tensors',
        'updated 1 time(s), by its hook',
        '8 entries written by 8 images',
        'Queue, 16 keys a step, 64 entries',
        '40 images in the bank',
    ):
        assert words in out, out


def test_data_whose_workers_follow_the_cores(tmp_path):
    """num_workers='auto', in training and k-NN."""
    for split in ('train', 'test'):
        for i in range(20):
            path = tmp_path / split / f'class_{i % 2}' / f'{i}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((32, 32, 3), i, np.uint8)).save(path)
    places = ('train_dataloader', 'knn.bank', 'knn.query')
    options = {f'{p}.dataset.data_root': str(tmp_path) for p in places}
    options |= {'train_dataloader.batch_size': 16, 'knn.k': 2}
    cfg = load_config('mocov2_r18_1xb512_cifar10', options)
    assert cfg.train_dataloader.num_workers == 'auto'
    found = rows(verify_config(cfg))
    assert not [c for c in found.values() if c.verdict == 'ERROR']
    assert '20 images in the bank' in found['k-NN'].value


def test_without_the_data_synthetic_images_stand_in(tmp_path):
    cfg = load_config(
        'mocov2_r18_1xb512_cifar10',
        {'train_dataloader.dataset.data_root': str(tmp_path / 'none')},
    )
    found = rows(verify_config(cfg))
    assert found['data set'].verdict == 'warning'
    assert 'ynthetic images' in found['data set'].value
    assert found['one step'].verdict == 'ok'
    assert 'batch 16' in found['one step'].value  # SplitBN in 8 parts
    assert not [c for c in found.values() if c.verdict == 'ERROR']


@pytest.mark.parametrize(
    ('options', 'name', 'words'),
    [
        ({'train_dataloader.batch_size': 18}, 'SplitBN', ('18', '4')),
        (
            {'train_dataloader.batch_size': 128},
            'data set and batch',
            ('64 images', 'batch of 128', 'no iteration'),
        ),
        (
            {'model.dictionary.feat_dim': 32},
            'building',
            ('=64', '=32', 'feat_dim'),
        ),
        ({'model.dictionary.size': 8}, 'dictionary', ('16 keys', '8')),
        ({'model.m': 0.001}, 'building', ('m=0.001', '0.999')),
        (
            {'model.loss.temperature': 0.0},
            'building',
            ('temperature=0.0',),
        ),
        (
            {'custom_hooks': [dict(type='AddressedRandomnessHook')]},
            'the step',
            ('DictionaryUpdateHook and KeyEncoderUpdateHook',),
        ),
    ],
)
def test_what_is_wrong_is_named(options, name, words):
    cfg = small()
    cfg.merge_from_dict(options)
    found = rows(verify_config(cfg))
    assert found[name].verdict == 'ERROR'
    assert all(word in found[name].value for word in words), found[name]


def test_a_schedule_of_m_is_tried_at_its_start():
    cfg = small()
    cfg.model.m_schedule = 'cosine'
    found = rows(verify_config(cfg))
    assert '0.99 at the start, 1 at the end' in found['m'].value
    assert found['key encoder'].value == 'updated 1 time(s), by its hook'


def test_unused_parameters_are_listed():
    cfg = small()
    cfg.model.neck.in_channels = 64
    cfg.model.backbone.out_indices = (2,)  # The fourth stage is idle.
    found = rows(verify_config(cfg))
    assert found['gradients'].verdict == 'ERROR'
    assert '3 of 16' in found['gradients'].value
    assert 'backbone.stages.3.conv.weight' in found['gradients'].value
    cfg.find_unused_parameters = True
    assert rows(verify_config(cfg))['gradients'].verdict == 'warning'


def test_effective_batch_against_the_learning_rate():
    cfg = small()
    cfg.optim_wrapper.accumulative_counts = 2
    check = rows(verify_config(cfg, gpus=2))['effective batch']
    assert check.verdict == 'warning'
    assert '64 = 16 x 2 processes x 2 accumulation' in check.value
    lr = cfg.optim_wrapper.optimizer.lr
    assert f'lr {lr:g} is meant for 16' in check.value


def test_exit_code_and_line_of_a_failed_check(capsys):
    options = [*SMALL, 'train_dataloader.batch_size=18']
    assert (
        call(verify_config, 'demo/mocov2_digits', '--cfg-options', *options)
        == 2
    )
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    errors = [line for line in lines if ': error: ' in line]
    assert len(errors) == 1 and 'SplitBN' in errors[0]
    assert 'Traceback' not in captured.err
    assert 'num_splits=4' in captured.out.replace('\n', ' ')


@pytest.mark.parametrize(
    ('argv', 'word'),
    [
        (['nowhere'], 'nowhere'),
        (['demo/mocov2_digits', '--gpus', 0], '--gpus 0'),
        (['mmpretrain::resnet/resnet18_8xb32_in1k.py'], 'pre-training'),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2(argv, word, capsys):
    assert call(verify_config, *argv) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    (line,) = [line for line in lines if ': error: ' in line]
    assert word in line


# ------------------------------------------- the same guards, in training


def test_training_refuses_an_epoch_without_iterations(small_config, runner_of):
    cfg = small_config(**{'train_dataloader.dataset.num_scenes': 12})
    with pytest.raises(ValueError, match='12 images.*batch of 16'):
        runner_of(cfg).train()


def test_training_refuses_a_batch_that_splits_unevenly(
    small_config, runner_of
):
    cfg = small_config(**{'train_dataloader.batch_size': 18})
    with pytest.raises(ValueError, match=r'num_splits=4.*batch of 18'):
        runner_of(cfg).train()


def test_data_set_against_effective_batch():
    assert check_samples(1000, 32, 8, 1, drop_last=True) is None
    warning = check_samples(1000, 32, 8, 4, drop_last=True)
    assert '1000 images' in warning and '1024' in warning
    assert check_samples(31, 32, 1, 1, drop_last=False)
    with pytest.raises(ValueError, match='at most 31'):
        check_samples(248, 32, 8, 1, drop_last=True)
    assert check_samples(256, 32, 8, 1, drop_last=True) is None
