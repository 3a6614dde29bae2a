"""One click, one object, in the browser: ``demo/prompt_segmentation.py``.

A page on Python's own HTTP server: it loads nothing from elsewhere. The
tokens of an image are computed once; a click costs one map, and the threshold
moves in the browser alone.
"""

import argparse
import io
import ipaddress
import json
import secrets
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, cast
from urllib.parse import parse_qs, urlsplit

import numpy as np
from mmengine.config import Config
from mmengine.registry import init_default_scope
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from mmmoco.datasets.transforms.loading import decode_rgb
from mmmoco.evaluation.zero_shot import similarity_maps

from . import cli
from .complete import check_complete
from .config import load_config
from .dense_features import ModelFeatures, load_model
from .export_backbone import read_source
from .extract_features import Encoder
from .object_data import digit_scenes

#: An upload may have this many bytes, and an image this many pixels.
MAX_BYTES = 32 * 2**20
MAX_PIXELS = 50_000_000

#: Longest side of the image on the page; maps have its size.
SHOWN_SIDE = 768

#: Images whose tokens are kept.
KEPT = 8

EXAMPLES = 6
ORIENTATION = 0x0112
PAGE = Path(__file__).with_suffix('.html')


class Opened(NamedTuple):
    """An image on the page.

    Attributes:
        pixels: H×W×3, as shown.
        tokens: C×h×w.
        seconds: What the tokens took.
    """

    pixels: NDArray[np.uint8]
    tokens: Tensor
    seconds: float


class Prompting:
    """Images with their tokens, and the maps of prompts on them.

    Args:
        features: Dense features of images.
        shortest: Longer side below which images are enlarged.
        longest: Longer side above which they are reduced.
    """

    def __init__(
        self, features: ModelFeatures, shortest: int, longest: int
    ) -> None:
        self.features = features
        self.shortest, self.longest = shortest, longest
        self.examples = [item.image for item in digit_scenes('val', EXAMPLES)]
        self._opened: OrderedDict[str, Opened] = OrderedDict()
        self._lock = threading.Lock()

    def example(self, number: int) -> NDArray[np.uint8]:
        """Return an embedded scene.

        Raises:
            UsageError: If there is no such scene.
        """
        if not 0 <= number < len(self.examples):
            raise cli.UsageError(f'There is no example {number}.')
        return self.examples[number]

    def open_upload(self, content: bytes) -> str:
        """Decode a file and compute its tokens; return its name.

        Raises:
            OSError: If it is no image, or too large.
        """
        pixels = decode_rgb(content, 'upload', MAX_PIXELS)
        image = Image.fromarray(pixels)
        image.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
        with Image.open(io.BytesIO(content)) as original:
            turned = original.getexif().get(ORIENTATION, 1)
        image.getexif()[ORIENTATION] = turned
        return self.open(np.asarray(ImageOps.exif_transpose(image)))

    def open(self, pixels: NDArray[np.uint8]) -> str:
        """Compute the tokens of an image; return the name of both."""
        name = secrets.token_urlsafe(8)
        start = time.perf_counter()
        with self._lock:
            self.features.size = self._network_size(*pixels.shape[:2])
            (tokens,) = self.features([pixels])
            seconds = time.perf_counter() - start
            self._opened[name] = Opened(pixels, tokens[0], seconds)
            while len(self._opened) > KEPT:
                self._opened.popitem(last=False)
        return name

    def _network_size(self, height: int, width: int) -> tuple[int, int]:
        """Keep the ratio, in whole patches."""
        longer = max(height, width)
        scale = min(max(longer, self.shortest), self.longest) / longer
        patch = self.features.patch_size

        def side(length: int) -> int:
            return max(1, round(length * scale / patch)) * patch

        return side(height), side(width)

    def opened(self, name: str) -> Opened:
        """Return an image by its name.

        Raises:
            UsageError: If it is no longer kept.
        """
        with self._lock:
            if name not in self._opened:
                raise cli.UsageError(
                    'This image is no longer kept: open it again.'
                )
            self._opened.move_to_end(name)
            return self._opened[name]

    def map(self, name: str, x: int, y: int) -> NDArray[np.float32]:
        """Return the similarity of all pixels to the patch at (x, y), H×W.

        Raises:
            UsageError: If the point is outside the image.
        """
        image = self.opened(name)
        height, width = image.pixels.shape[:2]
        if not (0 <= x < width and 0 <= y < height):
            raise cli.UsageError(
                f'({x}, {y}) is outside the image of {width}×{height} pixels.'
            )
        maps = similarity_maps(image.tokens, [(y, x)], (height, width))
        result: NDArray[np.float32] = maps[0].cpu().numpy()
        return result


