"""Label propagation through a video in DAVIS's folders."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from mmmoco.apis import davis, get_model

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


def test_the_tool(root, small_frames, tmp_path):
    checkpoint = tmp_path / 'epoch_1.pth'
    torch.save({'state_dict': get_model(CONFIG).state_dict()}, checkpoint)
    davis.main([CONFIG, str(checkpoint), str(root)])
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
            davis.main([CONFIG, 'none.pth', str(root), *options])
        assert exit_info.value.code == 2
        assert 'Traceback' not in capsys.readouterr().err
