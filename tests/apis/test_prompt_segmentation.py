"""The page: what the server answers, and what a browser makes of it."""

import http.client
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from mmmoco.apis import cli, get_model, load_config
from mmmoco.apis.cli import UsageError
from mmmoco.apis.dense.features import normalised
from mmmoco.apis.page import pictures, prompting, server
from mmmoco.apis.page.jobs import prompt_segmentation
from mmmoco.apis.page.layout import page as page_of
from mmmoco.apis.page.prompting import SOURCES, Point
from mmmoco.engine.checkpoint_io import CheckpointError
from mmmoco.evaluation.zero_shot import similarity_maps

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
MMC = 'demo/mmc_digits'


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """As a run of mmengine leaves it, with the text of its config."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp('run') / 'epoch_1.pth'
    content = {
        'meta': {'cfg': load_config(MMC).pretty_text},
        'state_dict': get_model(MMC).state_dict(),
    }
    torch.save(content, path)
    return str(path)


@pytest.fixture(scope='module')
def images(checkpoint):
    """Model and examples, from the checkpoint alone."""
    built = prompting.build(checkpoint)
    built.file = checkpoint
    return built


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """For examples and uploads."""
    return tmp_path_factory.mktemp('page')


@pytest.fixture(scope='module')
def url(images, folder):
    """The page on a free port."""
    os.environ[server.UPLOADS] = str(folder / 'uploads')
    blocks = page_of(images, 'epoch_1.pth', str(folder))
    yield server.launch(blocks, '127.0.0.1', 0)
    blocks.close()
    del os.environ[server.UPLOADS]


def ask(url, path, body=None, host=None, **headers):
    """Send a request; return status and text."""
    at = urlsplit(url)
    connection = http.client.HTTPConnection(at.hostname, at.port, timeout=60)
    headers['Host'] = host or at.netloc
    connection.request('POST' if body else 'GET', path, body, headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def upload(url, content, name='upload.png'):
    """Open a file on the page as a browser does; return what it answers."""
    form = (
        b'--edge\r\nContent-Disposition: form-data; name="files"; filename="'
        + name.encode()
        + b'"\r\nContent-Type: image/png\r\n\r\n'
        + content
        + b'\r\n--edge--\r\n'
    )
    kind = {'Content-Type': 'multipart/form-data; boundary=edge'}
    status, text = ask(url, '/gradio_api/upload', form, **kind)
    assert status == 200, text
    (path,) = json.loads(text)
    return path, opened_by_page(url, path, name)


def opened_by_page(url, path, name):
    config = json.loads(ask(url, '/config')[1])
    (number,) = [
        each['id']
        for each in config['dependencies']
        if [event for _, event in each['targets']] == ['upload']
    ]
    file = {'path': path, 'orig_name': name, 'meta': {'_type': TYPE}}
    job = dict(data=[file], fn_index=number, session_hash=str(time.time_ns()))
    kind = {'Content-Type': 'application/json'}
    status, text = ask(
        url, '/gradio_api/queue/join', json.dumps(job).encode(), **kind
    )
    assert status == 200, text
    place = f'/gradio_api/queue/data?session_hash={job["session_hash"]}'
    lines = ask(url, place)[1].splitlines()
    events = [json.loads(x[6:]) for x in lines if x.startswith('data: ')]
    (done,) = [e for e in events if e['msg'] == 'process_completed']
    return done


TYPE = 'gradio.FileData'


def test_uploads_lie_in_a_folder_of_their_own(url, folder):
    path, done = upload(url, png(30, 40))
    assert done['success'], done
    assert Path(path).is_relative_to(folder / 'uploads')


@pytest.mark.parametrize('name', ['a.png', 'a.svg', 'a.eps', 'a'])
def test_a_file_that_is_no_image_is_answered_in_words(url, name):
    """Whatever its name says, and without a decoder being tried."""
    program = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n'
    for content in (b'no image', program):
        _, done = upload(url, content, name)
        assert not done['success']
        assert 'upload' in done['output']['error'], done


def test_other_files_of_the_machine_cannot_be_opened(url, tmp_path):
    secret = tmp_path / 'secret.png'
    secret.write_bytes(png(30, 40))
    done = opened_by_page(url, str(secret), 'secret.png')
    assert not done['success']


def test_only_the_names_of_this_machine_are_answered(url):
    """A foreign name that leads here would let its page read this one."""
    port = urlsplit(url).port
    for path in ('/', '/config', '/gradio_api/info', '/nowhere'):
        for host in ('evil.example', f'evil.example:{port}', 'localhost.evil'):
            status, text = ask(url, path, host=host)
            assert status == 421 and 'not the name of this page' in text
    for host in (f'127.0.0.1:{port}', f'localhost:{port}', 'LOCALHOST'):
        assert ask(url, '/', host=host)[0] == 200
    check = server.HostCheck(None, ['me.example'])
    for host in (
        'me.example:7860',
        '[::1]:7860',
        '10.0.0.7',
        'ME.example',
    ):
        assert check.allows(host), host
    for host in ('', 'xme.example', 'me.example.evil', '127.0.0.1.evil:80'):
        assert not check.allows(host), host


def test_ending_the_page_removes_what_was_uploaded(checkpoint, tmp_path):
    process = subprocess.Popen(
        [
            *(sys.executable, ROOT / 'demo' / 'prompt_segmentation.py'),
            *(checkpoint, '--port', '0'),
        ],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {'TMPDIR': str(tmp_path)},
    )
    try:
        said = next(line for line in process.stdout if 'http' in line)
        address = re.search(r'http\S+', said)[0]
        path, _ = upload(address, png(30, 40))
        assert Path(path).is_relative_to(tmp_path)
    finally:
        process.terminate()
    assert process.wait(60) == 0
    assert not Path(path).exists()
    assert not list(tmp_path.glob('mmmoco_page_*'))


def png(height, width, **options):
    draws = np.random.default_rng(0)
    image = Image.fromarray(
        draws.integers(0, 256, (height, width, 3), dtype=np.uint8)
    )
    stream = io.BytesIO()
    image.save(stream, 'PNG', **options)
    return stream.getvalue()


def test_clicks_cost_no_forward(images):
    """The tokens are computed once; the map is the protocol's."""
    calls = []
    handle = images.features.backbone.register_forward_hook(
        lambda *_: calls.append(1)
    )
    name = images.open(images.examples[0])
    assert images.opened(name).pixels.shape == (64, 64, 3)
    layers = images.tokens(name).layers
    assert [tokens.shape[1:] for tokens in layers] == 4 * [(8, 8)]
    for layer, (x, y) in ((-1, (3, 50)), (-1, (40, 20)), (1, (40, 20))):
        found = images.map(name, [Point(x, y, True)], layer=layer)
        (expected,) = similarity_maps(layers[layer], [(y, x)], (64, 64))
        np.testing.assert_array_equal(found, expected.cpu().numpy())
    assert len(calls) == 1
    handle.remove()


