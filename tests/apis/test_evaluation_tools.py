"""The tools that evaluate, called as a user calls them."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

import mmmoco
from mmmoco.apis import load_config
from mmmoco.apis.data.jobs import label_subset
from mmmoco.apis.data.label_subset import split_by_class
from mmmoco.apis.probing import checkpoints
from mmmoco.apis.probing.jobs import (
    evaluate_knn,
)
from mmmoco.apis.training import runner
from mmmoco.datasets import ImageFolderDataset
from mmmoco.engine.evaluation.leaks import ImageIdentity

from .. import conftest
from ..conftest import call, optional, results

pytestmark = pytest.mark.slow

TINY = ['--cfg-options', *conftest.TINY]


@pytest.fixture
def model(small_config):
    torch.manual_seed(0)  # Thirty queries may all be wrong by chance.
    return mmmoco.get_model(small_config())


@pytest.fixture
def weights(tmp_path, model):
    path = tmp_path / 'epoch_10.pth'
    torch.save({'state_dict': model.state_dict()}, path)
    return path


# ---------------------------------------------------------------- k-NN, probe


def test_knn_with_several_k(tmp_path, weights):
    argv = ['demo/mocov2_digits', weights, '--k', 10, 20, '--temperature', 0.1]
    assert call('knn.py', *argv, *TINY) == 0
    lines = results(tmp_path)
    assert [line['protocol']['k'] for line in lines] == [10, 20]
    assert {line['protocol']['temperature'] for line in lines} == {0.1}
    assert lines[0]['checkpoint_hash'] == lines[1]['checkpoint_hash']


def test_memory_mapped_bank_and_faiss_give_the_same_figures(tmp_path, weights):
    folder = tmp_path / 'features'
    for options in (
        [],
        [f'knn.memory_map={folder}', 'knn.backend=torch'],
        ['knn.backend=faiss'],
    ):
        argv = ['demo/mocov2_digits', weights, *TINY, *options]
        assert call('knn.py', *argv) == 0
    plain, mapped, faiss = (line['metrics'] for line in results(tmp_path))
    assert plain == mapped == faiss
    assert folder.is_dir() and not list(folder.iterdir())


def test_linear_probe(tmp_path, weights, capsys):
    argv = ['demo/mocov2_digits', weights, '--lrs', 0.1, 0.3]
    argv += ['--weight-decays', 0, '--epochs', 4]
    assert call('linear_probe.py', *argv, *TINY) == 0
    (line,) = results(tmp_path)
    assert line['task'] == 'linear'
    assert line['protocol']['lrs'] == [0.1, 0.3]
    assert line['protocol']['lr'] in (0.1, 0.3)
    assert 0 < line['metrics']['top1'] <= line['metrics']['top5'] <= 100
    assert call('linear_probe.py', *argv, '--held-out', 2, *TINY) == 2
    assert 'held_out=2' in capsys.readouterr().err
    assert call('linear_probe.py', 'demo/mocov2_digits', 'no.pth') == 2
    assert 'no.pth' in capsys.readouterr().err


# ---------------------------------------------------------------- checkpoints


@pytest.fixture
def series(tmp_path, model):
    """Three checkpoints, one of which is cut off."""
    for epoch in (1, 2, 10):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.05 * torch.randn_like(parameter)
        path = tmp_path / f'epoch_{epoch}.pth'
        torch.save({'state_dict': model.state_dict()}, path)
    path = tmp_path / 'epoch_2.pth'
    path.write_bytes(path.read_bytes()[:3000])
    return tmp_path


@pytest.mark.parametrize('protocol', ['knn', 'linear'])
def test_checkpoints_are_evaluated_once(series, protocol, monkeypatch):
    argv = ['demo/mocov2_digits', '--checkpoint-dir', series]
    argv += ['--protocol', protocol, '--k', 5, '--probe-epochs', 2, *TINY]
    argv[3:3] = ['--epochs', 1, 2]
    assert call('evaluate_checkpoints.py', *argv) == 0
    del argv[3:6]
    assert len(results(series)) == 1
    loaded = []
    original = checkpoints.measure
    monkeypatch.setattr(
        checkpoints,
        'measure',
        lambda cfg, path, *rest: (
            loaded.append(path) or original(cfg, path, *rest)
        ),
    )
    assert call('evaluate_checkpoints.py', *argv) == 0
    # The damaged one is tried again, the first is not.
    assert [p.rsplit('/')[-1] for p in loaded] == [
        'epoch_2.pth',
        'epoch_10.pth',
    ]
    stem = series / f'checkpoints_{protocol}'
    rows = json.loads(stem.with_suffix('.json').read_text())
    assert [row['number'] for row in rows] == [1, 2, 10]
    assert 'damaged' in rows[1]['error'] or 'read' in rows[1]['error']
    assert 'top1' not in rows[1]
    with stem.with_suffix('.csv').open() as file:
        table = list(csv.DictReader(file))
    lines = results(series)
    assert [line['epoch'] for line in lines] == [1, 10]
    for row, line in zip((table[0], table[2]), lines):
        assert float(row['top1']) == line['metrics']['top1']
    with Image.open(stem.with_suffix('.png')) as picture:
        assert np.asarray(picture).std() > 5


def test_another_protocol_or_file_is_evaluated_anew(series, model):
    argv = ['demo/mocov2_digits', '--checkpoint-dir', series, '--epochs', 1]
    assert call('evaluate_checkpoints.py', *argv, '--k', 5, *TINY) == 0
    assert call('evaluate_checkpoints.py', *argv, '--k', 7, *TINY) == 0
    assert len(results(series)) == 2
    torch.save({'state_dict': model.state_dict()}, series / 'epoch_1.pth')
    assert call('evaluate_checkpoints.py', *argv, '--k', 7, *TINY) == 0
    assert len(results(series)) == 3


def test_missing_or_unusable_checkpoints(series, capsys):
    argv = ['demo/mocov2_digits', '--checkpoint-dir', series]
    code = call('evaluate_checkpoints.py', *argv, '--epochs', 3, *TINY)
    assert code == 2
    assert 'it has 1, 2, 10' in capsys.readouterr().err
    code = call('evaluate_checkpoints.py', *argv, '--epochs', 2, *TINY)
    assert code == 2
    assert 'None of the 1 checkpoints' in capsys.readouterr().err


# ------------------------------------------------------------------- features


def test_features_to_npz(tmp_path, weights, model):
    out = tmp_path / 'f.npz'
    argv = ['demo/mocov2_digits', weights, '--out', out]
    assert call('extract_features.py', *argv, *TINY) == 0
    with np.load(out, allow_pickle=False) as file:
        assert file['features'].shape == (30, 8)
        assert file['labels'].shape == (30,)
        assert file['ids'].tolist() == list(range(30))
        ours = file['features']
    cfg = load_config(
        'demo/mocov2_digits', {'knn.query.dataset.num_scenes': 30}
    )
    from mmengine.registry import init_default_scope
    from mmengine.runner import Runner

    init_default_scope('mmmoco')  # That of the job is gone with it.
    loader = Runner.build_dataloader(cfg.knn.query, seed=0)
    model.eval()
    with torch.no_grad():
        batch = model.data_preprocessor(next(iter(loader)), False)
        expected = model.backbone(batch['inputs']['image'])[-1].mean((2, 3))
    np.testing.assert_allclose(ours, expected.numpy(), atol=1e-5)
    code = call('extract_features.py', *argv, '--stage', 'neck', *TINY)
    assert code == 0
    with np.load(out) as file:
        assert file['features'].shape == (30, 64)
        np.testing.assert_allclose(
            np.linalg.norm(file['features'], axis=1), 1, rtol=1e-5
        )


@pytest.mark.parametrize('suffix', ['.npz', '.safetensors'])
def test_an_unreadable_image_has_no_row(tmp_path, weights, capsys, suffix):
    """Its replacement stood there, under an id that was there already."""
    names = [f'{i}.png' for i in range(9)]
    draw_images(tmp_path / 'images', names, 16)
    out, whole = tmp_path / f'f{suffix}', tmp_path / f'whole{suffix}'
    argv = ['demo/mocov2_digits', weights, '--size', 16]
    argv += ['--images', tmp_path / 'images']
    options = [*TINY, 'model.backbone.in_channels=3']
    options += ['model.data_preprocessor.mean=127.5,127.5,127.5']
    options += ['model.data_preprocessor.std=64,64,64']
    cfg = load_config('demo/mocov2_digits', colour_options(options))
    state = {'state_dict': mmmoco.get_model(cfg).state_dict()}
    torch.save(state, weights)
    assert call('extract_features.py', *argv, '--out', whole, *options) == 0
    for name in ('0.png', '4.png', '8.png'):
        (tmp_path / 'images' / name).write_bytes(b'no image')
    assert call('extract_features.py', *argv, '--out', out, *options) == 0
    told = capsys.readouterr().out
    assert '3 of 9 images could not be read' in told and '4.png' in told
    found, expected = map(read_features, (out, whole))
    assert found['ids'].tolist() == [1, 2, 3, 5, 6, 7]
    assert [p.rsplit('/')[-1] for p in found['paths']] == [
        f'{i}.png' for i in found['ids']
    ]
    np.testing.assert_allclose(
        found['features'], expected['features'][found['ids']], atol=1e-5
    )


def colour_options(options):
    """Dotted options as the command line reads them."""
    from mmengine.config import DictAction

    pairs = [o.split('=', 1) for o in options[1:]]
    return {k: DictAction._parse_iterable(v) for k, v in pairs}


def read_features(path):
    """Arrays of a file, and its paths."""
    if path.suffix == '.npz':
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    safetensors = optional('safetensors')
    with safetensors.safe_open(path, 'np') as file:
        paths = json.loads(file.metadata()['paths'])
    return optional('safetensors.numpy').load_file(path) | {'paths': paths}


VIT = """
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='VisionTransformer', img_size=32, patch_size=16,
        arch=dict(embed_dims=24, num_layers=2, num_heads=2,
                  feedforward_channels=48)))
