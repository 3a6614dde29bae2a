"""Checkpoints evaluated on any folder, with what they tell of themselves."""

import json
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import mmmoco
from mmmoco import progress
from mmmoco.apis.cli import UsageError
from mmmoco.apis.config.from_checkpoint import config_of
from mmmoco.apis.probing.folders import Folder
from mmmoco.datasets import ClassFolderSplit

from ..conftest import call, one_line, optional, results


@pytest.fixture
def checkpoint(tmp_path, small_config):
    """A checkpoint of a small network for grey or colour images."""

    def write(channels=3, **options):
        torch.manual_seed(0)
        small = {
            'model.backbone.in_channels': channels,
            'model.data_preprocessor.mean': [110.0] * channels,
            'model.data_preprocessor.std': [45.0] * channels,
        }
        cfg = small_config(**small, **options)
        path = tmp_path / f'epoch_{channels}.pth'
        torch.save(
            {
                'state_dict': mmmoco.get_model(cfg).state_dict(),
                'meta': {'cfg': cfg.pretty_text},
            },
            path,
        )
        return str(path)

    return write


def draw(folder, counts, mode='RGB', seed=0):
    """Draw images of classes that differ by their brightness."""
    draws = np.random.default_rng(seed)
    depth = {'L': (), 'RGB': (3,), 'RGBA': (4,)}[mode]
    for number, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = draws.integers(0, 30, (40, 52, *depth), dtype=np.uint8)
            image = Image.fromarray(pixels + np.uint8(110 * min(number, 2)))
            image.save(folder / name / f'{i}.png')
    return str(folder)


# ----------------------------------------------------------------------- k-NN


@pytest.mark.parametrize(
    'layout', ['train and val', 'Training and test', 'undivided', 'train only']
)
def test_class_folders_of_any_layout(layout, checkpoint, tmp_path, capsys):
    """Classes of another brightness are told apart, whatever the layout."""
    root = tmp_path / 'images'
    counts = {'dark': 10, 'light': 15}
    if layout == 'undivided':
        draw(root, counts)
    elif layout == 'train only':
        draw(root / 'train', counts)
    else:
        bank, query = layout.split(' and ')
        draw(root / bank, counts)
        draw(root / query, {'dark': 2, 'light': 3}, seed=1)
    path = checkpoint()
    found = mmmoco.evaluate_knn(path, data=str(root), k=3)
    assert found[3]['top1'] == 100.0
    (line,) = results(tmp_path)
    bank = 25 if 'and' in layout else 20
    assert line['protocol']['bank'] == bank
    assert line['protocol']['queries'] == 5
    assert line['protocol']['folder'] == str(root)
    said = capsys.readouterr().out
    assert f'2 classes; {bank} images vote on 5 others' in said
    assert ('drawn with seed 0' in said) == ('and' not in layout)


def test_the_images_of_the_bank_find_themselves(checkpoint, tmp_path):
    """Classes are matched by name: one that a split lacks shifts none."""
    draws = np.random.default_rng(0)
    for split in ('train', 'test'):
        for number in range(3):
            folder = tmp_path / 'cls' / split / f'class{number}'
            folder.mkdir(parents=True)
    for number in range(3):
        for i in range(4):
            pixels = draws.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            image = Image.fromarray(pixels).resize((48, 48))
            for split in ('train', 'test') if number else ('train',):
                image.save(
                    tmp_path / 'cls' / split / f'class{number}' / f'{i}.png'
                )
    (tmp_path / 'cls' / 'test' / 'class0').rmdir()
    hidden = tmp_path / 'cls' / 'train' / '.ipynb_checkpoints'
    hidden.mkdir()
    Image.fromarray(pixels).save(hidden / '0-checkpoint.png')
    data = str(tmp_path / 'cls')
    found = mmmoco.evaluate_knn(checkpoint(), data=data, k=1)
    assert found[1]['top1'] == 100.0


