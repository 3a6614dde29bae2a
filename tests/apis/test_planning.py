"""From a folder to a config: what is seen, chosen, measured and written."""

import csv
import dataclasses
import itertools
import json
import re
import shlex
from collections import Counter

import numpy as np
import pytest
import torch
from mmengine.optim import build_optim_wrapper
from PIL import Image

from mmmoco import progress
from mmmoco.apis import load_config
from mmmoco.apis.command import main
from mmmoco.apis.config.adapt import fit_workers
from mmmoco.apis.config.python_text import Code, assigned
from mmmoco.apis.planning import backbones, budget, measure, plan, pretrain
from mmmoco.apis.planning.backbones import Backbone, find_backbone
from mmmoco.apis.planning.choices import Choices, choose, set_length
from mmmoco.apis.planning.config_text import config_text
from mmmoco.apis.planning.images import Images, Labelled, look
from mmmoco.apis.planning.jobs import plan as plan_job
from mmmoco.apis.planning.machine import Machine
from mmmoco.apis.planning.pretrain import judged, kept_for
from mmmoco.apis.planning.start import Start, read_start
from mmmoco.apis.planning.wishes import Wishes
from mmmoco.apis.preflight import sample_batch
from mmmoco.engine import checkpoint_io
from mmmoco.engine.checkpoint_io import CheckpointError
from mmmoco.engine.evaluation import KNN, Measurement, build_evaluation
from mmmoco.registry import DATASETS, MODELS, in_scope_of
from tests.conftest import call, one_line, optional

CPU = Machine('', 0, 2**34, 2, False)
GPU = Machine('H100', 8, 80 * 2**30, 16, True)


def noise(shape, dtype, low, high, seed):
    draws = np.random.default_rng(seed)
    return draws.uniform(low, high, shape).astype(dtype)


def save(path, array):
    if path.suffix == '.npy':
        np.save(path, array)
    elif path.suffix == '.tif':
        channels_last = array.ndim == 3 and array.shape[0] == array.shape[1]
        optional('tifffile').imwrite(
            path,
            array,
            photometric='minisblack',
            planarconfig='contig' if channels_last else None,
        )
    elif array.dtype == np.uint16 and array.ndim == 3:
        import cv2

        assert cv2.imwrite(str(path), array)
    else:
        Image.fromarray(array).save(path)


#: Kind of images → ending, shape, type, values; what is to be seen.
KINDS = {
    'photographs': ('.jpg', (40, 50, 3), 'uint8', (0, 255), ('colours', 3)),
    'grey': ('.png', (40, 40), 'uint8', (0, 255), ('colours', 3)),
    'transparent': ('.png', (40, 40, 4), 'uint8', (0, 255), ('colours', 3)),
    'X-rays': ('.png', (40, 40), 'uint16', (100, 4000), ('deep', 3)),
    'deep colours': ('.png', (40, 40, 3), 'uint16', (9, 60000), ('deep', 3)),
    'heights': ('.tif', (40, 40), 'float32', (-20, 900), ('deep', 3)),
    'infrared': ('.tif', (40, 40, 4), 'uint8', (0, 255), ('bands', 4)),
    'Sentinel-2': ('.tif', (40, 40, 13), 'uint16', (50, 3000), ('bands', 13)),
    'pages': ('.tif', (13, 40, 40), 'uint16', (50, 3000), ('bands', 13)),
    'arrays': ('.npy', (40, 40, 5), 'float32', (0, 1), ('bands', 5)),
}


