"""Label propagation through a video in DAVIS's folders."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmmoco.apis import cli, get_model
from mmmoco.apis.dense import davis, jobs

from ..comparison import Comparison, check

pytestmark = pytest.mark.slow

CONFIG = 'demo/mmc_digits'


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """A textured square moves over a texture, four frames."""
    root = tmp_path_factory.mktemp('davis')
    draws = np.random.default_rng(0)
    canvas = draws.integers(0, 120, (48, 64, 3), dtype=np.uint8)
    thing = draws.integers(140, 256, (16, 16, 3), dtype=np.uint8)
    frames = root / 'JPEGImages/480p/square'
    labels = root / 'Annotations/480p/square'
    for folder in (frames, labels, root / 'ImageSets/2017'):
        folder.mkdir(parents=True)
    (root / 'ImageSets/2017/val.txt').write_text('square\n')
    for t in range(4):
        image, index = canvas.copy(), np.zeros((48, 64), np.uint8)
        x = 8 + 4 * t
        image[16:32, x : x + 16], index[16:32, x : x + 16] = thing, 1
        Image.fromarray(image).save(frames / f'{t:05}.jpg', quality=95)
        label = Image.fromarray(index, mode='P')
        label.putpalette([0, 0, 0, 128, 0, 0])
        label.save(labels / f'{t:05}.png')
    return root


@pytest.fixture
def small_frames(monkeypatch):
    """Twice the size in place of 480 pixels: seconds, not minutes."""
    monkeypatch.setattr(davis, 'SHORT_SIDE', 96)


def test_sizes_are_those_of_dino():
    assert davis.network_size(480, 854) == (480, 832)
    assert davis.network_size(854, 480) == (832, 480)
    assert davis.network_size(480, 910) == (480, 896)
    assert davis.network_size(1080, 1920) == (480, 832)
    assert davis.network_size(480, 480) == (480, 448)


class Perfect:
    """Every patch resembles only the one at its own place."""

    size = None

    def __call__(self, images):
        height, width = (side // 16 for side in images[0].shape[:2])
        tokens = torch.eye(height * width)
        return (tokens.view(1, -1, height, width),)


def as_dino(index):
    """Labels down to the patches and back, as their script does it."""
    height, width = index.shape
    small = Image.fromarray(index).resize((832 // 16, 480 // 16), 0)
    labels = torch.tensor(np.asarray(small)).long()
    maps = torch.nn.functional.one_hot(labels).permute(2, 0, 1)[None].float()
    maps = torch.nn.functional.interpolate(
        maps,
        scale_factor=16,
        mode='bilinear',
        align_corners=False,
        recompute_scale_factor=False,
    )[0]
    for one in maps:
        one -= one.min()
        one /= one.max()
    large = Image.fromarray(maps.argmax(0).to(torch.uint8).numpy())
    return np.asarray(large.resize((width, height), 0))


def shapes(rows, columns, seed):
    """Two objects, away from each other and from the edges."""
    draws = np.random.default_rng(seed)
    index = np.zeros((480, 854), np.uint8)
    centre = draws.integers(100, (380, 300))
    radius = draws.integers(40, 90)
    away = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2
    index[away <= radius**2] = 1
    centre = draws.integers((100, 520), (380, 730))
    half = draws.integers(30, 90, 2)
    far = np.abs(rows - centre[0]) < half[0]
    index[far & (np.abs(columns - centre[1]) < half[1])] = 2
    return index


def still_video(root, seed):
    """Three equal frames in DAVIS's folders; return the video and labels."""
    index = shapes(*np.mgrid[:480, :854], seed)
    frames = root / 'JPEGImages/480p/still'
    labels = root / 'Annotations/480p/still'
    for folder in (frames, labels):
        folder.mkdir(parents=True)
    for t in range(3):
        grey = np.full((480, 854, 3), 127, np.uint8)
        Image.fromarray(grey).save(frames / f'{t:05}.jpg')
        label = Image.fromarray(index, mode='P')
        label.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
        label.save(labels / f'{t:05}.png')
    return davis.Video(root, 'still'), index


