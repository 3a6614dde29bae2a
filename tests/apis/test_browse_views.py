import numpy as np
import pytest
from PIL import Image

from mmmoco.apis import cli, load_config
from mmmoco.apis.preflight.browse_views import picture_rows, read_samples
from mmmoco.apis.preflight.jobs import browse_views


@pytest.fixture
def folder(tmp_path):
    draws = np.random.default_rng(0)
    for i in range(3):
        noise = draws.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f'{i}.png')
    return str(tmp_path)


@pytest.mark.parametrize('on_device', [False, True])
def test_views_and_their_parameters(folder, on_device):
    cfg = load_config(
        'mocov2_r50_8xb32',
        {
            'train_dataloader.dataset.data_root': folder,
            'device_views': on_device,
        },
    )
    samples = [s for s, _ in zip(read_samples(cfg, 0, 0), range(2))]
    rows = picture_rows(cfg, samples, seed=0)
    assert len(rows) == 2
    for row in rows:
        assert [p.title for p in row] == ['original', 'view_q', 'view_k']
        assert row[0].image.shape == (40, 50, 3)
        for picture in row[1:]:
            assert picture.image.shape == (224, 224, 3)
            # Back in grey levels.
            assert picture.image.min() >= -0.01 and picture.image.max() > 50
            assert picture.image.max() <= 255.01
            assert picture.notes[0].startswith('RandomResizedCrop top=')
            assert picture.notes[-1].startswith('Flip horizontal=')


def test_the_tool_writes_a_picture(folder, tmp_path):
    out = tmp_path / 'new' / 'views.png'
    root = {'train_dataloader.dataset.data_root': folder}
    said = browse_views(
        'mocov2_r50_8xb32', out=str(out), num=2, cfg_options=root
    )
    assert said == f'{out}: 2 samples, original, view_q, view_k'
    with Image.open(out) as picture:
        assert picture.format == 'PNG' and min(picture.size) > 300


def test_images_that_no_worker_cuts_are_shown_too(tmp_path):
    out = tmp_path / 'digits.png'
    options = ['--cfg-options', 'train_dataloader.dataset.num_scenes=3']
    cli.main(
        browse_views,
        ['demo/mocov2_digits', '--out', str(out), '--num', '2', *options],
    )
    assert out.stat().st_size > 1000


def test_mistakes_end_with_one_line(folder, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(browse_views, ['mocov2_r50_8xb32', '--num', '0'])
    assert end.value.code == 2
    assert '--num 0' in capsys.readouterr().err