def test_several_points_and_those_beside_the_object(images):
    """The nearest point counts; where it lies beside, there is no value."""
    name = images.open(images.examples[0])
    on = [Point(3, 50, True), Point(40, 20, True)]
    beside = [Point(60, 5, False), Point(20, 20, False)]
    first, second = (images.map(name, [point]) for point in on)
    either = images.map(name, on)
    np.testing.assert_allclose(either, np.maximum(first, second), atol=1e-6)
    others = [images.map(name, [p._replace(inside=True)]) for p in beside]
    ahead = np.maximum(*others) - either
    nearer, clear = ahead > 0, abs(ahead) > 1e-6
    found = images.map(name, [beside[0], *on, beside[1]])
    assert nearer.any() and not nearer.all()
    np.testing.assert_array_equal(np.isnan(found)[clear], nearer[clear])
    kept = clear & ~nearer
    np.testing.assert_allclose(found[kept], either[kept], atol=1e-6)


def test_random_weights_and_colours_have_maps_of_their_own(images):
    name = images.open(images.examples[0])
    at = [Point(40, 20, True)]
    maps = [images.map(name, at, source) for source in SOURCES]
    assert not (maps[0] == maps[1]).all() and not (maps[0] == maps[2]).all()
    # The same random weights each time, which move nothing global.
    again = prompting.build(images.file)
    state = torch.get_rng_state()
    other = again.map(again.open(images.examples[0]), at, SOURCES[1])
    np.testing.assert_array_equal(maps[1], other)
    assert torch.equal(state, torch.get_rng_state())
    # The cosines of mean colours of patches, centred as the model centres.
    x = normalised(images.features.model, [images.examples[0]], 64)
    (expected,) = similarity_maps(
        F.avg_pool2d(x, 8)[0].cpu(), [(20, 40)], (64, 64)
    )
    np.testing.assert_allclose(maps[2], expected, atol=1e-6)