def test_what_takes_long_says_how_far_it_is(
    checkpoint, tmp_path, monkeypatch, capsys
):
    data = draw(tmp_path / 'images', {'dark': 40, 'light': 60, 'one': 1})
    path = checkpoint()
    mmmoco.evaluate_knn(path, data=data)
    said = capsys.readouterr()
    assert 'Features of images' not in said.out + said.err
    assert '1 of 3 classes have one image (one)' in said.out + said.err
    monkeypatch.setattr(progress, 'PATIENCE', 0)
    mmmoco.evaluate_knn(path, data=data)
    assert 'Features of images: 64 of 81 (79 %)' in capsys.readouterr().err


def test_leave_one_out_takes_every_image(checkpoint, tmp_path):
    data = draw(tmp_path / 'images', {'dark': 4, 'light': 5})
    path = checkpoint()
    found = mmmoco.evaluate_knn(path, data=data, leave_one_out=True)
    # Among all others each class has fewer of its own: half of them vote.
    assert list(found) == [4] and found[4]['top1'] == 100
    (line,) = results(tmp_path)
    assert line['protocol']['bank'] == line['protocol']['queries'] == 9
    assert line['protocol']['leave_one_out'] is True


@pytest.mark.slow
def test_several_folders_in_one_call(checkpoint, tmp_path, capsys):
    one = draw(tmp_path / 'one', {'dark': 10, 'light': 10})
    two = draw(tmp_path / 'two', {'a': 5, 'b': 5, 'c': 5}, mode='L')
    path = checkpoint()
    assert call(mmmoco.evaluate_knn, path, '--data', one, two, '--k', 3) == 0
    assert [line['protocol']['folder'] for line in results(tmp_path)] == [
        one,
        two,
    ]
    out = capsys.readouterr().out
    assert f'{one}: k-NN, k=3: ' in out and f'{two}: k-NN, k=3: ' in out
    again = mmmoco.evaluate_knn(path, data=[one, two], k=3)
    assert list(again) == [one, two] and list(again[one]) == [3]
    alone = mmmoco.evaluate_knn(path, data=one, k=3)
    assert alone == again[one]


@pytest.mark.slow
def test_probe_and_svm_on_class_folders(checkpoint, tmp_path):
    data = draw(tmp_path / 'images', {'dark': 10, 'light': 10})
    path = checkpoint()
    probe = mmmoco.linear_probe(path, data=data, lrs=[0.1], epochs=5)
    assert probe.metrics['top1'] >= 50.0
    assert mmmoco.evaluate_svm(path, data=data, shots=[]).metrics['mAP'] > 50
    mmmoco.test(path, data=data)
    rows = mmmoco.evaluate_checkpoints(str(tmp_path), data=data)
    tasks = [line['task'] for line in results(tmp_path)]
    assert tasks == ['linear', 'svm', 'knn', 'knn']
    assert rows[0]['top1'] == results(tmp_path)[2]['metrics']['top1']


def test_a_split_is_a_fifth_of_each_class(tmp_path):
    counts = {'a': 1, 'b': 2, 'c': 10, 'd': 23}
    root = draw(tmp_path / 'images', counts)

    def part(name, seed=0):
        return ClassFolderSplit(part=name, seed=seed, data_root=root)

    bank, query = part('bank'), part('query')
    assert not set(bank.paths) & set(query.paths)
    assert len(bank) + len(query) == sum(counts.values())
    assert [query.labels.count(i) for i in range(4)] == [0, 1, 2, 5]
    assert bank.classes == query.classes == tuple('abcd')
    assert query.paths == part('query').paths != part('query', 1).paths
    for found in (bank, query):
        folders = [p.split('/')[-2] for p in found.paths]
        assert [found.classes[i] for i in found.labels] == folders
    with pytest.raises(ValueError, match='one image'):
        ClassFolderSplit(
            part='bank', data_root=draw(tmp_path / 'x', {'a': 1, 'b': 1})
        )