def compare_perfect_features(root, seed):
    """A still video: only the way down to patches and back costs anything.

    Labels that are taken at the corners of patches come out half a patch
    away, and F at 0.72.
    """
    video, index = still_video(root, seed)
    found = np.stack(list(davis.segment(Perfect(), video, topk=1)))
    limit = as_dino(index)
    wrong = np.mean(found[1:] != limit)
    truth = video.truth()
    assert np.array_equal(truth[0], index)
    scores = davis.score_video(found, truth)
    best = davis.score_video(np.stack([index, limit, limit]), truth)
    assert min(scores.j) > 0.8 and min(scores.f) > 0.93
    assert scores.f[0] == 1.0  # the disc
    # What was wrong: the same labels half a patch up and left.
    shifted = np.roll(limit, (-8, -8), (0, 1))
    worse = davis.score_video(np.stack([index, shifted, shifted]), truth)
    assert max(worse.f) < min(scores.f)
    against = 'the limit of 16 pixels, by the steps of DINO'
    yield Comparison('DAVIS: labels', against, wrong, 0, 'of the pixels')
    for name in ('j', 'f'):
        ours, theirs = getattr(scores, name), getattr(best, name)
        yield Comparison(
            f'DAVIS, perfect features: {name.upper()}',
            f'{against}: {np.mean(theirs):.3f}',
            float(np.abs(np.subtract(ours, theirs)).max()),
            0,
            over='two objects, three frames',
        )


@pytest.mark.parametrize('seed', range(3))
def test_perfect_features_reach_the_limit_of_the_patches(tmp_path, seed):
    check(compare_perfect_features(tmp_path, seed))


def all_comparisons():
    with tempfile.TemporaryDirectory() as folder:
        yield from compare_perfect_features(Path(folder), 0)


def test_a_shape_as_large_as_its_patches_comes_back_whole(tmp_path):
    """Resizing an index image neither moves it nor changes its size."""
    draws = np.random.default_rng(0)
    for scale in (2, 5, 16):
        small = draws.integers(0, 3, (12, 9), dtype=np.uint8)
        large = np.kron(small, np.ones((scale, scale), np.uint8))
        up = davis.resize_index(small, large.shape)
        assert np.array_equal(up, large)
        assert np.array_equal(davis.resize_index(large, small.shape), small)
    # Sizes that do not divide: each pixel takes what lies at its centre.
    rows = np.arange(23, dtype=np.uint8)[:, None].repeat(2, 1)
    found = davis.resize_index(rows, (7, 2))[:, 0]
    assert found.tolist() == [int((i + 0.5) * 23 / 7) for i in range(7)]


def test_the_tool(root, small_frames, tmp_path):
    checkpoint = tmp_path / 'epoch_1.pth'
    torch.save({'state_dict': get_model(CONFIG).state_dict()}, checkpoint)
    cli.main(jobs.davis, [str(checkpoint), str(root), '--config', CONFIG])
    (line,) = (tmp_path / 'results.jsonl').read_text().splitlines()
    result = json.loads(line)
    assert (
        result['protocol']['topk'] == 5 and result['protocol']['videos'] == 1
    )
    m = result['metrics']
    assert m['jf_mean'] == pytest.approx((m['j_mean'] + m['f_mean']) / 2)
    # Random weights keep brightness; blind labels would stay at their place
    # (J 60 and 33 in the two frames that count).
    assert m['j_mean'] > 50
    written = sorted((tmp_path / 'davis/square').glob('*.png'))
    assert [p.name for p in written] == [f'{t:05}.png' for t in range(4)]
    with Image.open(written[0]) as first:
        assert first.mode == 'P' and first.getpalette()[:6] == [
            0,
            0,
            0,
            128,
            0,
            0,
        ]
        given = Image.open(root / 'Annotations/480p/square/00000.png')
        assert np.array_equal(np.asarray(first), np.asarray(given))
    found = np.stack([davis.read_index(p) for p in written])
    truth = davis.Video(root, 'square').truth()
    scores = davis.score_video(found, truth)
    assert 100 * np.mean(scores.j) == pytest.approx(m['j_mean'])


def test_missing_folders_are_one_line(root, tmp_path, capsys):
    for options in (['--split', 'test'], ['--resolution', 'Full']):
        with pytest.raises(SystemExit) as exit_info:
            cli.main(
                jobs.davis,
                ['none.pth', str(root), '--config', CONFIG, *options],
            )
        assert exit_info.value.code == 2
        assert 'Traceback' not in capsys.readouterr().err