def test_features_that_are_not_finite_are_one_line(images):
    name = images.open(images.examples[0])
    for layer in images.tokens(name).layers:
        layer.fill_(torch.nan)
    with pytest.raises(UsageError, match='not finite'):
        images.map(name, [Point(1, 1, True)])


def test_checkpoint_and_config_describe_the_same_model(images, checkpoint):
    other = prompting.build(checkpoint, MMC)
    first, second = (
        each.tokens(each.open(images.examples[0])).layers[-1]
        for each in (images, other)
    )
    torch.testing.assert_close(first, second)


def test_a_foreign_config_text_builds_nothing(checkpoint, tmp_path):
    """Neither its types nor its shapes are taken on trust."""
    content = torch.load(checkpoint)
    text = content['meta']['cfg']
    path = tmp_path / 'foreign.pth'
    for own, foreign, words in (
        ("type='MoCoV3ViT'", "type='subprocess.Popen'", '--config'),
        ('feedforward_channels=256', 'feedforward_channels=10**6', '--config'),
        ('feedforward_channels=256', 'feedforward_channels=999', '999'),
    ):
        assert own in text
        content['meta']['cfg'] = text.replace(own, foreign)
        torch.save(content, path)
        with pytest.raises((ValueError, CheckpointError), match=words):
            prompting.build(str(path))


def test_a_checkpoint_without_normalisation_asks_for_the_config(
    checkpoint, tmp_path
):
    content = torch.load(checkpoint)
    del content['meta']['cfg']
    path = tmp_path / 'bare.pth'
    torch.save(content, path)
    with pytest.raises(ValueError, match='--config'):
        prompting.build(str(path))


def test_uploads_keep_their_ratio_and_their_orientation(images):
    name = images.open_upload(png(900, 1200))
    assert images.opened(name).pixels.shape == (576, 768, 3)
    assert images.opened(name).size == (900, 1200)
    assert images.tokens(name).layers[-1].shape[1:] == (42, 56)
    exif = Image.Exif()
    exif[prompting.ORIENTATION] = 6  # Lay on its side.
    opened = images.opened(images.open_upload(png(30, 90, exif=exif)))
    assert opened.pixels.shape == (90, 30, 3)
    assert opened.size == (90, 30)


def test_bad_uploads_are_one_line(images, monkeypatch):
    for body in (b'no image', b''):
        with pytest.raises(OSError, match='decode'):
            images.open_upload(body)
    monkeypatch.setattr(prompting, 'MAX_PIXELS', 99)
    with pytest.raises(OSError, match='10×10 pixels'):
        images.open_upload(png(10, 10))


def test_only_the_last_images_are_kept(images):
    names = [
        images.open(images.examples[0]) for _ in range(prompting.KEPT + 1)
    ]
    with pytest.raises(UsageError, match='open it again'):
        images.map(names[0], [Point(1, 1, True)])
    assert images.map(names[-1], [Point(1, 1, True)]).shape == (64, 64)
    with pytest.raises(UsageError, match='64×64'):
        images.map(names[-1], [Point(64, 0, True)])