def test_unreadable_images_and_classes_called_train(
    checkpoint, tmp_path, capsys
):
    root = tmp_path / 'vehicles'
    data = draw(root, {'bus': 10, 'train': 10, 'test': 10})
    (root / 'bus' / '0.png').write_bytes(b'no image')
    path = checkpoint()
    assert mmmoco.evaluate_knn(path, data=data, k=3)[3]['top1'] > 50
    said = capsys.readouterr()
    assert '3 classes' in said.out
    assert '1 of 24 images could not be read' in said.out + said.err or (
        '1 of 6 images could not be read' in said.out + said.err
    )


@pytest.mark.parametrize(
    ('make', 'said'),
    [
        (lambda root: None, 'is no folder'),
        (lambda root: root.mkdir(), 'has none'),
        (lambda root: draw(root, {'a': 3}), "has only 'a'"),
        (lambda root: draw(root, {'': 3}), "'0.png' lies in no class folder"),
        (
            lambda root: draw(root, {'': 3, 'a': 1, 'b': 1}),
            'lies in no class folder',
        ),
        (lambda root: draw(root, {'a': 1, 'b': 1}), 'one image'),
        (lambda root: draw(root / 'train', {'a': 3}), "has only 'a'"),
    ],
)
def test_folders_that_do_not_do(make, said, checkpoint, tmp_path, capsys):
    make(tmp_path / 'images')
    path, data = checkpoint(), tmp_path / 'images'
    capsys.readouterr()
    if data.exists():
        assert call(mmmoco.evaluate_knn, path, '--data', data) == 2
        assert said in one_line(capsys)
    else:
        with pytest.raises(FileNotFoundError, match=said):
            Folder(str(data)).applied_to(config_of(path))


@pytest.mark.parametrize(
    ('job', 'layout', 'patterns'),
    [
        (
            lambda path, **data: mmmoco.evaluate_knn(path, k=1, **data),
            'divided',
            dict(include=['?.png']),
        ),
        (
            lambda path, **data: mmmoco.linear_probe(path, epochs=1, **data),
            'undivided',
            dict(exclude=['*_mask.png']),
        ),
        (
            lambda path, **data: mmmoco.evaluate_svm(path, shots=[], **data),
            'divided',
            dict(exclude=['*_mask.png', 'nothing']),
        ),
        (
            lambda path, **data: mmmoco.evaluate_checkpoints(
                os.path.dirname(path), k=1, **data
            ),
            'undivided',
            dict(include=['?.png'], exclude=['*_mask.png']),
        ),
    ],
)
def test_masks_beside_the_images_are_left_out(
    job, layout, patterns, checkpoint, tmp_path
):
    """Figures are those of the folder without them, and say so."""
    root, counts = tmp_path / 'images', {'dark': 10, 'light': 10}
    parts = [root] if layout == 'undivided' else [root / 'train', root / 'val']
    for part in parts:
        draw(part, counts)
        for image in list(part.rglob('*.png')):
            shutil.copy(image, image.with_name(f'{image.stem}_mask.png'))
    job(checkpoint(), data=str(root), **patterns)
    for line in results(tmp_path):
        found = line['protocol']
        assert found['bank'] + found['queries'] == 20 * len(parts)
        assert found.items() >= {'folder': str(root), **patterns}.items()


def test_patterns_of_no_folder_are_refused(checkpoint, tmp_path):
    path, out = checkpoint(), str(tmp_path / 'f.npz')
    cfg, left_out = config_of(path), dict(exclude=['*_mask.png'])
    for job, source, more in (
        (mmmoco.evaluate_knn, path, {}),
        (mmmoco.linear_probe, path, {}),
        (mmmoco.evaluate_svm, path, {}),
        (mmmoco.evaluate_checkpoints, str(tmp_path), {}),
        (mmmoco.extract_features, path, dict(out=out)),
        (mmmoco.near_duplicates, str(tmp_path), dict(features=out)),
    ):
        with pytest.raises(UsageError, match='--exclude without --'):
            job(source, config=cfg, **more, **left_out)
        with pytest.raises(TypeError):
            job(source, config=cfg, **more, excluded=['*_mask.png'])
    data = draw(tmp_path / 'images', {'': 2})
    (tmp_path / 'images' / 'a_mask.png').write_bytes(b'')
    found = mmmoco.extract_features(path, data=data, out=out, **left_out)
    assert len(found['features']) == 2


