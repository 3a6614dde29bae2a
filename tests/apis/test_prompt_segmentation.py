"""The page: what the server answers, and what a browser makes of it."""

import http.client
import io
import json
import threading
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from PIL import Image

from mmmoco.apis import get_model, load_config
from mmmoco.apis import prompt_segmentation as prompting
from mmmoco.apis.cli import UsageError
from mmmoco.engine.checkpoint_io import CheckpointError
from mmmoco.evaluation.zero_shot import similarity_maps

pytestmark = pytest.mark.slow

MMC = 'demo/mmc_digits'
BROWSER = '/usr/bin/chromium'


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """As a run of mmengine leaves it, with the text of its config."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('run') / 'epoch_1.pth'
    content = {
        'meta': {'cfg': load_config(MMC).pretty_text},
        'state_dict': get_model(MMC).state_dict(),
    }
    torch.save(content, path)
    return str(path)


def arguments(*argv):
    return prompting.parser().parse_args([*argv])


@pytest.fixture(scope='module')
def server(checkpoint):
    """The page on a free port, from the checkpoint alone."""
    with prompting.start(arguments(checkpoint, '--port', '0')) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()


def ask(server, method, path, body=None, **headers):
    parts = urlsplit(server.url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer, content


def opened(server, path='/open?example=0', body=None):
    answer, content = ask(server, 'POST', path, body)
    assert answer.status == 200, content
    return json.loads(content)


def png(height, width, **options):
    draws = np.random.default_rng(0)
    image = Image.fromarray(
        draws.integers(0, 256, (height, width, 3), dtype=np.uint8)
    )
    stream = io.BytesIO()
    image.save(stream, 'PNG', **options)
    return stream.getvalue()


def test_clicks_cost_no_forward(server):
    """The tokens are computed once; the map is the protocol's."""
    features = server.prompting.features
    calls = []
    handle = features.backbone.register_forward_hook(
        lambda *_: calls.append(1)
    )
    found = opened(server)
    assert (found['width'], found['height']) == (64, 64)
    assert (found['columns'], found['rows']) == (8, 8)
    for x, y in ((3, 50), (40, 20)):
        answer, content = ask(
            server, 'GET', f'/map?image={found["image"]}&x={x}&y={y}'
        )
        assert answer.status == 200
        own = np.frombuffer(content, '<f4').reshape(64, 64)
        tokens = server.prompting.opened(found['image']).tokens
        (expected,) = similarity_maps(tokens, [(y, x)], (64, 64))
        np.testing.assert_array_equal(own, expected.cpu().numpy())
    assert len(calls) == 1
    handle.remove()


def test_checkpoint_and_config_describe_the_same_model(server, checkpoint):
    example = server.prompting.examples[0]
    other = prompting.build(arguments(checkpoint, '--config', MMC))
    names = [p.open(example) for p in (server.prompting, other)]
    torch.testing.assert_close(
        server.prompting.opened(names[0]).tokens, other.opened(names[1]).tokens
    )


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
        with pytest.raises((UsageError, CheckpointError), match=words):
            prompting.described_config(str(path))


def test_a_checkpoint_without_normalisation_asks_for_the_config(
    checkpoint, tmp_path
):
    content = torch.load(checkpoint)
    del content['meta']['cfg']
    path = tmp_path / 'bare.pth'
    torch.save(content, path)
    with pytest.raises(UsageError, match='--config'):
        prompting.described_config(str(path))


def test_uploads_keep_their_ratio_and_their_orientation(server):
    found = opened(server, '/open', png(900, 1200))
    assert (found['width'], found['height']) == (768, 576)
    assert (found['columns'], found['rows']) == (56, 42)
    exif = Image.Exif()
    exif[prompting.ORIENTATION] = 6  # Lay on its side.
    found = opened(server, '/open', png(30, 90, exif=exif))
    assert (found['width'], found['height']) == (30, 90)
    _, content = ask(server, 'GET', f'/picture?image={found["image"]}')
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.size == (30, 90)


def test_bad_uploads_are_one_line(server, monkeypatch):
    for body, words in ((b'no image', 'Cannot decode'), (b'', 'decode')):
        answer, content = ask(server, 'POST', '/open', body)
        assert answer.status == 400
        assert words in json.loads(content)['error']
    monkeypatch.setattr(prompting, 'MAX_PIXELS', 99)
    answer, content = ask(server, 'POST', '/open', png(10, 10))
    assert answer.status == 400
    assert '10×10 pixels' in json.loads(content)['error']
    monkeypatch.setattr(prompting, 'MAX_BYTES', 50)
    answer, content = ask(server, 'POST', '/open', png(5, 5))
    assert answer.status == 400
    assert 'the most' in json.loads(content)['error']


def test_only_the_last_images_are_kept(server):
    names = [opened(server)['image'] for _ in range(prompting.KEPT + 1)]
    answer, content = ask(server, 'GET', f'/map?image={names[0]}&x=1&y=1')
    assert answer.status == 400 and b'open it again' in content
    answer, _ = ask(server, 'GET', f'/map?image={names[-1]}&x=1&y=1')
    assert answer.status == 200


