import numpy as np
import pytest
from PIL import Image

from mmmoco.apis import cli, load_config
from mmmoco.apis.preflight.browse_views import (
    _judged,
    picture_rows,
    read_samples,
)
from mmmoco.apis.preflight.jobs import browse_views
from mmmoco.visualization.views import ViewPicture


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


@pytest.mark.parametrize(
    ('change', 'fault'),
    [
        (lambda x: x // 50, 'nearly black'),
        (lambda x: 120 + x // 128, 'nearly constant'),
        (lambda x: x, ''),
    ],
)
@pytest.mark.parametrize('kind', [np.uint8, np.uint16, np.float32])
def test_views_that_show_nothing_are_named(change, fault, kind):
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3))
    original = ViewPicture(noise.astype(kind), 'original')
    view = ViewPicture(change(noise[::-1]).astype(np.float32), 'view_q')
    flipped = ViewPicture(noise[:, ::-1].astype(np.float32), 'view_k')
    faults = [p.fault for p in _judged([original, view, flipped])]
    assert faults == ['', fault, '']
    other = view._replace(title='view_k', image=view.image + 1)
    assert _judged([original, view, other])[2].fault == (
        fault or 'nearly equal to view_q'
    )
    if kind == np.float32:  # No data count for nothing.
        original.image[:4] = np.nan
        assert _judged([original, view])[1].fault == fault
    mask = ViewPicture(np.zeros((4, 4, 1), bool), 'mask')
    assert _judged([original, mask])[1].fault == ''


def test_weak_views_are_warned_of(tmp_path):
    for i in range(2):
        dark = np.full((40, 50, 3), 3 * i, np.uint8)
        Image.fromarray(dark).save(tmp_path / f'{i}.png')
    said = browse_views(
        'mocov2_r50_8xb32',
        out=str(tmp_path / 'views.png'),
        num=2,
        cfg_options={'train_dataloader.dataset.data_root': str(tmp_path)},
    )
    _, warning, hint = said.splitlines()
    assert (
        warning
        == 'WARNING: nearly black: '
        + ', '.join(
            f'{view} of sample {number}'
            for number in (1, 2)
            for view in ('original', 'view_q', 'view_k')
        )
        + '.'
    )
    assert 'mean, std' in hint


def test_what_each_operation_did_is_marked(folder):
    options = {'train_dataloader.dataset.data_root': folder}
    cfg = load_config('mocov2_r50_8xb32', options)
    samples = [s for s, _ in zip(read_samples(cfg, 0, 0), range(3))]
    rows = picture_rows(cfg, samples, seed=0)
    said = []
    for row in rows:
        assert row[0].box is None
        for picture in row[1:]:
            top, left, height, width = picture.box
            assert 0 <= top < top + height <= 40
            assert 0 <= left < left + width <= 50
            crop, *others = picture.notes
            assert f'top={top} left={left}' in crop and 'change' not in crop
            said += others
    flips = [note for note in said if note.startswith('Flip')]
    for note in flips:
        stayed = 'horizontal=0 vertical=0' in note
        assert note.endswith(': nothing') == stayed
        assert (': changes ' in note) != stayed
    assert len({note[-9:] == ': nothing' for note in flips}) == 2
    assert all(': changes ' in note for note in said if note not in flips)


def test_mistakes_end_with_one_line(folder, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(browse_views, ['mocov2_r50_8xb32', '--num', '0'])
    assert end.value.code == 2
    assert '--num 0' in capsys.readouterr().err
