"""Images of more than 8 bits: what becomes of their values."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from mmmoco.apis.config.image_range import settle_for_training, settle_from
from mmmoco.apis.data.shard_writer import write_shards
from mmmoco.datasets import ImageFolderDataset, SampleAddress, TarShards
from mmmoco.datasets.transforms.bands import LoadBands
from mmmoco.datasets.transforms.loading import LoadRGB

from ..conftest import optional

LOAD = [dict(type='LoadRGB')]
AUTO = [dict(type='LoadRGB', range='auto')]


def written(array, kind):
    """Return 16 bits, or floats, in a file of a kind."""
    if kind == 'npy':
        stream = io.BytesIO()
        np.save(stream, array)
        return stream.getvalue()
    if array.dtype == np.float32:
        stream = io.BytesIO()
        Image.fromarray(array).save(stream, kind)
        return stream.getvalue()
    flipped = array if array.ndim == 2 else array[..., ::-1]
    if array.ndim == 3 and array.shape[2] == 4:
        flipped = array[..., [2, 1, 0, 3]]
    return cv2.imencode(f'.{kind}', flipped)[1].tobytes()


def of_shape(shape, low, high, seed=0, dtype=np.uint16):
    draws = np.random.default_rng(seed)
    array = draws.integers(low, high, shape, endpoint=True)
    array.flat[:2] = low, high
    return array.astype(dtype)


SHAPES = [(9, 7), (9, 7, 3), (9, 7, 4)]


def load(data, **options):
    return LoadRGB(**options)({'img_path': 'x', 'img_bytes': data})['img']


@pytest.mark.parametrize('kind', ['png', 'tiff'])
@pytest.mark.parametrize('shape', SHAPES)
def test_a_range_is_exact_for_every_kind_of_sixteen_bits(shape, kind):
    array = of_shape(shape, 100, 4095)
    made = load(written(array, kind), range=(100, 4095))
    colours = array[..., :3] if array.ndim == 3 else array[..., None]
    expected = np.rint((colours.astype(float) - 100) / 3995 * 255)
    assert made.dtype == np.uint8
    assert np.array_equal(made, np.broadcast_to(expected, (9, 7, 3)))
    made = load(written(array, kind), range=(1000, 2000))
    clipped = np.clip(np.rint((colours - 1000.0) / 1000 * 255), 0, 255)
    assert abs(made - np.broadcast_to(clipped, (9, 7, 3))).max() <= 1


@pytest.mark.parametrize('kind', ['png', 'tiff'])
@pytest.mark.parametrize('shape', SHAPES)
def test_without_a_range_sixteen_bits_are_divided_by_256(shape, kind):
    array = of_shape(shape, 0, 65535)
    made = load(written(array, kind))
    colours = array[..., :3] if array.ndim == 3 else array[..., None]
    assert np.array_equal(made, np.broadcast_to(colours // 256, (9, 7, 3)))


def test_floats_need_a_range():
    array = np.linspace(-1, 3, 63, dtype=np.float32).reshape(9, 7)
    array[0, 0] = np.nan
    data = written(array, 'tiff')
    with pytest.raises(OSError, match='range='):
        load(data)
    made = load(data, range=(-1, 3))
    assert made[0, 0, 0] == 0 and made[-1, -1, 0] == 255


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize(
    'low, high', [(0, 255), (0, 3000), (0, 4095), (40_000, 44_000)]
)
def test_what_would_become_nearly_black_is_an_error(shape, low, high):
    """Whatever is left of it would be 16 grey levels at most."""
    data = written(of_shape(shape, low, high), 'png')
    with pytest.raises(OSError, match=rf'range=\({low}, {high}\)'):
        load(data)
    assert len(np.unique(load(data, range=(low, high)))) > 20


def test_eight_bits_are_left_alone_by_a_range():
    array = of_shape((9, 7, 3), 0, 255, dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, 'png')
    made = load(stream.getvalue(), range=(0, 4095))
    assert np.array_equal(made, array)


def test_mistakes_are_named():
    for bad in ((5, 5), (9, 1), (1,), 'x', 5, (0, float('nan')), ('a', 'b')):
        with pytest.raises(ValueError, match='range='):
            LoadRGB(range=bad)
    with pytest.raises(ValueError, match='two numbers'):
        LoadRGB(range='auto')({'img_path': 'x'})


def folder_of(path, arrays, kind='png'):
    path.mkdir()
    for i, array in enumerate(arrays):
        (path / f'{i:03}.{kind}').write_bytes(written(array, kind))
    return str(path)


def test_dark_data_are_an_error_before_the_run(tmp_path):
    dark = [of_shape((8, 8), 10, 900 + i, i) for i in range(30)]
    folder = folder_of(tmp_path / 'dark', dark)
    with pytest.raises(ValueError, match=r'range=\(10, 9\d\d\).*auto'):
        ImageFolderDataset(folder, pipeline=LOAD)
    ImageFolderDataset(folder)  # Nobody reads them.
    given = [dict(type='LoadRGB', range=(0, 1000))]
    assert ImageFolderDataset(folder, pipeline=given)[0]['img'].max() > 200


def test_a_night_among_days_is_kept(tmp_path):
    """One dark image is dark; it is neither replaced nor an error."""
    arrays = [of_shape((8, 8), 0, 60_000, i) for i in range(30)]
    arrays[7] = of_shape((8, 8), 0, 300)
    data = ImageFolderDataset(folder_of(tmp_path / 'x', arrays), pipeline=LOAD)
    sample = data[SampleAddress(7, 0, 0)]
    assert sample['bad'] == 0 and sample['img'].max() == 1


def test_ordinary_images_are_not_decoded_for_it(tmp_path, monkeypatch):
    folder = tmp_path / 'x'
    folder.mkdir()
    for i in range(3):
        Image.new('RGB', (8, 8)).save(folder / f'{i}.jpg')
    (folder / 'bad.jpg').write_bytes(b'')

    def never(*args, **kwargs):
        raise AssertionError('it was decoded')

    monkeypatch.setattr('PIL.ImageFile.ImageFile.load', never)
    assert len(ImageFolderDataset(str(folder), pipeline=LOAD)) == 4


@pytest.mark.parametrize('seed', range(3))
def test_auto_takes_the_percentiles_of_the_values(tmp_path, seed):
    draws = np.random.default_rng(seed)
    arrays = [
        np.clip(draws.normal(1500, 200, (64, 64)), 0, None).astype(np.uint16)
        for _ in range(20)
    ]
    for array in arrays:
        array[0, 0] = 65_535  # A hot pixel of each.
    data = ImageFolderDataset(folder_of(tmp_path / 'x', arrays), pipeline=AUTO)
    low, high = data.pipeline.transforms[0].range
    joined = np.concatenate([a.ravel() for a in arrays])
    expected = np.percentile(joined, [0.1, 99.9])
    assert abs(np.array([low, high]) - expected).max() < 25
    assert data[0]['img'].std() > 30


def test_auto_of_shards_floats_and_ordinary_images(tmp_path):
    arrays = [of_shape((8, 8), 0, 2000, i) for i in range(12)]
    source = ImageFolderDataset(folder_of(tmp_path / 'x', arrays))
    write_shards(source, tmp_path / 'shards', 3)
    cfg = config(tmp_path / 'shards', 'TarShards')
    settle_for_training(cfg)
    assert cfg.input_range == [0.0, 2000.0]
    assert len(TarShards(str(tmp_path / 'shards'))) == 12
    floats = [np.linspace(-2, 2, 64, dtype=np.float32).reshape(8, 8)] * 3
    data = ImageFolderDataset(
        folder_of(tmp_path / 'f', floats, 'tiff'), pipeline=AUTO
    )
    low, high = data.pipeline.transforms[0].range
    assert low == pytest.approx(-2, abs=0.1) and high == pytest.approx(2, 0.1)
    (tmp_path / 'o').mkdir()
    Image.new('RGB', (8, 8)).save(tmp_path / 'o/a.png')
    data = ImageFolderDataset(str(tmp_path / 'o'), pipeline=AUTO)
    assert data.pipeline.transforms[0].range is None
    assert data[0]['img'].shape == (8, 8, 3)
    flat = [np.full((8, 8), 7, np.uint16)]
    with pytest.raises(ValueError, match='nearly all values'):
        ImageFolderDataset(folder_of(tmp_path / 'c', flat), pipeline=AUTO)


def config(folder, kind='ImageFolderDataset'):
    from mmengine.config import Config

    dataset = dict(type=kind, data_root=str(folder), pipeline=AUTO)
    other = dict(type='mmmoco.LoadRGB', range='auto')
    return Config(
        dict(
            train_dataloader=dict(dataset=dataset),
            knn=dict(
                bank=dict(dataset=dict(pipeline=[dict(other)])),
                query=dict(dataset=dict(pipeline=[dict(type='LoadRGB')])),
            ),
        )
    )


def test_one_measurement_serves_the_whole_config(tmp_path):
    arrays = [of_shape((8, 8), 0, 2000, i) for i in range(12)]
    cfg = config(folder_of(tmp_path / 'x', arrays))
    settle_for_training(cfg)
    assert cfg.train_dataloader.dataset.pipeline[0]['range'] == [0.0, 2000.0]
    assert cfg.knn.bank.dataset.pipeline[0]['range'] == [0.0, 2000.0]
    assert cfg.knn.query.dataset.pipeline[0]['range'] == [0.0, 2000.0]
    assert "'auto'" not in cfg.pretty_text
    before = cfg.pretty_text
    settle_for_training(cfg)
    assert cfg.pretty_text == before


def test_a_range_that_is_given_serves_the_whole_config(tmp_path):
    cfg = config(tmp_path)
    cfg.train_dataloader.dataset.pipeline = [
        dict(type='LoadRGB', range=(5, 4000))
    ]
    cfg.knn.bank.dataset.pipeline[0].range = (0, 9)  # Said: it stays.
    settle_for_training(cfg)
    assert cfg.input_range == [5.0, 4000.0]
    assert cfg.knn.query.dataset.pipeline[0].range == [5.0, 4000.0]
    assert list(cfg.knn.bank.dataset.pipeline[0].range) == [0, 9]
    plain = config(tmp_path)
    plain.train_dataloader.dataset.pipeline = [dict(type='LoadRGB')]
    plain.knn.bank.dataset.pipeline = [dict(type='LoadRGB')]
    before = plain.pretty_text
    settle_for_training(plain)
    settle_from(plain, str(tmp_path / 'is not read'))
    assert plain.pretty_text == before


@pytest.mark.slow
def test_a_run_keeps_its_range(tmp_path, small_config):
    """Measured once: a resumed run and its evaluation use the same."""
    import torch

    from mmmoco.apis.training.runner import build_runner

    folder = tmp_path / 'x'
    arrays = [of_shape((16, 16), 0, 2000, i) for i in range(32)]
    folder_of(folder, arrays)

    def fresh(**options):
        cfg = small_config(**options)
        cfg.train_dataloader.dataset = dict(
            type='ImageFolderDataset',
            data_root=str(folder),
            pipeline=[
                dict(type='LoadRGB', range='auto'),
                dict(
                    type='Views',
                    views={
                        name: [dict(type='FastRandomResizedCrop', size=16)]
                        for name in ('view_q', 'view_k')
                    },
                ),
            ],
        )
        cfg.model.data_preprocessor = dict(
            type='ViewAugmentor', mean=(127.0,) * 3, std=(64.0,) * 3
        )
        cfg.model.backbone.in_channels = 3
        return cfg

    elsewhere = {'default_hooks.checkpoint.out_dir': str(tmp_path / 'saved')}
    cfg = fresh(**elsewhere)
    settle_for_training(cfg)
    build_runner(cfg).train()
    (file,) = (tmp_path / 'saved/run').glob('epoch_1.pth')
    assert 'input_range' in torch.load(file, weights_only=False)['meta']['cfg']

    for i in range(32):  # The data change; the range must not.
        array = of_shape((16, 16), 0, 60_000, i)
        (folder / f'{i:03}.png').write_bytes(written(array, 'png'))
    cfg = fresh(**elsewhere, **{'train_cfg.max_epochs': 2})
    cfg.resume = True
    settle_for_training(cfg)
    assert cfg.input_range == [0.0, 2000.0]
    build_runner(cfg).train()
    cfg = fresh()
    settle_from(cfg, str(tmp_path / 'saved/run/epoch_2.pth'))
    assert cfg.train_dataloader.dataset.pipeline[0].range == [0.0, 2000.0]
    torch.save({'state_dict': {}, 'meta': {}}, tmp_path / 'other.pth')
    with pytest.raises(ValueError, match='does not say'):
        settle_from(fresh(), str(tmp_path / 'other.pth'))


# ------------------------------------------------------- bands and statistics


@pytest.mark.parametrize(
    'kind, mode, bands',
    [
        ('PNG', 'L', 1),
        ('PNG', 'LA', 2),
        ('PNG', 'RGB', 3),
        ('PNG', 'RGBA', 4),
        ('TIFF', 'L', 1),
        ('TIFF', 'RGBA', 4),
        ('JPEG', 'L', 1),
        ('JPEG', 'RGB', 3),
        ('BMP', 'L', 1),
        ('BMP', 'RGB', 3),
        ('WEBP', 'RGBA', 4),
    ],
)
def test_bands_of_ordinary_images(tmp_path, kind, mode, bands):
    if kind == 'TIFF':
        optional('tifffile')
    array = np.full((9, 7, bands), 200, np.uint8)
    array[:4] -= np.arange(bands, dtype=np.uint8) * 30
    if mode in ('LA', 'RGBA'):
        array[..., -1] = 255
    path = tmp_path / 'x'
    Image.fromarray(array.squeeze(), mode).save(
        path, kind, lossless=True, quality=100
    )
    read = LoadBands()({'img_path': str(path)})['img']
    if kind == 'WEBP':  # An opaque image loses its alpha there.
        array = array[..., : read.shape[2]]
    assert read.dtype == np.uint8 and read.shape == array.shape
    tolerance = 30 if kind == 'JPEG' else 0  # At the edge of colours.
    assert abs(read.astype(int) - array).max() <= tolerance
    chosen = LoadBands(bands=[0])({'img_path': str(path)})['img']
    assert np.array_equal(chosen, read[..., :1])


def test_sixteen_bits_keep_all_of_them_as_bands(tmp_path):
    for shape in SHAPES:
        array = of_shape(shape, 0, 4095)
        (tmp_path / 'x.png').write_bytes(written(array, 'png'))
        read = LoadBands()({'img_path': str(tmp_path / 'x.png')})['img']
        assert np.array_equal(read.reshape(shape), array)


def test_channels_that_are_no_bands_are_named(tmp_path):
    for mode in ('P', 'CMYK'):
        kind = 'PNG' if mode == 'P' else 'JPEG'
        Image.new(mode, (4, 4)).save(tmp_path / 'x', kind)
        with pytest.raises(OSError, match=f"mode '{mode}'"):
            LoadBands()({'img_path': str(tmp_path / 'x')})


@pytest.mark.parametrize(
    'dtype, tagged',
    [
        ('uint8', True),
        ('uint16', True),
        ('int16', True),
        ('float32', True),
        ('float32', False),
    ],
)
def test_no_data_and_nan_count_nowhere(tmp_path, dtype, tagged, capsys):
    from mmmoco.apis.data.jobs import dataset_stats

    tifffile = optional('tifffile')
    nothing = {'uint8': 255, 'uint16': 0, 'int16': -9999, 'float32': -1e30}
    array = of_shape((20, 20, 2), 10, 200, dtype=dtype)
    missing = np.zeros(array.shape, bool)
    missing[:5], missing[7, :, 1] = True, True
    damaged = array.copy()
    damaged[missing] = nothing[dtype]
    text = f'{nothing[dtype]}'
    if not tagged:
        damaged[missing] = np.nan
        text = 'nan'
    (tmp_path / 'x').mkdir()
    tifffile.imwrite(
        tmp_path / 'x/a.tif',
        damaged,
        planarconfig='contig',
        photometric='minisblack',
        extratags=[(42113, 's', 0, text, True)],
    )
    out = LoadBands()({'img_path': str(tmp_path / 'x/a.tif')})
    assert out['img'].dtype == dtype
    assert np.array_equal(out['missing'], missing)
    assert np.array_equal(out['img'], np.where(missing, 0, array))
    chosen = LoadBands(bands=[1])({'img_path': str(tmp_path / 'x/a.tif')})
    assert np.array_equal(chosen['missing'], missing[..., 1:])
    printed = str(dataset_stats(str(tmp_path / 'x'), bands=True))
    known = [array[..., i][~missing[..., i]].astype(float) for i in (0, 1)]
    means = ', '.join(f'{k.mean():.3f}' for k in known)
    spread = ', '.join(f'{k.std():.3f}' for k in known)
    assert f'mean=({means},),' in printed
    assert f'std=({spread},),' in printed
    assert f'{missing.sum()} values' in printed
    assert 'by channel: 100, 120' in printed


def test_a_whole_channel_may_be_missing():
    from mmmoco.apis.data.channel_statistics import ChannelStatistics

    statistics = ChannelStatistics()
    image = np.ones((4, 4, 2), np.float32)
    image[..., 1] = np.nan
    for _ in range(3):
        statistics.add(image)
    assert statistics.mean[0] == 1 and statistics.missing.tolist() == [0, 48]
    image[..., 1] = 5
    statistics.add(image)
    assert statistics.mean.tolist() == [1, 5] and statistics.std[1] == 0


def test_what_is_missing_stays_so_when_bands_are_enlarged(tmp_path):
    large = np.full((8, 8), 100, np.float32)
    small = np.full((4, 4), 50, np.float32)
    small[1, 1] = np.nan
    np.save(tmp_path / 'B1.npy', large)
    np.save(tmp_path / 'B2.npy', small)
    out = LoadBands()({'img_path': str(tmp_path)})
    gap = out['missing'][..., 1]
    assert gap[2:4, 2:4].all() and not gap[6:].any()
    assert not out['missing'][..., 0].any()
    assert (out['img'][..., 1][~gap] == 50).all()
    assert (out['img'][..., 1][gap] == 0).all()


@pytest.mark.parametrize(
    ('mode', 'varies', 'said'),
    [('RGBA', True, 1), ('RGBA', False, 0), ('RGB', True, 0), ('L', True, 0)],
)
@pytest.mark.parametrize('kind', ['png', 'tiff'])
def test_a_fourth_channel_is_not_dropped_in_silence(
    mode, varies, said, kind, tmp_path, capfd
):
    """One that is the same everywhere says nothing."""
    count = len(Image.new(mode, (1, 1)).getbands())
    pixels = of_shape((9, 7, count), 0, 255, dtype=np.uint8)
    if not varies:
        pixels[..., 3] = 255
    image = pixels if count > 1 else pixels[..., 0]
    Image.fromarray(image).save(tmp_path / f'x.{kind}')
    ImageFolderDataset(str(tmp_path), pipeline=LOAD)
    assert capfd.readouterr().out.count('fourth channel') == said
    ImageFolderDataset(str(tmp_path), pipeline=[dict(type='LoadBands')])
    assert 'fourth' not in capfd.readouterr().out