def test_a_number_of_neighbours_that_was_asked_for(
    checkpoint, tmp_path, capsys
):
    data = draw(tmp_path / 'images', {'dark': 5, 'light': 5})
    argv = [checkpoint(), '--data', data]
    assert call(mmmoco.evaluate_knn, *argv, '--k', 9) == 2
    assert 'holds only 8 samples' in one_line(capsys)
    assert call(mmmoco.evaluate_knn, *argv) == 0
    assert 'k=4, half of what there is' in capsys.readouterr().out
    assert call(mmmoco.evaluate_knn, argv[0]) == 2
    assert '--data' in one_line(capsys)


@pytest.mark.parametrize(
    ('mode', 'channels'), [('L', 1), ('RGB', 3), ('L', 3), ('RGBA', 4)]
)
def test_images_of_other_channels(mode, channels, checkpoint, tmp_path):
    data = draw(tmp_path / 'images', {'dark': 5, 'light': 5}, mode)
    path = checkpoint(channels)
    assert mmmoco.evaluate_knn(path, data=data, k=3)[3]['top1'] == 100.0


@pytest.mark.slow
def test_the_config_says_how_a_folder_is_seen(checkpoint, tmp_path):
    """With a config and a folder, and with the folder alone: the same."""
    data = draw(tmp_path / 'images', {'dark': 5, 'light': 5, 'lighter': 5})
    path = checkpoint()
    config = tmp_path / 'config.py'
    config.write_text(config_of(path).pretty_text)
    first = mmmoco.evaluate_knn(path, data=data)
    assert mmmoco.evaluate_knn(path, config=str(config), data=data) == first
    assert call('knn.py', config, path, '--data', data) == 0
    assert len({json.dumps(x['metrics']) for x in results(tmp_path)}) == 1


# ------------------------------------------------------------------- features


def read(path):
    """Return features and file names of a file."""
    if path.suffix == '.npz':
        with np.load(path, allow_pickle=False) as file:
            return file['features'], file['paths'].tolist()
    if path.suffix == '.parquet':
        table = optional('pyarrow.parquet').read_table(path)
        shape = json.loads(table.schema.metadata[b'shape'])
        values = np.array(table['features'].to_pylist(), np.float32)
        return values.reshape(len(values), *shape), table['path'].to_pylist()
    with optional('safetensors').safe_open(path, 'np') as file:
        paths = json.loads(file.metadata()['paths'])
        return file.get_tensor('features'), paths


@pytest.mark.parametrize('suffix', ['.npz', '.safetensors', '.parquet'])
def test_features_of_a_flat_folder_with_its_names(
    suffix, checkpoint, tmp_path
):
    data = draw(tmp_path / 'images', {'': 5})
    path, out = checkpoint(), tmp_path / f'f{suffix}'
    mmmoco.extract_features(path, data=data, out=str(out))
    values, paths = read(out)
    assert values.shape == (5, 8)
    assert paths == [f'{data}/{i}.png' for i in range(5)]
    maps = tmp_path / f'maps{suffix}'
    arrays = mmmoco.extract_features(
        path, data=data, out=str(maps), tokens='patch'
    )
    pixels, paths = read(maps)
    height, width = arrays['grid']
    assert pixels.shape == (5, height * width, 8) and len(paths) == 5
    np.testing.assert_allclose(pixels.mean(1), values, atol=1e-5)


def test_features_of_class_folders_have_their_labels(
    checkpoint, tmp_path, capfd
):
    path, out = checkpoint(), str(tmp_path / 'f.npz')
    for part in ('train', 'val'):
        data = draw(tmp_path / 'images' / part, {'b': 3, 'a': 2})
    found = mmmoco.extract_features(path, data=data, out=out)
    assert found['labels'].tolist() == [0, 0, 1, 1, 1]
    both = mmmoco.extract_features(path, data=f'{data}/..', out=out)
    assert len(both['ids']) == 10 and 'labels' not in both
    assert "'train' and what lies beside it" in capfd.readouterr().out
    draw(tmp_path / 'images' / part, {'': 1})  # An image of no class.
    assert 'labels' not in mmmoco.extract_features(path, data=data, out=out)


