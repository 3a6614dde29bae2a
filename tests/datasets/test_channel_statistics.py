import numpy as np
import pytest
from PIL import Image

from mmmoco.apis.data.channel_statistics import ChannelStatistics

from ..conftest import optional


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.float32])
def test_against_numpy_over_all_pixels(dtype):
    draws = np.random.default_rng(0)
    top = 256 if dtype is np.uint8 else 9000
    images = [
        draws.integers(0, top, (h, w, 4)).astype(dtype)
        for h, w in ((3, 5), (20, 1), (8, 8))
    ]
    statistics = ChannelStatistics()
    for image in images:
        statistics.add(image)
    joined = np.concatenate([i.reshape(-1, 4) for i in images])
    joined = joined.astype(np.float64)
    np.testing.assert_allclose(statistics.mean, joined.mean(0))
    np.testing.assert_allclose(statistics.std, joined.std(0))
    assert np.array_equal(statistics.low, joined.min(0))
    assert np.array_equal(statistics.high, joined.max(0))
    method = 'linear' if dtype is np.float32 else 'inverted_cdf'
    for p in (0, 1, 50, 99, 100):
        expected = np.percentile(joined, p, axis=0, method=method)
        np.testing.assert_allclose(statistics.percentile(p), expected)
    assert (statistics.images, statistics.pixels) == (3, 15 + 20 + 64)
    with pytest.raises(ValueError, match='3 channels.*4'):
        statistics.add(images[0][..., :3])


def test_a_large_offset_costs_no_precision():
    statistics = ChannelStatistics()
    for i in range(5):
        column = np.array([1e6 - 1, 1e6 + 1, 1e6], np.float64) + i % 2
        statistics.add(column.reshape(3, 1, 1))
    assert statistics.std[0] ** 2 == pytest.approx(2 / 3 + 0.24, rel=1e-6)


def test_the_tool(tmp_path, capsys):
    from mmmoco.apis import cli
    from mmmoco.apis.data.jobs import dataset_stats

    for i in range(4):
        level = (10 * i, 100, 255)
        Image.new('RGB', (5 + i, 4), level).save(tmp_path / f'{i}.png')
    (tmp_path / 'bad.png').write_bytes(b'')
    cli.main(dataset_stats, [str(tmp_path)])
    out, err = capsys.readouterr()
    assert '4 images, 104 pixels, 3 channels' in out
    assert 'bad.png' in err and '1 bad files were left out' in out
    weights = np.array([5, 6, 7, 8]) / 26
    mean = (weights * [0, 10, 20, 30]).sum()
    assert f'mean=({mean:.3f}, 100.000, 255.000,),' in out
    root = f'train_dataloader.dataset.data_root={tmp_path}'
    cli.main(dataset_stats, ['mocov2_r50_8xb32', '--cfg-options', root])
    assert f'mean=({mean:.3f}, 100.000, 255.000,),' in capsys.readouterr().out
    np.save(tmp_path / 'x.npy', np.full((20, 20, 13), 2000, np.uint16))
    cli.main(dataset_stats, [str(tmp_path), '--bands'])
    assert '13 channels' in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        cli.main(dataset_stats, [str(tmp_path / 'nowhere')])
    assert stop.value.code == 2


@pytest.mark.parametrize('masks', [0, 3, 5])
@pytest.mark.parametrize('unread', ['sixteen bits', 'bands', 'no image'])
def test_figures_of_masks_alone_are_none(unread, masks, tmp_path, capsys):
    """Where half of the files cannot be read, the rest is not the data."""
    from mmmoco.apis import cli
    from mmmoco.apis.data.jobs import dataset_stats

    for i in range(5):
        file = tmp_path / f'{i}.png'
        if unread == 'sixteen bits':
            Image.fromarray(
                np.arange(900, 1800, dtype=np.uint16).reshape(30, 30)
            ).save(file)
        elif unread == 'bands':
            bands = np.ones((8, 8, 13), np.uint16)
            optional('tifffile').imwrite(
                file.with_suffix('.tif'),
                bands,
                photometric='minisblack',
                planarconfig='contig',
            )
        else:
            file.write_bytes(b'no image')
    for i in range(masks):
        Image.new('L', (8, 8), 255).save(tmp_path / f'{i}_mask.png')
    with pytest.raises(SystemExit) as stop:
        cli.main(dataset_stats, [str(tmp_path)])
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and 'mean' not in out
    assert f'5 of {5 + masks} images could not be read, such as' in err