default_scope = 'mmpretrain'
data_preprocessor = dict(mean=[127.5] * 3, std=[64.0] * 3, to_rgb=True)
"""


def test_tokens_of_a_foreign_backbone_to_safetensors(tmp_path, capsys):
    """Of a config of mmpretrain, for a folder of images."""
    from mmpretrain.models import VisionTransformer

    config = tmp_path / 'vit.py'
    config.write_text(VIT)
    arch = dict(
        embed_dims=24, num_layers=2, num_heads=2, feedforward_channels=48
    )
    backbone = VisionTransformer(arch, img_size=32, patch_size=16)
    backbone.eval()
    path = tmp_path / 'vit.pth'
    state = {f'backbone.{k}': v for k, v in backbone.state_dict().items()}
    torch.save({'state_dict': state}, path)
    draws = np.random.default_rng(0)
    images = draws.integers(0, 256, (3, 37, 37, 3), dtype=np.uint8)
    for i, pixels in enumerate(images):
        (tmp_path / 'images').mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / 'images' / f'{i}.png')
    crops = torch.from_numpy(images[:, 2:34, 2:34]).permute(0, 3, 1, 2)
    with torch.no_grad():
        x = (crops.float() - 127.5) / 64
        backbone.out_type = 'raw'
        tokens = backbone(x)[-1]
    for stage, expected in (
        ('cls', tokens[:, 0]),
        ('mean_patch', tokens[:, 1:].mean(1)),
    ):
        out = tmp_path / f'{stage}.safetensors'
        argv = [config, path, '--out', out, '--stage', stage]
        argv += ['--images', tmp_path / 'images', '--size', 32]
        assert call('extract_features.py', *argv) == 0
        with optional('safetensors').safe_open(out, 'np') as file:
            found = file.get_tensor('features')
            paths = json.loads(file.metadata()['paths'])
        assert [p.rsplit('/')[-1] for p in paths] == [
            '0.png',
            '1.png',
            '2.png',
        ]
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)


def test_bad_stage_ending_and_weights(tmp_path, weights, capsys):
    argv = ['demo/mocov2_digits', weights, '--out']
    assert call('extract_features.py', *argv, 'a.csv', *TINY) == 2
    assert '.npz or .safetensors' in capsys.readouterr().err
    out = tmp_path / 'f.npz'
    code = call('extract_features.py', *argv, out, '--stage', 'cls', *TINY)
    assert code == 2
    assert 'no class and patch tokens' in capsys.readouterr().err
    assert call('extract_features.py', *argv, out) == 2  # another backbone
    assert 'does not fit' in capsys.readouterr().err
    assert not out.exists()


# -------------------------------------------------- data sets of the probes


def draw_images(folder, names, side=24):
    draws = np.random.default_rng(0)
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = draws.integers(0, 256, (side, side, 3), dtype=np.uint8)
        pixels[..., i % 3] //= 4
        Image.fromarray(pixels).save(path)


SMALL_R50 = {
    'model.backbone.depth': 18,
    'model.backbone.stem_channels': 8,
    'model.backbone.base_channels': 8,
    'model.neck.in_channels': 64,
    'model.dictionary.size': 64,
}


def small_options(root):
    """Options that make a features config small."""
    options = dict(SMALL_R50)
    for name in ('bank', 'query'):
        options[f'knn.{name}.dataset.data_root'] = root
        options[f'knn.{name}.num_workers'] = 0
        options[f'knn.{name}.dataset.pipeline.2.size'] = 32
        options[f'knn.{name}.dataset.pipeline.3.size'] = 32
    options['knn.k'] = 3
    return ['--cfg-options', *(f'{k}={v}' for k, v in options.items())]


def random_weights(config, options, path):
    pairs = dict(o.split('=', 1) for o in options[1:])
    chosen = {k: int(v) for k, v in pairs.items() if k.startswith('model')}
    cfg = load_config(config, chosen)
    state = mmmoco.get_model(cfg).state_dict()
    torch.save({'state_dict': state}, path)
    return path


def test_eurosat_layout(tmp_path):
    root = tmp_path / 'eurosat'
    names = [
        f'{c}/{c}_{i}.jpg'
        for c in ('Forest', 'River', 'SeaLake')
        for i in range(10)
    ]
    draw_images(root, names)
    argv = [root, '--percent', 80, '--seed', 42, '--out', root / 'train.txt']
    argv += ['--rest', root / 'test.txt']
    assert call(label_subset, *argv) == 0
    lists = [
        (root / f).read_text().split('\n') for f in ('train.txt', 'test.txt')
    ]
    assert [len(x) - 1 for x in lists] == [24, 6]
    config = 'benchmarks/classification/eurosat/features_mocov2_r50_eurosat'
    options = small_options(root)
    path = random_weights(config, options, tmp_path / 'w.pth')
    assert call('knn.py', config, path, *options) == 0
    argv = [config, path, '--epochs', 3, '--lrs', 0.1]
    assert call('linear_probe.py', *argv, *options) == 0
    first, second = results(tmp_path)
    assert (first['protocol']['bank'], first['protocol']['queries']) == (24, 6)
    assert second['task'] == 'linear'


@pytest.mark.slow
def test_multi_label_layouts(tmp_path):
    """BigEarthNet as mmpretrain's JSON: k-NN, linear and SVM by mAP."""
    root = tmp_path / 'bigearthnet'
    place = 'benchmarks/classification/bigearthnet'
    config = f'{place}/features_mocov2_r50_bigearthnet'
    classes = [str(i) for i in range(19)]
    for split, n in (('train', 30), ('test', 12)):
        names = [f'{split}/{i}.png' for i in range(n)]
        draw_images(root, names)
        data = [
            {'img_path': name, 'gt_label': [i % 3, 3 + i % 2]}
            for i, name in enumerate(names)
        ]
        text = json.dumps(
            {'metainfo': {'classes': classes}, 'data_list': data}
        )
        (root / f'{split}.json').write_text(text)
    options = small_options(root)
    path = random_weights(config, options, tmp_path / 'w.pth')
    assert call('knn.py', config, path, *options) == 0
    argv = [config, path, '--epochs', 3, '--lrs', 0.1, 0.2]
    assert call('linear_probe.py', *argv, *options) == 0
    argv = [config, path, '--shots', 2, '--draws', 1]
    assert call('svm.py', *argv, *options) == 0
    lines = results(tmp_path)
    assert [line['task'] for line in lines] == ['knn', 'linear', 'svm']
    for line in lines[:2]:
        assert set(line['metrics']) == {'mAP', 'micro_mAP'}
    assert {'mAP', 'mAP_2_shot', 'mAP_2_shot_std'} == set(lines[2]['metrics'])