@pytest.mark.parametrize(
    ('path', 'status'),
    [
        ('/map?x=1&y=1', 400),
        ('/map?image=NAME&x=64&y=0', 400),
        ('/map?image=NAME&x=one&y=0', 400),
        ('/example?n=-1', 400),
        ('/../../etc/passwd', 404),
    ],
)
def test_odd_questions(server, path, status):
    name = opened(server)['image']
    answer, content = ask(server, 'GET', path.replace('NAME', name))
    assert answer.status == status and json.loads(content)['error']


def test_other_sites_cannot_use_the_page(server):
    port = server.server_address[1]
    for headers in (
        {'Host': f'evil.example:{port}'},
        {'Origin': 'http://evil.example'},
        {'Origin': 'null'},
    ):
        answer, _ = ask(server, 'POST', '/open?example=0', **headers)
        assert answer.status == 403
    answer, _ = ask(server, 'GET', '/', Host=f'localhost:{port}')
    assert answer.status == 200
    assert "default-src 'none'" in answer.headers['Content-Security-Policy']


def test_it_listens_on_this_machine_only():
    assert arguments('x.pth').host == '127.0.0.1'
    assert prompting.is_loopback('127.0.0.1')
    assert prompting.is_loopback('localhost')
    assert not prompting.is_loopback('0.0.0.0')


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
def test_bad_arguments_are_one_line(
    options, words, checkpoint, server, capsys
):
    file = checkpoint if options else 'nowhere.pth'
    taken = str(server.server_address[1])
    argv = [taken if o == 'TAKEN' else o for o in options]
    with pytest.raises(SystemExit) as exit_info:
        prompting.main([file, *argv])
    assert exit_info.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert words in lines[-2] and 'Traceback' not in ''.join(lines)


@pytest.fixture(scope='module')
def browser():
    """The Chromium of the system; missing, the test fails."""
    from playwright.sync_api import sync_playwright

    assert Path(BROWSER).is_file(), 'bash tools/setup.sh full installs it'
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=BROWSER, args=['--no-sandbox']
        )
        yield chromium
        chromium.close()


@pytest.mark.browser
@pytest.mark.parametrize('width', [1280, 390])
def test_click_and_slide(server, browser, tmp_path, width):
    from playwright.sync_api import expect

    page = browser.new_page(viewport={'width': width, 'height': 844})
    requests, complaints = [], []
    page.on('request', lambda request: requests.append(request.url))
    page.on('console', lambda message: complaints.append(message.text))
    page.on('pageerror', lambda error: complaints.append(str(error)))
    page.goto(server.url)
    status, area = page.locator('#status'), page.locator('#area')
    slider = page.get_by_label('Threshold T')
    expect(status).to_contain_text('8 × 8 patches', timeout=30_000)
    expect(slider).to_be_disabled()
    assert page.get_by_role('button', name='Example').count() == 6

    def share():
        return float(area.text_content().split()[0])

    def bright():
        """Pixels of the mask's canvas that are shown undimmed."""
        return page.evaluate(
            """() => {
              const [image, mask] = ['image', 'mask'].map(id => {
                const c = document.getElementById(id);
                return c.getContext('2d')
                  .getImageData(0, 0, c.width, c.height).data; });
              let same = 0;
              for (let i = 0; i < mask.length; i += 4)
                same += mask[i] === image[i];
              return 400 * same / mask.length; }"""
        )

    # Click in the middle of the lower left quarter.
    marker = page.get_by_role('application')
    box = marker.bounding_box()
    marker.click(
        position={
            'x': 16.5 / 64 * box['width'],
            'y': 48.5 / 64 * box['height'],
        }
    )
    expect(status).to_contain_text('Prompt at (16, 48)')
    expect(slider).to_be_enabled()
    at_first = share()
    assert 0 < at_first < 100
    assert bright() == pytest.approx(at_first, abs=0.1)

    slider.focus()
    for _ in range(20):
        page.keyboard.press('ArrowRight')
    higher = share()
    assert higher < at_first
    assert bright() == pytest.approx(higher, abs=0.1)
    page.keyboard.press('Home')
    assert share() > at_first
    assert sum('/map' in url for url in requests) == 1  # No slide asks.

    page.keyboard.press('End')
    marker.focus()
    page.keyboard.press('ArrowRight')
    expect(status).to_contain_text('Prompt at (24, 48)')

    upload = tmp_path / 'upload.png'
    upload.write_bytes(png(60, 90))
    page.get_by_label('Open an image').set_input_files(upload)
    expect(status).to_contain_text('90 × 60 pixels')
    expect(slider).to_be_disabled()
    upload.write_bytes(b'no image')
    page.get_by_label('Open an image').set_input_files(upload)
    expect(status).to_contain_text('Cannot decode')

    assert page.evaluate('document.documentElement.scrollWidth <= innerWidth')
    assert {urlsplit(url).hostname for url in requests} == {'127.0.0.1'}
    # The refused upload, and what the readbacks of this test cost.
    expected = ('400', 'willReadFrequently')
    assert all(any(e in text for e in expected) for text in complaints)
    page.close()