class PageServer(ThreadingHTTPServer):
    """Serves one page and what it asks for.

    Args:
        address: Host and port.
        prompting: Images and maps.
        title: What model this is.
    """

    daemon_threads = True

    def __init__(
        self, address: tuple[str, int], prompting: Prompting, title: str
    ) -> None:
        super().__init__(address, PageHandler)
        self.prompting, self.title = prompting, title

    @property
    def url(self) -> str:
        """Where the page is."""
        host, port = cast(tuple[str, int], self.server_address)
        return f'http://{host}:{port}'


class PageHandler(BaseHTTPRequestHandler):
    """Answers one request; what is wrong with it is said in one line."""

    server: PageServer
    server_version = 'mmmoco'
    sys_version = ''
    timeout: ClassVar[int] = 60

    def do_GET(self) -> None:
        """Answer the page, its pictures, and maps."""
        self._answer(
            {
                '/': self._page,
                '/picture': self._picture,
                '/example': self._example,
                '/map': self._map,
            }
        )

    def do_POST(self) -> None:
        """Open an image."""
        self._answer({'/open': self._open})

    def _answer(self, places: dict[str, Any]) -> None:
        parts = urlsplit(self.path)
        asked = {k: v[0] for k, v in parse_qs(parts.query).items()}
        try:
            if not self._is_from_here():
                self._send_error('Foreign host or origin.', 403)
            elif parts.path not in places:
                self._send_error('There is nothing here.', 404)
            else:
                places[parts.path](asked)
        except (cli.UsageError, OSError, ValueError, KeyError) as error:
            if isinstance(error, ConnectionError):
                return  # The page was closed.
            self._send_error(str(error), 400)

    def _is_from_here(self) -> bool:
        """Tell whether no page of another site asks.

        Its name could lead to this machine (DNS rebinding), and any site may
        send forms. A server that everybody may reach knows no names.
        """
        host = self.headers.get('Host', '')
        origin = self.headers.get('Origin')
        if origin is not None and urlsplit(origin).netloc != host:
            return False
        own, port = cast(tuple[str, int], self.server.server_address)
        if not is_loopback(own):
            return True
        known = {f'{name}:{port}' for name in (own, 'localhost', '127.0.0.1')}
        return host in known

    def _page(self, asked: dict[str, str]) -> None:
        nonce = secrets.token_urlsafe(16)
        told = {
            'title': self.server.title,
            'examples': len(self.server.prompting.examples),
            'most': MAX_BYTES,
        }
        text = PAGE.read_text(encoding='utf-8')
        # In a script, "<" could end it.
        data = json.dumps(told).replace('<', '\\u003c')
        text = text.replace('{{nonce}}', nonce).replace('{{told}}', data)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; "
            f"style-src 'nonce-{nonce}'; img-src 'self'; connect-src 'self'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        self._send(text.encode(), 'text/html; charset=utf-8', policy=policy)

    def _example(self, asked: dict[str, str]) -> None:
        self._send_picture(self.server.prompting.example(_number(asked, 'n')))

    def _picture(self, asked: dict[str, str]) -> None:
        image = self.server.prompting.opened(asked.get('image', ''))
        self._send_picture(image.pixels)

    def _map(self, asked: dict[str, str]) -> None:
        found = self.server.prompting.map(
            asked.get('image', ''), _number(asked, 'x'), _number(asked, 'y')
        )
        self._send(found.astype('<f4').tobytes(), 'application/octet-stream')

    def _open(self, asked: dict[str, str]) -> None:
        prompting = self.server.prompting
        content = self._body()
        if 'example' in asked:
            name = prompting.open(prompting.example(_number(asked, 'example')))
        else:
            name = prompting.open_upload(content)
        image = prompting.opened(name)
        height, width = image.pixels.shape[:2]
        rows, columns = image.tokens.shape[1:]
        self._send_json(
            {
                'image': name,
                'width': width,
                'height': height,
                'rows': rows,
                'columns': columns,
                'seconds': round(image.seconds, 3),
            }
        )

    def _body(self) -> bytes:
        length = int(self.headers.get('Content-Length') or 0)
        if not 0 <= length <= MAX_BYTES:
            self.close_connection = True
            raise cli.UsageError(
                f'A file of {length / 2**20:.0f} MiB: '
                f'{MAX_BYTES // 2**20} MiB are the most.'
            )
        return self.rfile.read(length)

    def _send_picture(self, pixels: NDArray[np.uint8]) -> None:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, 'PNG', compress_level=1)
        self._send(stream.getvalue(), 'image/png')

    def _send_json(self, content: Any, status: int = 200) -> None:
        self._send(json.dumps(content).encode(), 'application/json', status)

    def _send_error(self, message: str, status: int) -> None:
        self._send_json({'error': message}, status)

    def _send(
        self, content: bytes, kind: str, status: int = 200, policy: str = ''
    ) -> None:
        self.send_response(HTTPStatus(status))
        self.send_header('Content-Type', kind)
        self.send_header('Content-Length', str(len(content)))
        self.send_header('X-Content-Type-Options', 'nosniff')
        self.send_header('Referrer-Policy', 'no-referrer')
        self.send_header('Cross-Origin-Resource-Policy', 'same-origin')
        self.send_header('Cache-Control', 'no-store')
        if policy:
            self.send_header('Content-Security-Policy', policy)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of single requests."""


def _number(asked: dict[str, str], name: str) -> int:
    try:
        return int(asked[name])
    except (KeyError, ValueError):
        raise cli.UsageError(f'{name} must be a whole number.') from None


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == 'localhost'


def described_config(checkpoint: str) -> Config:
    """Return a config of the backbone that a checkpoint itself describes.

    Only networks on our list are built from such a description; of others
    the shapes of the tensors tell what they are.

    Raises:
        UsageError: If it does not tell its network, or how images are
            normalised.
    """
    try:
        source = read_source(checkpoint)
    except ValueError as error:  # No shape tells the heads of a small ViT.
        raise cli.UsageError(
            f'{checkpoint!r} does not tell what network it holds: name the '
            'config of the run with --config.'
        ) from error
    if source.normalisation is None:
        raise cli.UsageError(
            f'{checkpoint!r} does not say how its images are normalised: '
            'name the config of the run with --config.'
        )
    check_complete(source.backbone, source.config, source.scope)
    return Config(
        dict(
            model=dict(
                backbone=dict(source.config),
                data_preprocessor=source.normalisation,
            ),
            default_scope=source.scope,
        )
    )


def build(args: argparse.Namespace) -> Prompting:
    """Build model and examples as the command line says."""
    cli.require_file(args.checkpoint)
    if args.config:
        cfg = load_config(args.config, args.cfg_options)
        init_default_scope(cfg.get('default_scope', 'mmmoco'))
        model: Any = load_model(cfg, args.checkpoint)
    else:
        if args.cfg_options:
            raise cli.UsageError('--cfg-options needs --config.')
        cfg = described_config(args.checkpoint)
        model = Encoder(cfg, args.checkpoint, 'gap')
    side = cfg.model.backbone.get('img_size', 224)
    shortest = int(side if isinstance(side, int) else min(side))
    features = ModelFeatures(model, shortest)
    if args.size < max(shortest, features.patch_size):
        raise cli.UsageError(
            f'--size {args.size} is below the {shortest} pixels that the '
            'backbone was made for.'
        )
    return Prompting(features, shortest, args.size)


def parser() -> argparse.ArgumentParser:
    """Return the command line of ``demo/prompt_segmentation.py``."""
    result = argparse.ArgumentParser(
        prog='prompt_segmentation.py',
        description='A page on which one click segments an object: open an '
        'image, click, move the threshold. Nothing leaves this machine.',
        epilog='Example: python demo/prompt_segmentation.py '
        'work_dirs/mmc_digits/epoch_27.pth',
    )
    result.add_argument('checkpoint', help='file of a pre-training run')
    result.add_argument(
        '--config',
        help='of the run; default: what the checkpoint tells about itself',
    )
    result.add_argument(
        '--size',
        type=int,
        default=448,
        help='longest side that the model sees, in pixels; default: 448',
    )
    result.add_argument('--host', default='127.0.0.1')
    result.add_argument(
        '--port', type=int, default=7860, help='default: 7860; 0: any'
    )
    cli.add_cfg_options(result)
    cli.add_debug(result)
    return result


def start(args: argparse.Namespace) -> PageServer:
    """Build the model and listen; ``serve_forever`` answers.

    Raises:
        UsageError: If host and port cannot be had.
    """
    if not 0 <= args.port <= 65535:
        raise cli.UsageError(f'--port {args.port}: use 0 to 65535.')
    prompting = build(args)
    title = Path(args.checkpoint).name
    try:
        return PageServer((args.host, args.port), prompting, title)
    except OSError as error:
        raise cli.UsageError(
            f'Cannot listen on {args.host}:{args.port} '
            f'({error.strerror or error}): choose another --port or --host.'
        ) from None


def serve(args: argparse.Namespace) -> None:
    """Serve as the command line says, until interrupted."""
    with start(args) as server:
        sys.stdout.write(f'Open {server.url} (Ctrl+C ends)\n')
        if not is_loopback(args.host):
            sys.stdout.write(
                f'Whoever reaches {args.host} can use this page.\n'
            )
        sys.stdout.flush()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            sys.stdout.write('\n')


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``demo/prompt_segmentation.py``."""
    args = parser().parse_args(argv)
    cli.run(lambda: serve(args), 'prompt_segmentation.py', args.debug)