VOC_XML = """<annotation><size><width>24</width><height>24</height></size>
{objects}</annotation>"""
VOC_OBJECT = '<object><name>{0}</name><difficult>{1}</difficult></object>'


def test_voc_layout(tmp_path):
    from mmengine.registry import init_default_scope

    from mmmoco.registry import DATASETS

    root = tmp_path / 'VOC2007'
    (root / 'Annotations').mkdir(parents=True)
    (root / 'ImageSets' / 'Main').mkdir(parents=True)
    draw_images(root / 'JPEGImages', ['000001.jpg'])
    (root / 'ImageSets' / 'Main' / 'trainval.txt').write_text('000001\n')
    objects = VOC_OBJECT.format('cat', 0) + VOC_OBJECT.format('dog', 1)
    (root / 'Annotations' / '000001.xml').write_text(
        VOC_XML.format(objects=objects)
    )
    place = 'benchmarks/classification/voc07'
    cfg = load_config(f'{place}/features_mocov2_r50_voc07')
    cfg.knn.bank.dataset.data_root = str(root)
    init_default_scope('mmmoco')
    sample = DATASETS.build(cfg.knn.bank.dataset)[0]
    assert sample['inputs']['image'].shape == (3, 224, 224)
    labels = dict(enumerate(sample['labels'].tolist()))
    assert {k: v for k, v in labels.items() if v} == {7: 1, 11: -1}