def test_pictures_of_small_images_are_enlarged():
    pixels = np.zeros((64, 48, 3), np.uint8)
    assert pictures.enlarged(pixels).shape == (384, 288, 3)
    assert pictures.enlarged(np.zeros((400, 9, 3), np.uint8)).shape[0] == 400
    found = np.tile(np.float32([-1.0, 0.2, 1.0]), (3, 1))
    heat = pictures.heat_map(found).astype(int)
    assert heat.shape == (3, 3, 3) and (heat[0] == heat[2]).all()
    assert (np.diff(heat[0].sum(1)) > 0).all()  # brighter
    assert pictures.heat_map(np.ones((2, 2), np.float32)).any()
    found[0] = np.nan  # Nearer to a point beside the object.
    heat = pictures.heat_map(found)
    assert (heat[0] == 140).all() and (heat[1] != 140).any(1).all()


def test_the_picture_shows_mask_and_points():
    pixels = np.full((400, 500, 3), 200, np.uint8)
    mask = np.zeros((400, 500), bool)
    mask[100:300, 100:300] = True
    points = [Point(200, 200, True), Point(400, 50, False)]
    shown = pictures.segmented(pixels, mask, points)
    assert (shown[110, 110] == 200).all() and (shown[390, 490] == 80).all()
    assert (shown[99, 150] == pictures.OUTLINE).all()
    for x, y, on in points:
        assert (shown[y, x] == 255).all()  # The sign,
        disc = shown[y + 4, x + 4]  # and its colour.
        assert (disc == (pictures.ON if on else pictures.BESIDE)).all()


@pytest.mark.parametrize('low', [-1.0, 0.2, 0.9])
def test_the_threshold_starts_between_two_heaps(low):
    draws = np.random.default_rng(0)
    top = (low + 3) / 4
    heaps = np.concatenate([np.full(900, low), np.full(100, top)])
    noise = draws.normal(0, (1 - low) / 100, 1000)
    found = (heaps + noise).astype(np.float32)
    found = np.append(found, np.nan)
    assert ((found > pictures.dividing(found))[:-1] == (heaps == top)).all()
    flat = np.ones(9, np.float32)
    assert 0.98 <= pictures.dividing(flat) <= 1.0


def test_it_listens_on_this_machine_only():
    given, _ = cli.arguments(prompt_segmentation, ['x.pth'])
    assert given['host'] == '127.0.0.1'
    assert server.is_loopback('127.0.0.1')
    assert server.is_loopback('localhost')
    assert not server.is_loopback('0.0.0.0')


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ([], 'nowhere.pth'),
        (['--port', '70000'], '65535'),
        (['--config', 'nowhere'], 'nowhere'),
        (['--cfg-options', 'model.m=0.9'], 'needs --config'),
        (['--size', '8'], '--size 8'),
        (['--port', 'TAKEN'], 'another --port'),
    ],
)
def test_bad_arguments_are_one_line(options, words, checkpoint, url, capsys):
    file = checkpoint if options else 'nowhere.pth'
    taken = str(urlsplit(url).port)
    argv = [taken if o == 'TAKEN' else o for o in options]
    own = signal.getsignal(signal.SIGTERM), os.environ[server.UPLOADS]
    with pytest.raises(SystemExit) as exit_info:
        cli.main(prompt_segmentation, [file, *argv])
    # Else processes that are forked later would not end by it.
    assert signal.getsignal(signal.SIGTERM) is own[0]
    assert os.environ[server.UPLOADS] == own[1]
    assert exit_info.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert words in lines[-2] and 'Traceback' not in ''.join(lines)