@pytest.fixture
def vit(tmp_path):
    """A checkpoint of a small ViT, and its backbone."""
    cfg = mmmoco.load_config('mocov3_vit-s_8xb128_300e')
    cfg.model.backbone.arch = dict(
        embed_dims=24, num_layers=3, num_heads=2, feedforward_channels=48
    )
    cfg.model.backbone.img_size = 32
    cfg.model.neck.update(in_channels=24, hid_channels=16)
    cfg.model.predictor.hid_channels = 16
    for view in cfg.train_dataloader.dataset.pipeline[1].views.values():
        view[0].size = 32
    cfg.pop('knn')
    model = mmmoco.get_model(cfg)
    path = tmp_path / 'epoch_1.pth'
    torch.save(
        {'state_dict': model.state_dict(), 'meta': {'cfg': cfg.pretty_text}},
        path,
    )
    return str(path), model


@pytest.mark.slow
def test_every_layer_and_token_of_a_transformer(vit, tmp_path):
    path, model = vit
    data = draw(tmp_path / 'images', {'': 3})

    def extract(**options):
        out = str(tmp_path / 'f.npz')
        return mmmoco.extract_features(path, data=data, out=out, **options)

    whole = extract(tokens='all')['features']
    patches = extract(tokens='patch')
    assert whole.shape == (3, 1 + 4, 24)
    assert patches['grid'].tolist() == [2, 2]
    np.testing.assert_allclose(whole[:, 1:], patches['features'], atol=1e-5)
    np.testing.assert_allclose(
        whole[:, 0], extract(tokens='cls')['features'], atol=1e-5
    )
    np.testing.assert_allclose(
        patches['features'].mean(1),
        extract(stage='mean_patch')['features'],
        atol=1e-5,
    )
    outputs = []
    for layer in model.backbone.layers:
        layer.register_forward_hook(lambda *args: outputs.append(args[-1]))
    pipeline = config_of(path).eval_pipeline
    from mmmoco.datasets import ImageFolderDataset

    images = ImageFolderDataset(data, pipeline=pipeline)
    x = torch.stack([images[i]['inputs']['image'] for i in range(3)])
    batch = model.data_preprocessor({'inputs': {'image': x}}, False)
    with torch.no_grad():
        model.backbone(batch['inputs']['image'])
        last = model.backbone.ln1(outputs[-1])
    for number in range(3):
        expected = last if number == 2 else outputs[number]
        for name in (number, number - 3):
            found = extract(tokens='all', layer=name)['features']
            np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (['--layer', 3], 'has layers 0 to 2'),
        (['--layer', -4], 'has layers 0 to 2'),
        (['--layer', 1, '--stage', 'neck'], 'follows the last layer'),
        (['--tokens', 'all', '--stage', 'neck'], 'do not go together'),
        (['--out', 'f.csv'], '.npz or .safetensors or .parquet'),
        (['--images', '.'], 'mean the same'),
    ],
)
def test_features_that_are_not_there(vit, tmp_path, options, said, capsys):
    data = draw(tmp_path / 'images', {'': 2})
    argv = [vit[0], '--data', data, '--out', tmp_path / 'f.npz', *options]
    assert call(mmmoco.extract_features, *argv) == 2
    assert said in one_line(capsys)


def test_a_network_without_tokens(checkpoint, tmp_path, capsys):
    data = draw(tmp_path / 'images', {'': 2})
    argv = [checkpoint(), '--data', data, '--out', tmp_path / 'f.npz']
    for tokens in ('cls', 'all'):
        assert call(mmmoco.extract_features, *argv, '--tokens', tokens) == 2
        assert 'no class and patch tokens' in one_line(capsys)
    first = mmmoco.extract_features(
        argv[0], data=data, out=str(argv[-1]), layer=0
    )
    assert first['features'].shape == (2, 4)