# ----------------------------------------------------------------- few labels


def test_subset_is_stratified_and_the_same_again():
    labels = [0] * 100 + [1] * 50 + [2] * 3
    chosen, rest = split_by_class(labels, 10, seed=0)
    assert [sum(labels[i] == c for i in chosen) for c in range(3)] == [
        10,
        5,
        1,
    ]
    assert sorted(chosen + rest) == list(range(153))
    assert split_by_class(labels, 10, seed=0) == (chosen, rest)
    assert split_by_class(labels, 10, seed=1)[0] != chosen
    # One class does not change another's draw.
    assert split_by_class(labels[:100], 10, seed=0)[0] == chosen[:10]


def test_subset_tool_refuses_nonsense(tmp_path, capsys):
    draw_images(tmp_path, ['a/0.png', 'b/0.png'])
    argv = [tmp_path, '--out', tmp_path / 'x.txt', '--percent']
    assert call(label_subset, *argv, 0) == 2
    assert '--percent 0' in capsys.readouterr().err
    assert call(label_subset, *argv, 1) == 0
    assert (tmp_path / 'x.txt').read_text() == 'a/0.png 0\nb/0.png 1\n'


def test_epochs_and_iterations_do_not_share_a_curve(tmp_path):
    """A run by epochs that was stopped leaves an iteration as well."""
    find = checkpoints.find_checkpoints
    for name in ('epoch_1.pth', 'epoch_1.safetensors', 'epoch_2.pth'):
        (tmp_path / name).touch()
    for name in ('iter_2.pth', 'iter_600.pth'):
        (tmp_path / name).touch()
    names = {n: path.name for n, path in find(str(tmp_path)).items()}
    assert names == {1: 'epoch_1.pth', 2: 'epoch_2.pth'}
    assert find(str(tmp_path), [2])[2].name == 'epoch_2.pth'
    assert find(str(tmp_path), [600])[600].name == 'iter_600.pth'
    with pytest.raises(FileNotFoundError):
        find(str(tmp_path), [1, 600])