def folder_of(path, kind, classes=('a', 'b'), count=8):
    """Write images of a kind, in class folders unless there are none."""
    ending, shape, dtype, (low, high), _ = KINDS[kind]
    for name in classes or ('',):
        (path / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            save(
                path / name / f'{i}{ending}',
                noise(shape, dtype, low, high, i),
            )
    return path


def written_config(chosen, tmp_path):
    """Return the config that is written for choices."""
    set_length(chosen, 4, False, 'for the test')
    if chosen.images.labelled:
        chosen.evaluated = 16, 16
    path = tmp_path / 'config.py'
    path.write_text(config_text(chosen, []))
    return load_config(str(path))


@pytest.mark.parametrize('kind', KINDS)
def test_every_kind_of_image_gets_a_config_that_reads_it(kind, tmp_path):
    *_, (_, high), seen = KINDS[kind]
    images = look(str(folder_of(tmp_path / 'data', kind)))
    assert (images.kind, images.channels) == seen
    assert len(images.paths) == 16
    assert images.labelled.classes == ['a', 'b']
    chosen = choose(images, CPU, Wishes(image_size=32, batch_size=4))
    cfg = written_config(chosen, tmp_path)
    views = sample_batch.draw(cfg)['inputs']
    for view in views.values():
        assert view.shape == (1, seen[1], 32, 32) and view.dtype == torch.uint8
        # The range of the file has become that of bytes.
        assert view.float().std() > 5
    fit_workers(cfg)
    with in_scope_of(cfg):
        _, data = build_evaluation('KNN', cfg.knn, seed=0)
        image = data.bank.dataset[0]['inputs']['image']
        model = MODELS.build(cfg.model)
    assert image.shape == (seen[1], 32, 32)
    inputs = model.data_preprocessor(dict(inputs=dict(image=image[None])))
    x = inputs['inputs']['image']
    assert x.abs().mean() < 3  # Normalised by what the images are.
    model.eval()
    assert model.encoders()['backbone'](x).shape == (1, 512)


def test_all_that_is_stored_is_named(tmp_path):
    for kind in ('photographs', 'grey', 'transparent'):
        folder_of(tmp_path / kind, kind, ())
    said = 'RGB (the fourth channel is left out) and RGB and grey, 8 bits'
    assert look(str(tmp_path)).stored.startswith(said)


HOSTILE = ["*_'+os+'.tif", '{{ base }}', '[!\n]x', "masks'\\"]


def test_masks_beside_bands_are_named_and_left_out(tmp_path):
    data = folder_of(tmp_path / 'data', 'Sentinel-2')
    for i in range(8):
        save(data / f'a/{i}_mask.tif', noise((40, 40), 'uint8', 0, 2, i))
    with pytest.raises(ValueError, match=r'16 .*13 bands.* 8 .*_mask\.tif'):
        look(str(data))
    wishes = Wishes(exclude=['*_mask.tif', *HOSTILE], image_size=32)
    images = look(str(data), exclude=wishes.exclude)
    assert len(images.paths) == 16 and not images.remarks
    cfg = written_config(choose(images, CPU, wishes), tmp_path)
    with in_scope_of(cfg):
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
    assert dataset.patterns == ((), tuple(wishes.exclude))
    assert len(dataset) == 16
    assert cfg.knn.bank.dataset.exclude == list(wishes.exclude)


@pytest.mark.parametrize('name', ['{}_mask.jpg', '{}-GT.jpg', 'masks/{}.jpg'])
def test_names_of_labels_are_told_with_what_leaves_them_out(name, tmp_path):
    folder_of(tmp_path, 'photographs', ())
    for i in range(8):
        path = tmp_path / name.format(i)
        path.parent.mkdir(exist_ok=True)
        save(path, noise((40, 50, 3), 'uint8', 0, 255, i))
    (remark,) = look(str(tmp_path)).remarks
    pattern = shlex.split(remark)[-1]
    images = look(str(tmp_path), exclude=[pattern])
    assert len(images.paths) == 8 and not images.remarks


def test_what_pages_are_is_asked_and_can_be_said(tmp_path):
    for i in range(4):
        array = noise((64, 40, 40), 'uint16', 0, 3000, i)
        optional('tifffile').imwrite(tmp_path / f'{i}.tif', array)
    with pytest.raises(OSError, match="order='chw'"):
        look(str(tmp_path))
    wishes = Wishes(order='chw', image_size=32, batch_size=4)
    images = look(str(tmp_path), order='chw')
    assert images.channels == 64
    cfg = written_config(choose(images, CPU, wishes), tmp_path)
    assert sample_batch.draw(cfg)['inputs']['view_q'].shape[1] == 64


def test_no_ending_of_bands_is_left_out(tmp_path):
    for kind, name in (('arrays', 'a'), ('arrays', 'b')):
        folder_of(tmp_path / 'data' / name, kind, ())
    for i in range(4):
        bands = noise((40, 40, 5), 'float32', 0, 1, i)
        save(tmp_path / 'data' / f'{i}.tif', bands)
    images = look(str(tmp_path / 'data'))
    cfg = written_config(choose(images, CPU, Wishes()), tmp_path)
    with in_scope_of(cfg):
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
    assert len(dataset) == len(images.paths) == 20


LOOKS = {
    'flat': ('photographs', (), None),
    'in classes': ('grey', ('x', 'y', 'z'), 3),
}


@pytest.mark.parametrize('case', LOOKS)
def test_classes_are_folders(case, tmp_path):
    kind, classes, expected = LOOKS[case]
    images = look(str(folder_of(tmp_path, kind, classes)))
    found = images.labelled and len(images.labelled.classes)
    assert found == expected


def test_a_split_in_folders_is_used(tmp_path):
    folder_of(tmp_path / 'train', 'grey')
    folder_of(tmp_path / 'val', 'grey', count=2)
    images = look(str(tmp_path))
    assert (images.prefix, len(images.paths)) == ('train', 16)
    found = images.labelled
    assert (found.val, len(found.query)) == ('val', 4)


def test_labels_of_other_tasks_are_told_apart(tmp_path):
    for name in ('img_dir', 'ann_dir'):
        folder_of(tmp_path / name, 'grey', ())
    images = look(str(tmp_path))
    assert images.labelled is None
    assert (
        'ann_dir' in images.remarks[0] and '8 of the 16' in images.remarks[0]
    )


def broken(path):
    for i in range(6):
        (path / f'{i}.jpg').write_bytes(b'no image')


def of_two_kinds(path):
    save(path / '0.npy', noise((9, 9, 5), 'uint16', 0, 9, 0))
    for i in range(6):
        save(path / f'{i}.png', noise((9, 9, 3), 'uint8', 0, 255, i))


def one_of_16_bits(path):
    for i in range(6):
        save(path / f'{i}.png', noise((9, 9, 3), 'uint8', 0, 255, i))
    save(path / '7.png', np.full((9, 9), 30000, np.uint16))


def too_few(path):
    save(path / '0.png', noise((9, 9, 3), 'uint8', 0, 255, 0))


MISTAKES = {
    'nothing there': (lambda path: path.rmdir(), {}, 'does not exist'),
    'no images': (lambda path: None, {}, 'No image in'),
    'unreadable': (broken, {}, 'None of 6 images looked at can be read'),
    'two kinds': (of_two_kinds, {}, 'do not fit one network'),
    'constant': (one_of_16_bits, {}, "7.png' and what else has more than 8"),
    'too few': (too_few, {}, 'holds 1 image'),
    'batch': (8, {'batch_size': 64}, '--batch-size 64: there are 8 images'),
    'one GPU': (8, {'gpus': 8}, '--gpus 8: there are 8 images only'),
    'more than all': (8, {'gpus': 2, 'batch_size': 16}, 'there are 8 images'),
    'backbone': (8, {'backbone': 'resnt50'}, 'Did you mean resnet50'),
    'tokens': (8, {'backbone': 'mixer_b16_224'}, 'These can: resnet18'),
    'size': (8, {'backbone': 'vit_tiny', 'image_size': 50}, 'take 48'),
    'both': (8, {'epochs': 1, 'hours': 1.0}, 'give one of them'),
    'm': (8, {'m': 0.001}, 'weight of the old key parameters'),
    'lr': (8, {'lr': -1.0}, '--lr -1.0: must be above 0'),
    'hours': (8, {'hours': float('nan')}, '--hours nan'),
    'seconds': (8, {'hours': 0.0001}, 'too few'),
    'queue': (8, {'method': 'mocov3', 'queue': 8}, '--queue 8: mocov3 has'),
    'few': (8, {'queue': 1, 'batch_size': 4}, 'take at least as many'),
    'gpus': (8, {'gpus': 3, 'batch_size': 8}, 'all 3 GPUs together'),
}


@pytest.mark.parametrize('case', MISTAKES)
def test_a_mistake_is_one_line(case, tmp_path, capsys):
    make, options, text = MISTAKES[case]
    data = tmp_path / 'data'
    data.mkdir()
    if make == 8:
        folder_of(data, 'grey', ())
    else:
        make(data)
    argv = [data]
    for name, value in options.items():
        argv += [f'--{name.replace("_", "-")}', value]
    assert call(plan_job, *argv, '--work-dir', tmp_path / 'run') == 2
    assert text in one_line(capsys)
    assert not (tmp_path / 'run').exists()


def test_a_place_that_takes_nothing_is_told_at_once(tmp_path, capsys):
    (tmp_path / 'file').touch()
    assert call(plan_job, tmp_path, '--work-dir', tmp_path / 'file/run') == 2
    assert "file' is no folder that can be written to" in one_line(capsys)


def test_pretrain_is_one_process(tmp_path, capsys):
    """It takes the options of plan, but trains for no more GPUs than one."""
    assert call(main, 'pretrain', tmp_path, '--gpus', 2) == 2
    assert 'pretrain starts one process' in one_line(capsys)


def images_like(count, side=300, labelled=None):
    paths = [f'/data/{i}.jpg' for i in range(count)]
    return Images(
        '/data', '', paths, 'colours', 3, 'RGB', side, labelled=labelled
    )


@pytest.fixture
def known_backbone(monkeypatch):
    """Choose without building a network."""
    config = dict(type='mmpretrain.ResNet', depth=18)
    found = Backbone('resnet18', config, 512, False, True, False)
    monkeypatch.setattr(
        'mmmoco.apis.planning.choices.find_backbone', lambda *_: found
    )


@pytest.mark.parametrize('machine', [CPU, GPU], ids=['cpu', 'cuda'])
def test_choices_fit_each_other(machine, known_backbone):
    counts = 4, 5, 31, 128, 999, 50_000, 1_300_000
    methods = 'mocov1', 'mocov2', 'densecl', 'mocov3'
    for count, method, gpus in itertools.product(counts, methods, (1, 8)):
        if machine is CPU and gpus > 1:
            continue
        wishes = Wishes(method=method, gpus=gpus, epochs=10)
        if count < 2 * gpus:
            with pytest.raises(ValueError, match=f'--gpus {gpus}'):
                choose(images_like(count), machine, wishes)
            continue
        chosen = choose(images_like(count), machine, wishes)
        budget.spend(chosen, 0.5, 10)
        assert chosen.micro_batch >= 2 and chosen.batch <= count
        assert chosen.per_epoch >= (4 if count > 64 else 1)
        assert chosen.iterations == 10 * chosen.per_epoch
        speed = measure.Speed(12.3, 10, 8, chosen.micro_batch)
        rows = plan._rows(chosen, 1e5, speed, 2**33)
        assert not [text for _, text in rows if len(text) > 87]
        if method == 'mocov3':
            assert not chosen.queue and not chosen.splits
            continue
        assert chosen.queue >= chosen.batch
        # An image may meet its own keys only where they are left out.
        assert chosen.exclude_same_image or 2 * chosen.queue <= count
        if gpus == 1:
            assert chosen.splits > 1
            assert chosen.micro_batch % chosen.splits == 0
        else:
            assert not chosen.splits


NAMES = [
    '{{ fileDirname }}',
    '{{$NOSUCH:cats}}',
    '{{$HOME:x}}',
    '{{_base_.model}}',
    "{{$A:0if{'|(?<=seed=)0|',__import__('os').abort()}else+1}}",
    '{{{{$A:b}}}}',
    'not UTF-8 \udcff',
    'a\nb = 1',
    """it's "so" \\ #""",
]


@pytest.mark.parametrize('name', NAMES)
def test_a_folder_is_only_a_name(name, tmp_path, known_backbone):
    """mmengine fills in what stands between double braces."""
    labelled = Labelled([('a', 'a'), ('b', 'b')], [('c', 'a')], f'val{name}')
    images = images_like(64, labelled=labelled)
    images.root, images.prefix = f'/data/{name}', f'train{name}'
    wishes = Wishes(epochs=1, work_dir=f'/run/{name}')
    chosen = choose(images, CPU, wishes)
    budget.spend(chosen, 0.5, 10)
    path = tmp_path / 'config.py'
    path.write_text(config_text(chosen, []))
    cfg = load_config(str(path))
    dataset = cfg.train_dataloader.dataset
    assert (cfg.work_dir, dataset.data_root) == (f'/run/{name}', images.root)
    assert dataset.data_prefix == images.prefix
    assert cfg.knn.query.dataset.data_prefix == labelled.val


def test_the_recipes_are_met_where_they_hold(known_backbone):
    """ImageNet on eight GPUs: MoCo v2 as published."""
    wishes = Wishes(gpus=8, epochs=200)
    chosen = choose(images_like(1_281_167), GPU, wishes)
    budget.spend(chosen, 0.5, 10)
    optimizer = chosen.optimizer
    assert (chosen.batch, chosen.micro_batch) == (256, 32)
    assert (chosen.queue, chosen.temperature, chosen.m) == (65536, 0.2, 0.999)
    assert (optimizer['lr'], optimizer['weight_decay']) == (0.03, 1e-4)
    assert (chosen.image_size, chosen.length, chosen.warmup) == (224, 200, 0)


def test_what_was_asked_for_counts(known_backbone):
    wishes = Wishes(
        method='mocov2', image_size=64, batch_size=32, lr=0.5, m=0.9,
        queue=128, epochs=3,
    )  # fmt: skip
    chosen = choose(images_like(1000), CPU, wishes)
    budget.spend(chosen, 0.5, 10)
    assert (chosen.image_size, chosen.batch, chosen.queue) == (64, 32, 128)
    assert (chosen.optimizer['lr'], chosen.m) == (0.5, 0.9)
    assert chosen.iterations == 3 * (1000 // 32)


def test_a_plan_for_gpus_is_a_config(tmp_path):
    """Colours on the device; BatchNorm over all GPUs, or shuffled."""
    for method, norm in (('mocov2', 'BN'), ('mocov3', 'SyncBN')):
        wishes = Wishes(method=method, backbone='resnet18', gpus=8)
        cfg = written_config(choose(images_like(10**6), GPU, wishes), tmp_path)
        assert cfg.model.backbone.norm_cfg.type == norm
        assert cfg.model.neck.get('norm_cfg', {}).get('type') != 'BN1d'
        assert cfg.model.data_preprocessor.views  # device_views moved them.
        assert cfg.optim_wrapper.dtype == 'bfloat16'


def test_less_memory_is_accumulated_or_a_smaller_batch(known_backbone):
    images = images_like(100_000)
    queue = choose(images, GPU, Wishes(), most=100)
    assert (queue.micro_batch, queue.accumulation) == (64, 4)
    assert (
        queue.optimizer['lr'] == 0.03 and queue.micro_batch % queue.splits == 0
    )
    batch = choose(images, GPU, Wishes(method='mocov3'), most=100)
    assert (batch.micro_batch, batch.accumulation) == (64, 1)
    assert batch.optimizer['lr'] == pytest.approx(0.3 * 64 / 256)


def test_hours_are_kept(known_backbone):
    for count, hours in ((500, 0.05), (50_000, 0.1), (50_000, 24.0)):
        bank = [(f'/data/{i}.jpg', f'{i % 10}') for i in range(count)]
        labelled = Labelled(bank)
        images = images_like(count, labelled=labelled)
        chosen = choose(images, CPU, Wishes(hours=hours))
        budget.spend(chosen, 0.8, spent=60)
        evaluation = budget.evaluation_seconds(chosen, 0.8)
        training = chosen.iterations * 0.8
        assert 60 + training + evaluation <= 3600 * hours
        most = (200 if count < 1000 else 800) * chosen.per_epoch
        assert chosen.iterations <= most
        used = (60 + training + evaluation + 20) / 3600
        assert used > 0.9 * hours or chosen.iterations >= 0.99 * most


def test_too_few_hours_are_told_with_enough(known_backbone):
    images = images_like(500)
    chosen = choose(images, CPU, Wishes(hours=0.01))
    with pytest.raises(ValueError, match='at least --hours') as error:
        budget.spend(chosen, 5.0, 60)
    enough = float(str(error.value).split('--hours ')[2].split(',')[0])
    chosen = choose(images, CPU, Wishes(hours=enough))
    budget.spend(chosen, 5.0, 60)
    assert chosen.iterations >= 10


def test_a_part_of_the_classes_keeps_their_shares(tmp_path):
    images = [
        (f'{name}/{i}, "x".jpg', name) for name in 'ab' for i in range(90)
    ]
    images += [(f'c/{i}.jpg', 'c') for i in range(20)]
    drawn = budget.some(images, 20, seed=0)
    assert Counter(name for _, name in drawn) == {'a': 9, 'b': 9, 'c': 2}
    assert drawn == budget.some(images, 20, seed=0)
    assert drawn != budget.some(images, 20, seed=1)
    labelled = Labelled(images)
    chosen = dataclasses.replace(
        choose(images_like(200, labelled=labelled), CPU, Wishes()),
        evaluated=(20, 20),
    )
    (file,) = budget.write_lists(chosen, tmp_path)
    with open(file, newline='') as lines:
        assert [tuple(row) for row in csv.reader(lines)][1:] == drawn


@pytest.mark.parametrize(
    ('name', 'kind', 'width'),
    [
        ('resnet18_8xb16_cifar10', 'mmpretrain.ResNet', 512),
        ('vit_tiny_patch16_224.augreg_in21k', 'MoCoV3ViT', 192),
        ('resnext50_32x4d', 'mmpretrain.ResNeXt', 2048),
        ('convnext_tiny', 'mmpretrain.ConvNeXt', 768),
        ('efficientnet_b0', 'mmpretrain.TIMMBackbone', 1280),
    ],
)
def test_names_of_timm_and_mmpretrain_train(name, kind, width, tmp_path):
    if 'TIMM' in kind:
        optional('timm')
    found = find_backbone(name, 4, 64)
    assert (found.config['type'], found.width) == (kind, width)
    images = dataclasses.replace(images_like(64), channels=4)
    wishes = Wishes(backbone=name, image_size=64, batch_size=4)
    chosen = choose(images, CPU, wishes)
    cfg = written_config(chosen, tmp_path)
    cfg.model.data_preprocessor.update(mean=[0.0] * 4, std=[1.0] * 4)
    with in_scope_of(cfg):
        model = MODELS.build(cfg.model)
    x = torch.randn(4, 4, 64, 64)
    assert model.encoders()['neck'](x).shape[0] == 4


def test_every_backbone_error_names_some_that_can():
    for name in ('mixer_b16_224', 'nothing-like-it'):
        with pytest.raises(ValueError, match='resnet18') as error:
            find_backbone(name, 3, 64)
        assert name.partition('_')[0] in str(error.value)
    assert backbones.EXAMPLES.count(',') == 3


@pytest.mark.parametrize(
    'name',
    [
        *('/etc/passwd', '../x', 'http://x/y.pth', 'hf-hub:timm/resnet18'),
        *('hf_hub:timm/resnet18', 'local-dir:.', 'timm/resnet18', 'résnet'),
        *('', ' ', '.', '*', '%s', "'", '{{$HOME}}', 'a' * 300, '-x'),
        *('resnet18;ls', 'vit_small_patch0_224', 'vit_small_patch99999'),
    ],
)
def test_an_odd_name_is_no_backbone(name):
    """No path, no place of the network, and nothing that is run."""
    with pytest.raises(ValueError, match='--backbone') as error:
        find_backbone(name, 3, 64)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(('each', 'whole'), [(0.01, True), (0.5, False)])
def test_ten_steps_or_a_smaller_batch(each, whole, small_config, monkeypatch):
    """A slow machine is one whose clock runs fast."""
    clock = itertools.count()
    now = [0.0]
    seen = []

    def timed(step, batches):
        size = len(next(batches)['ids'])
        seen.append(size)
        now[0] += each * size
        next(clock)
        return each * size

    monkeypatch.setattr(measure, '_timed', timed)
    monkeypatch.setattr(measure.time, 'perf_counter', lambda: now[0])
    speed = measure.measure_speed(small_config())
    assert speed.seconds == pytest.approx(16 * each)
    assert speed.steps <= 10 and now[0] <= 45
    assert (speed.batch == 16) == whole
    assert ('scaled' in str(speed)) != whole


def test_real_steps_are_measured(small_config, monkeypatch):
    monkeypatch.setattr(measure, 'STEPS', 3)
    cfg = small_config()
    before = cfg.to_dict()
    speed = measure.measure_speed(cfg)
    assert (speed.steps, speed.batch, speed.whole) == (3, 16, 16)
    assert 0 < speed.seconds < 10 and cfg.to_dict() == before


VERDICTS = [
    (None, None, 0, 'unknown'),
    (30.0, 29.0, 1000, 'no better'),
    (30.0, 30.0, 1000, 'no better'),
    (30.0, 31.0, 1000, 'within chance'),
    (30.0, 38.0, 1000, 'the untrained network has 30.0 %'),
    (30.0, 38.0, 50, 'within chance'),
    (100.0, 100.0, 9, 'too easy to tell'),
]


@pytest.mark.parametrize(('before', 'after', 'queries', 'said'), VERDICTS)
def test_the_verdict_is_honest(before, after, queries, said):
    text, better = judged(before, after, queries)
    assert said in text and better == ('network has' in said)


def test_what_is_written_is_python():
    value = {'a b': '{{{$A:b}}', 'class': [], 'n': {'**': Code("{'c': 1}")}}
    text = assigned('x', value)
    assert '{{' not in text
    found = {}
    exec(text, found)
    assert found['x'] == value | dict(n=dict(c=1))
    value = dict(a=[1.5] * 40, b=dict(c='x' * 90, d=(1,)), e=[dict(f=None)])
    text = assigned('x', value)
    found = {}
    exec(text, found)
    assert found['x'] == value
    assert max(map(len, text.replace('x' * 90, '').splitlines())) < 80


def interrupted(*_, **__):
    raise KeyboardInterrupt


def test_only_the_same_command_goes_on(tmp_path):
    wishes = Wishes('photos', str(tmp_path / 'run'), exclude=('*_mask.tif',))
    wishes.note.parent.mkdir(parents=True)
    noted = dict(wishes=dataclasses.asdict(wishes), plan={}, known=0)
    wishes.note.write_text(json.dumps(noted))
    (tmp_path / 'run' / 'iter_5.pth').touch()
    wishes.check(goes_on=True)
    for other in (wishes, dataclasses.replace(wishes, lr=0.1)):
        with pytest.raises(ValueError, match='take another one'):
            other.check(goes_on=other is not wishes)
    for damage in ('', '[]', '{"wishes": 3}', '\0'):
        wishes.note.write_text(damage)
        assert wishes.begun() is None


@pytest.mark.slow
def test_pretrain_plans_trains_judges_and_exports(
    tmp_path, capsys, monkeypatch
):
    """Where everything takes long, too, it says so in few lines."""
    monkeypatch.setattr(progress, 'PATIENCE', -1.0)
    # Six evaluations, as of a run of hours.
    speed = measure.Speed(300.0, 10, 8, 8)
    monkeypatch.setattr(plan, 'measure_speed', lambda cfg: speed)
    data = folder_of(tmp_path / 'photos', 'photographs', count=10)
    run = tmp_path / 'run'
    options = '--epochs', 5, '--image-size', 32, '--batch-size', 8
    options += '--backbone', 'mobilenet_v3_small_050'
    with monkeypatch.context() as stopped:
        stopped.setattr(pretrain, 'export_backbone', interrupted)
        assert call(main, 'pretrain', data, *options, '--work-dir', run) == 130
    screen = capsys.readouterr()
    lines = screen.out.splitlines()
    assert 'the same command goes on from' in lines[-1]
    assert sum('k-NN after' in line for line in lines) == 6
    said = Counter([*lines, *screen.err.splitlines()])
    assert said.total() <= 31 and set(said.values()) == {1}
    # The same command goes on.
    assert call(main, 'pretrain', data, *options, '--work-dir', run) == 0
    lines = capsys.readouterr().out.splitlines()[-5:]
    names = [line.partition(':')[0] for line in lines]
    assert names == ['Made', 'Where', 'How good', 'Use it', 'Next']
    assert 'by mocov2, 10 iterations on 20 images' in lines[0]
    assert 'k-NN top-1' in lines[2]
    assert (run / 'export' / 'model.safetensors').is_file()
    config = run / 'plan' / 'run.py'
    assert load_config(str(config)).train_cfg.max_iters == 10
    assert '# ' in config.read_text()
    # Not a second time over the first.
    assert call(main, 'pretrain', data, *options, '--work-dir', run) == 2
    assert f'mmmoco train {config} --resume' in one_line(capsys)


def test_a_plan_says_what_it_chose(tmp_path, monkeypatch, known_backbone):
    data = folder_of(tmp_path / 'tiles', 'grey', ())
    speed = measure.Speed(0.5, 10, 4, 4)
    monkeypatch.setattr(plan, 'measure_speed', lambda cfg: speed)
    monkeypatch.chdir(tmp_path)
    found = plan_job(data, hours=0.1)
    text = str(found)
    wider = str(dataclasses.replace(found, gpus=8)).splitlines()[-1]
    assert 'torchrun --nproc_per_node 8 -m mmmoco train' in wider
    assert found.config == 'work_dirs/tiles/plan/tiles.py'
    assert f'mmmoco train {found.config}' in text
    assert 'warning' in text and 'few' in text
    assert max(map(len, text.splitlines())) < 100
    cfg = load_config(found.config)
    assert cfg.work_dir == 'work_dirs/tiles'
    assert cfg.train_cfg.max_iters == found.iterations
    with in_scope_of(cfg):
        assert len(DATASETS.build(cfg.train_dataloader.dataset)) == 8


def write_weights(path, kind):
    """Write what another library would have saved, untrained."""
    torch.manual_seed(0)
    if kind == 'torchvision':
        weights = optional('torchvision').models.resnet18().state_dict()
    elif kind == 'registers':
        weights = (
            optional('timm')
            .create_model('vit_small_patch14_reg4_dinov2', img_size=56)
            .state_dict()
        )
    elif kind == 'timm':
        vit = optional('timm').create_model('vit_tiny_patch16_224')
        weights = vit.state_dict()
    else:
        net = MODELS.build(dict(type='PlainConvNet', channels=(4,),
                                strides=(1,), out_indices=(0,)))  # fmt: skip
        own = net.state_dict().items()
        weights = {f'backbone.{name}': value for name, value in own}
    torch.save(weights, path)
    return path


@pytest.mark.parametrize(
    ('kind', 'title', 'method'),
    [
        ('torchvision', 'ResNet-18', 'mocov2'),
        ('timm', 'ViT of 12 blocks', 'mocov3'),
    ],
)
@pytest.mark.parametrize('classes', [('a', 'b'), ()])
def test_a_plan_goes_on_from_a_file(tmp_path, kind, title, method, classes):
    folder = folder_of(tmp_path / 'data', 'photographs', classes, count=20)
    file = write_weights(tmp_path / 'weights.pth', kind)
    wishes = Wishes(
        data=str(folder),
        init=str(file),
        image_size=32,
        work_dir=str(tmp_path / 'run'),
    )
    start = read_start(wishes)
    assert start.title == title
    images = look(str(folder))
    chosen = choose(images, CPU, wishes, start=start)
    chosen.evaluated = 20, 20
    set_length(chosen, 200, False, 'as asked')
    assert chosen.method == method and chosen.warm == 20
    path = tmp_path / 'planned.py'
    path.write_text(config_text(chosen, []))
    cfg = load_config(str(path))
    hooks = {hook.type: hook for hook in cfg.custom_hooks}
    assert hooks['HeadWarmupHook'].iterations == 20
    assert ('FillQueueHook' in hooks) == (method == 'mocov2')
    guard = hooks['DropGuardHook']
    if classes:
        assert guard.margin == 22.4 and 'evaluation' not in guard
    else:
        assert guard.margin == 60 and guard.bank.sampler.limit == 20
        fit_workers(cfg)
        with in_scope_of(cfg):
            build_evaluation(
                guard.evaluation, dict(bank=guard.bank, query=guard.query), 0
            )
    # A tenth of what an untrained one gets, and lower from layer to layer.
    plain = choose(images, CPU, replaced(wishes, init=None, backbone=(
        'resnet18' if kind == 'torchvision' else 'vit_tiny_patch16'
    )))  # fmt: skip
    assert chosen.optimizer['lr'] == pytest.approx(
        plain.optimizer['lr'] / 10, rel=0.01
    )
    with in_scope_of(cfg):
        model = MODELS.build(cfg.model)
        model.init_weights()
        wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    name, value = next(iter(model.backbone.named_parameters()))
    theirs = checkpoint_io.read_weights(start.file, 'backbone.')[name]
    assert torch.equal(value, theirs)
    rates = {group['lr'] for group in wrapper.optimizer.param_groups}
    assert len(rates) > 3 and max(rates) == chosen.optimizer['lr']


def replaced(wishes, **options):
    return dataclasses.replace(wishes, **options)


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (dict(init='missing.pth'), "--init: 'missing.pth' "),
        (dict(allow_drop=True), '--allow-drop goes with --init'),
        (dict(init='a', allow_drop=-1), '--allow-drop -1: percentage'),
        (dict(init='a', allow_drop=float('nan')), '--allow-drop nan'),
        (dict(init='a', allow_drop=101.0), '--allow-drop 101'),
    ],
)
def test_a_start_that_makes_no_sense_is_refused(tmp_path, options, words):
    folder = folder_of(tmp_path / 'data', 'photographs', ())
    with pytest.raises((ValueError, OSError), match=re.escape(words)):
        plan_job(str(folder), work_dir=str(tmp_path / 'run'), **options)