@pytest.mark.browser
@pytest.mark.parametrize('width', [1280, 390])
def test_a_browser_segments_and_downloads(url, browser, tmp_path, width):
    from playwright.sync_api import expect

    page = browser.new_page(viewport={'width': width, 'height': 844})
    page.set_default_timeout(30_000)
    expect.set_options(timeout=30_000)
    requests, complaints = [], []
    page.on('request', lambda request: requests.append(request.url))
    page.on('pageerror', lambda error: complaints.append(str(error)))
    page.goto(url)
    status = page.locator('#status')
    expect(status).to_contain_text('Open an image')
    picture = page.locator('#picture img')
    slider = page.get_by_label('range slider for Threshold')
    expect(slider).to_be_disabled()

    def share():
        return float(re.search(r'([\d.]+)% of', status.inner_text())[1])

    def click(across, down):
        """Click; wait until the picture has changed."""
        before, box = picture.get_attribute('src'), picture.bounding_box()
        at = {'x': across * box['width'], 'y': down * box['height']}
        picture.click(position=at)
        expect(picture).not_to_have_attribute('src', before)

    def download():
        with page.expect_download() as waiting:
            page.locator('#download').click()
        file = tmp_path / 'mask.png'
        waiting.value.save_as(file)
        assert waiting.value.suggested_filename == 'mask.png'
        with Image.open(file) as mask:
            return np.asarray(mask)

    upload = tmp_path / 'upload.png'
    upload.write_bytes(png(600, 900))
    page.locator('#picture input[type=file]').set_input_files(upload)
    expect(status).to_contain_text('56 × 37 tokens in')
    click(0.5, 0.5)
    expect(status).to_contain_text('lies above')
    # As large as the file, not as the page shows it.
    assert download().shape == (600, 900)

    page.locator('#scenes .gallery-item').first.click()
    expect(status).to_contain_text('8 × 8 tokens')
    expect(slider).to_be_disabled()
    click(0.3, 0.3)
    expect(status).to_contain_text(' ms, tokens of this model')
    lowest = float(re.search(r'from ([\d.−-]+) to', status.inner_text())[1])
    assert 0 <= lowest - float(slider.get_attribute('min')) <= 0.002
    assert abs(download().mean() * 100 - share()) < 0.1
    # Picture, slider and what came of it are in sight at once.
    boxes = [x.bounding_box() for x in (picture, slider, status)]
    top = min(box['y'] for box in boxes)
    assert max(box['y'] + box['height'] for box in boxes) - top < 844

    at_first = share()
    number = page.locator('#threshold input[type=number]')
    start = float(number.input_value())
    number.fill(f'{(1 + start) / 2:.3f}')
    number.press('Enter')
    expect(status).to_contain_text(f'above {float(number.input_value()):g};')
    higher = share()
    assert higher < at_first
    slider.focus()
    for _ in range(20):
        page.keyboard.press('ArrowLeft')
    reached = float(number.input_value())
    expect(status).to_contain_text(f'above {reached:g};')
    assert reached < (1 + start) / 2 and share() > higher

    before = share()
    page.get_by_label('beside it').click()
    click(0.9, 0.9)
    expect(status).not_to_contain_text(f'{before}%')
    assert share() < before
    assert abs(download().mean() * 100 - share()) < 0.1
    page.locator('#source').get_by_label('random weights').click()
    expect(status).to_contain_text('tokens of random weights')
    page.locator('#source').get_by_label('colours').click()
    expect(status).to_contain_text('tokens of colours')
    page.locator('#source').get_by_label('this model').click()
    expect(status).to_contain_text('tokens of this model')
    seen = picture.get_attribute('src')
    page.locator('#layer input').click()
    page.get_by_role('option', name='0').click()
    expect(picture).not_to_have_attribute('src', seen)
    for _ in range(2):
        page.get_by_role('button', name='Undo').click()
    expect(status).to_contain_text('8 × 8 tokens')
    expect(page.locator('#download')).to_be_disabled()

    assert page.evaluate('document.documentElement.scrollWidth <= innerWidth')
    assert {urlsplit(each).hostname for each in requests} == {'127.0.0.1'}
    assert not complaints
    page.close()