def test_other_data_are_another_evaluation(tmp_path, weights):
    """Another image under an old name, or another label of it."""
    folder = tmp_path / 'images'
    folder.mkdir()
    draw_images(folder, [f'{i}.png' for i in range(8)])
    sets = [
        ImageFolderDataset(
            data_root=str(folder),
            ann_file='list.txt',
            data_prefix='',
            with_labels=True,
            pipeline=[],
        )
        for text in (
            ''.join(f'{i}.png {i % 2}\n' for i in range(8)),
            ''.join(f'{i}.png {i % 3}\n' for i in range(8)),
        )
        if (folder / 'list.txt').write_text(text)
    ]
    hashes = [ImageIdentity(sets[0], sets[0]).data_hash() for _ in range(2)]
    assert hashes[0] == hashes[1]
    hashes.append(ImageIdentity(sets[0], sets[1]).data_hash())
    draw_images(folder, ['3.png'], side=30)
    hashes.append(ImageIdentity(sets[0], sets[0]).data_hash())
    assert len(set(hashes)) == 3


def test_a_link_to_nowhere_is_skipped(series):
    for path in series.glob('epoch_*.pth'):
        if path.name != 'epoch_1.pth':
            path.unlink()
    (series / 'epoch_3.pth').symlink_to('nowhere')
    (series / 'epoch_4.pth').mkdir()
    argv = ['demo/mocov2_digits', '--checkpoint-dir', series]
    assert call('evaluate_checkpoints.py', *argv, *TINY) == 0
    rows = json.loads((series / 'checkpoints_knn.json').read_text())
    assert [bool(row['error']) for row in rows] == [False, True, True]


@pytest.mark.parametrize('option', ['--lrs', '--weight-decays'])
def test_rates_that_are_no_numbers(weights, option, capsys):
    argv = ['demo/mocov2_digits', weights, option, 'nan']
    assert call('linear_probe.py', *argv, *TINY) == 2
    assert 'nan' in capsys.readouterr().err


def test_one_number_of_neighbours_is_enough(monkeypatch):
    chosen = []
    monkeypatch.setattr(checkpoints, 'read_config', lambda *args: {})
    monkeypatch.setattr(runner, 'init_processes', lambda *args, **kw: None)
    monkeypatch.setattr(
        checkpoints, 'evaluate', lambda *args: chosen.append(args[2]) or []
    )
    for k in (20, [20]):
        evaluate_knn('a.pth', config='config', k=k)
    assert chosen[0] == chosen[1] and chosen[0]['k'] == [20]