def test_a_start_of_other_images_is_refused(tmp_path):
    folder = folder_of(tmp_path / 'data', 'infrared', ())
    file = write_weights(tmp_path / 'weights.pth', 'torchvision')
    with pytest.raises(ValueError, match='images of 3 channels, and these'):
        plan_job(str(folder), init=file, work_dir=str(tmp_path / 'run'))


@pytest.mark.parametrize('patch', [1, 8, 14, 16, 32, 48])
@pytest.mark.parametrize('size', [32, 33, 50, 224])
def test_a_side_that_is_named_can_be_taken(patch, size):
    config = dict(img_size=224, patch_size=patch)
    start = Start('a.pth', 'a.pth', config, [], [], '')
    near = start.fitting(size, asked=False)
    assert near >= 32 and near % patch == 0
    assert start.fitting(near, asked=True) == near
    if near != size:
        with pytest.raises(ValueError, match=f'take {near}'):
            start.fitting(size, asked=True)


@pytest.mark.parametrize('size', [42, 56, 70])
@pytest.mark.parametrize('kind', ['timm', 'registers'])
def test_positions_of_a_start_fit_other_sides(tmp_path, kind, size):
    file = write_weights(tmp_path / 'weights.pth', kind)
    start = read_start(Wishes(init=str(file), work_dir=str(tmp_path / 'run')))
    size = start.fitting(size, asked=False)
    config = start.backbone(3, size).config | dict(
        init_cfg=dict(
            type='Pretrained', checkpoint=start.file, prefix='backbone.'
        )
    )
    model = MODELS.build(config)
    model.init_weights()
    theirs = checkpoint_io.read_weights(start.file, 'backbone.')
    for name, value in model.state_dict().items():
        if config.get('dynamic_img_size') or 'pos_embed' not in name:
            assert torch.equal(value, theirs[name]), name
    with torch.no_grad():
        (found,) = model(torch.zeros(1, 3, size, size))[-1:]
    assert found.isfinite().all()


