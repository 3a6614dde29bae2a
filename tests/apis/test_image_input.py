"""extract_feat takes images of any kind, and sees them as k-NN does."""

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from PIL import Image

import mmmoco
from mmmoco.apis.image_input import ImageInput
from mmmoco.datasets import ImageFolderDataset
from mmmoco.registry import MODELS

#: A ResNet would take long; what counts is how images reach the network.
TINY = dict(
    type='mmmoco.PlainConvNet',
    channels=(4, 8),
    strides=(2, 2),
    out_indices=(1,),
)


def model_of(config='mocov2_r50_8xb32', channels=3, **options):
    cfg = mmmoco.load_config(config, options)
    cfg.model.backbone = dict(TINY, in_channels=channels)
    cfg.model.neck.in_channels = 8
    if channels != 3:
        cfg.model.data_preprocessor.update(
            mean=[100.0] * channels, std=[50.0] * channels
        )
    cfg.model.dictionary.size = 64
    return mmmoco.get_model(cfg), cfg


@pytest.fixture
def photographs(tmp_path):
    """Files of several sizes and kinds, in a folder."""
    draws = np.random.default_rng(0)
    for name, size, mode in (
        ('a.png', (300, 260), 'RGB'),
        ('b.jpg', (240, 400), 'RGB'),
        ('c.png', (230, 230), 'L'),
        ('d.png', (256, 256), 'RGBA'),
    ):
        shape = size[::-1] if mode == 'L' else (*size[::-1], len(mode))
        noise = draws.integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(noise, mode).save(tmp_path / name)
    return sorted(tmp_path.iterdir())


def test_images_are_seen_as_in_the_evaluation(photographs):
    """Whatever holds them: as by the data set and preprocessor of k-NN."""
    model, cfg = model_of()
    init_default_scope('mmmoco')
    steps = cfg.knn.query.dataset.pipeline
    data = ImageFolderDataset(str(photographs[0].parent), pipeline=steps)
    batch = torch.stack([data[i]['inputs']['image'] for i in range(4)])
    seen = model.data_preprocessor({'inputs': {'image': batch}})
    expected = model.extract_feat(seen['inputs']['image'])
    assert torch.equal(expected, model.extract_feat(photographs))
    opened = [Image.open(path) for path in photographs]
    arrays = [np.asarray(image.convert('RGB')) for image in opened]
    channels_first = [torch.tensor(a).permute(2, 0, 1) for a in arrays]
    for images in (
        [str(path) for path in photographs],
        opened,
        arrays,
        channels_first,
        [photographs[0], opened[1], arrays[2], channels_first[3]],
        tuple(arrays),
    ):
        found = model.extract_feat(images)
        assert torch.equal(expected, found) and not found.requires_grad
    assert expected.requires_grad  # As the caller wants it, of a tensor.
    for at, single in enumerate(opened):
        found = model.extract_feat(single)
        assert torch.allclose(found, expected[at : at + 1], atol=1e-5)
    rows = np.stack([arrays[0]] * 2)
    both = model.extract_feat(rows)
    assert torch.allclose(both, expected[[0, 0]], atol=1e-5)
    neck = model.extract_feat(photographs[0], 'neck')
    assert torch.allclose(neck.norm(), torch.tensor(1.0))


def test_a_model_is_built_without_a_line_for_each_weight(capfd):
    model_of()
    assert len(capfd.readouterr().out.splitlines()) < 3


def test_without_knn_the_training_tells(photographs):
    """Its way of loading, and its crop; also of raw bands."""
    _, cfg = model_of()
    cfg.pop('knn')
    model = mmmoco.get_model(cfg)
    assert model.read_images(photographs, 3).shape == (4, 3, 224, 224)
    bands = mmmoco.load_config('mocov3_vit-s_4xb64_sentinel2-13band')
    raw = np.full((240, 250, 13), 1605, np.uint16)
    pixels = ImageInput(bands)(raw, 13)
    assert pixels.shape == (1, 13, 224, 224)
    assert pixels[0, 0].eq(127).all()  # The mean of its band.