def test_a_start_that_is_damaged_is_refused(tmp_path):
    file = write_weights(tmp_path / 'weights.pth', 'torchvision')
    weights = torch.load(file)
    weights['layer2.0.conv1.weight'][0, 0] = float('inf')
    torch.save(weights, file)
    with pytest.raises(CheckpointError, match=r'layer2\S+ has values that'):
        read_start(Wishes(init=str(file), work_dir=str(tmp_path / 'run')))


@pytest.mark.parametrize('channels', [1, 13])
def test_a_start_may_have_bands(tmp_path, channels):
    file = write_weights(tmp_path / 'weights.pth', 'torchvision')
    weights = torch.load(file)
    first = weights['conv1.weight'].mean(1, keepdim=True)
    weights['conv1.weight'] = first.expand(-1, channels, -1, -1).clone()
    torch.save(weights, file)
    start = read_start(Wishes(init=str(file), work_dir=str(tmp_path / 'run')))
    assert start.backbone(channels, 32).config['in_channels'] == channels
    with pytest.raises(ValueError, match=f'{channels} channels, and these'):
        start.backbone(3, 32)


def test_what_tells_no_network_is_refused_in_one_line(tmp_path):
    folder = folder_of(tmp_path / 'data', 'photographs', ())
    file = write_weights(tmp_path / 'weights.pth', 'ours')
    with pytest.raises(ValueError, match='cannot be told from its tensors'):
        plan_job(str(folder), init=file, work_dir=str(tmp_path / 'run'))


@pytest.mark.parametrize(
    ('asked', 'margin'), [(False, 5.0), (True, None), (0.0, 0.0), (9, 9)]
)
def test_the_margin_is_the_one_that_was_asked_for(asked, margin):
    wishes = Wishes(init='a.pth', allow_drop=asked)
    chosen = Choices(
        images=Images('', '', [], 'colours', 3, '', 32,
                      labelled=Labelled([('a', 'a')])),  # fmt: skip
        machine=CPU, wishes=wishes, method='mocov2', backbone=None,
        image_size=32, micro_batch=2, evaluated=(900, 900),
    )  # fmt: skip
    assert chosen.guard == ('KNN', margin)


def test_a_network_is_called_the_best_only_where_it_was_compared():
    for ranked, start, last in (
        (True, 'the start itself: nothing was better', 'the best'),
        (
            False,
            'the start itself: nothing was within the margin',
            'the last within the margin',
        ),
    ):
        assert kept_for('best_x_iter_0.pth', ranked) == start
        assert kept_for('best_x_iter_10.pth', ranked) == last
        assert kept_for('iter_10.pth', ranked) == 'training'


@pytest.mark.slow
@pytest.mark.parametrize(
    ('figures', 'iteration', 'which'),
    [
        ((60.0, 70.0, 65.0), 1, 'the best'),
        ((60.0, 70.0, 40.0), 1, 'the best'),
        ((66.5, 60.0, 65.0), 0, 'the start itself: nothing was better'),
    ],
)
def test_pretrain_ends_with_the_best_network(
    tmp_path, monkeypatch, capsys, figures, iteration, which
):
    folder = folder_of(tmp_path / 'data', 'photographs', count=16)
    file = write_weights(tmp_path / 'weights.pth', 'torchvision')
    falls = 40.0 in figures
    series = iter([*figures, *[66.0] * 20])

    def told(self, model, data):
        return [Measurement({'top1': next(series), 'top5': 100.0})]

    monkeypatch.setattr(KNN, 'measure', told)
    speed = measure.Speed(0.1, 10, 8, 8)
    monkeypatch.setattr(plan, 'measure_speed', lambda cfg: speed)
    code = call(
        main,
        *('pretrain', folder, '--init', file, '--epochs', 2),
        *('--batch-size', 8, '--image-size', 32, '--allow-drop', 10),
        *('--work-dir', tmp_path / 'run'),
    )
    out = capsys.readouterr()
    best = tmp_path / 'run' / f'best_knn_iter_{iteration}.pth'
    assert f'{best} ({which})' in out.out
    assert f'k-NN top-1 {max(figures)} % of' in out.out
    assert (tmp_path / 'run' / 'export' / 'model.safetensors').is_file()
    assert code == (2 if falls else 0)
    assert ('error: Stopped at iteration 2: k-NN is 40.00 %' in out.err) == (
        falls
    )