@pytest.mark.parametrize('channels', [1, 4])
def test_images_without_rgb(channels, tmp_path):
    model, _ = model_of('demo/mocov2_digits', channels)
    noise = np.random.default_rng(0).integers(
        0, 256, (20, 24, channels), dtype=np.uint8
    )
    image = Image.fromarray(noise[..., 0] if channels == 1 else noise)
    image.save(tmp_path / 'x.png')
    expected = (torch.tensor(noise).permute(2, 0, 1)[None] - 100.0) / 50
    expected = model.extract_feat(expected)
    for given in (noise, image, tmp_path / 'x.png'):
        assert torch.equal(model.extract_feat(given), expected)


GREY = np.zeros((30, 30), np.uint8)
RGB = np.zeros((30, 30, 3), np.uint8)


@pytest.mark.parametrize(
    ('given', 'kind', 'words'),
    [
        (None, TypeError, 'NoneType is no image: give a path'),
        (b'\xff', TypeError, 'bytes is no image'),
        ({'img': RGB}, TypeError, 'dict is no image'),
        ([], ValueError, 'the list is empty'),
        ('gone.jpg', FileNotFoundError, "'gone.jpg'"),
        ('.', IsADirectoryError, 'give a list of its files'),
        (RGB.transpose(2, 0, 1), ValueError, 'looks like C×H×W'),
        (np.zeros((30, 30, 7), np.uint8), ValueError, r'\(30, 30, 7\)'),
        (np.zeros(9, np.uint8), ValueError, r'shape \(9,\)'),
        (RGB / 255.0, ValueError, 'values up to 0: give bytes'),
        (RGB + 255.0, ValueError, 'float64 have no defined range'),
        (RGB == 0, ValueError, 'an array of bool'),
        ([RGB, None], TypeError, 'NoneType'),
        (torch.zeros(3, 30, 30), ValueError, r'\(3, 30, 30\): give N×C'),
        ([torch.zeros(3, 30, 30)], TypeError, 'torch.float32'),
        (torch.zeros(9, dtype=torch.uint8), TypeError, r'shape \(9,\)'),
    ],
)
def test_what_is_no_image_is_named(given, kind, words):
    model, _ = model_of()
    with pytest.raises(kind, match=words):
        model.extract_feat(given)


def test_images_that_make_no_batch_are_named():
    """Small images are not resized by this config."""
    model, cfg = model_of('mocov2_r18_1xb512_cifar10')
    with pytest.raises(ValueError, match='Image 1 has 9×30 pixels, image 0'):
        model.extract_feat([RGB, RGB[:, :9]])
    init_default_scope('mmmoco')
    bare = MODELS.build(cfg.model)
    with pytest.raises(TypeError, match='mmmoco.get_model'):
        bare.extract_feat('a.jpg')


def test_of_16_bits_a_checkpoint_tells_the_range(tmp_path):
    """As it was measured on the training images."""
    model, cfg = model_of()
    for part in (cfg.knn.query.dataset, cfg.train_dataloader.dataset):
        part.pipeline[0]['range'] = 'auto'
    deep = np.full((230, 230), 700, np.uint16)
    with pytest.raises(ValueError, match="range='auto'"):
        mmmoco.get_model(cfg).extract_feat(deep)
    meta = dict(cfg="input_range = [600, 800]\nmodel = dict(type='x')\n")
    path = tmp_path / 'x.pth'
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    model = mmmoco.get_model(cfg, str(path))
    assert model.read_images(deep, 3).unique().tolist() == [128]


def test_a_checkpoint_alone_is_enough(photographs, tmp_path):
    """It tells its network, and how its images were seen."""
    model, cfg = model_of()
    path = tmp_path / 'x.pth'
    meta = dict(cfg=cfg.pretty_text)
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    alone = mmmoco.get_model(checkpoint=str(path))
    expected = model.extract_feat(photographs)
    assert torch.equal(expected, alone.extract_feat(photographs))
    with pytest.raises(ValueError, match='give a config or a checkpoint'):
        mmmoco.get_model()
