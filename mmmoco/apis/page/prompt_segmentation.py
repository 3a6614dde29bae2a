"""One click, one object, in the browser: ``demo/prompt_segmentation.py``.

The tokens of an image are computed once; a click costs one map, and a move of
the threshold one comparison. Gradio makes the page.
"""

import argparse
import ipaddress
import os
import re
import secrets
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from mmengine.config import Config
from mmengine.registry import init_default_scope
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps
from torch import Tensor

from mmmoco.apis import cli
from mmmoco.apis.config.files import load_config
from mmmoco.apis.dense.features import ModelFeatures, load_model
from mmmoco.apis.dense.subject import digit_scenes
from mmmoco.apis.exchange.export_backbone import read_source
from mmmoco.apis.model import check_complete
from mmmoco.apis.probing.extract_features import Encoder
from mmmoco.datasets.transforms.loading import decode_rgb, decoding, identify
from mmmoco.engine.evaluation.preprocessing import preprocessor_of
from mmmoco.evaluation.zero_shot import similarity_maps
from mmmoco.visualization import keep_mask

#: Tells Gradio where uploads go.
UPLOADS = 'GRADIO_TEMP_DIR'

#: An upload may have this many bytes, and an image this many pixels.
MAX_BYTES = 32 * 2**20
MAX_PIXELS = 50_000_000

#: Longest side of the image on the page; maps have its size.
SHOWN_SIDE = 768

#: Smaller ones are enlarged for the eye, by a whole factor.
SMALL_SIDE = 384

#: Images whose tokens are kept.
KEPT = 8

EXAMPLES = 6
OPEN_FIRST = 'Open an image, then click a point of it.'
ORIENTATION = 0x0112

#: T at the start; the paper varies it from 0 to 0.3.
THRESHOLD = 0.3


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

    def open_upload(self, content: bytes) -> str:
        """Decode a file and compute its tokens; return its name.

        Raises:
            OSError: If it is no image, or too large.
        """
        pixels = decode_rgb(content, 'upload', MAX_PIXELS)
        image = Image.fromarray(pixels)
        image.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
        with decoding('upload'), identify(content, MAX_PIXELS) as original:
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
    normalisation = _normalisation(source.cfg)
    if normalisation is None:
        raise cli.UsageError(
            f'{checkpoint!r} does not say how its images are normalised: '
            'name the config of the run with --config.'
        )
    check_complete(
        source.backbone, source.config, source.scope, source=checkpoint
    )
    return Config(
        dict(
            model=dict(
                backbone=dict(source.config),
                data_preprocessor=normalisation,
            ),
            default_scope=source.scope,
        )
    )


def _normalisation(cfg: Config | None) -> dict[str, tuple[float, ...]] | None:
    given: Any = preprocessor_of(cfg or {})
    try:
        return {
            name: tuple(map(float, given[name])) for name in ('mean', 'std')
        }
    except (TypeError, KeyError, ValueError):
        return None


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


def page(prompting: Prompting, title: str, folder: str) -> Any:
    """Lay out the page.

    Args:
        prompting: Images and maps.
        title: What model this is.
        folder: Where the examples are written.

    Returns:
        A ``gradio.Blocks``.
    """
    gradio = _gradio()
    examples = []
    for number, pixels in enumerate(prompting.examples, 1):
        examples.append(str(Path(folder, f'scene {number}.png')))
        Image.fromarray(pixels).save(examples[-1])

    def told(work: Callable[..., Any]) -> Callable[..., Any]:
        """Show what is wrong with an input on the page, in one line."""

        @wraps(work)
        def run(*args: Any) -> Any:
            try:
                return work(*args)
            except (cli.UsageError, OSError, ValueError) as error:
                raise gradio.Error(str(error), print_exception=False) from None

        return run

    @told
    def open_file(file: dict[str, Any] | None) -> Any:
        if file is None:
            return None, None, None, None, None, OPEN_FIRST
        name = prompting.open_upload(Path(file['path']).read_bytes())
        image = prompting.opened(name)
        rows, columns = image.tokens.shape[1:]
        text = (
            f'{columns} × {rows} tokens in {image.seconds:.2f} s. Click a '
            'point of the image.'
        )
        return name, None, enlarged(image.pixels), None, None, text

    def click(name: str | None, threshold: float, event: Any) -> Any:
        return clicked(name, threshold, *event.index)

    # Gradio hands over what it finds annotated so.
    click.__annotations__['event'] = gradio.SelectData

    @told
    def clicked(name: str | None, threshold: float, x: int, y: int) -> Any:
        if name is None:
            raise cli.UsageError(OPEN_FIRST)
        pixels = prompting.opened(name).pixels
        times = enlargement(pixels)
        found = prompting.map(name, int(x) // times, int(y) // times)
        mask, text = segmented(pixels, found, threshold)
        crossed = with_cross(enlarged(pixels), int(x), int(y))
        return found, crossed, enlarged(heat_map(found)), mask, text

    @told
    def slide(
        name: str | None, found: Any, threshold: float
    ) -> tuple[Any, Any]:
        if name is None or found is None:
            return None, OPEN_FIRST
        return segmented(prompting.opened(name).pixels, found, threshold)

    def picture(place: str, label: str) -> Any:
        # Gradio's own label would cover a corner of the image.
        with gradio.Column(min_width=220):
            gradio.Markdown(f'**{label}**')
            return gradio.Image(
                interactive=False,
                show_label=False,
                alt_text=label,
                format='png',
                buttons=['fullscreen'],
                elem_id=place,
            )

    with gradio.Blocks(title='Prompt segmentation') as blocks:
        gradio.Markdown(
            f'# One click, one object\n`{title}`: how similar every patch is '
            'to the one that you click, and what lies above the threshold.'
        )
        name, found = gradio.State(), gradio.State()
        with gradio.Row():
            with gradio.Column(scale=1, min_width=240):
                upload = gradio.Image(
                    label='Open an image',
                    type='filepath',
                    sources=['upload', 'clipboard'],
                    height=240,
                    elem_id='upload',
                )
                gradio.Examples(examples, upload, label='or a drawn scene')
            with gradio.Column(scale=4):
                with gradio.Row():
                    shown, heat, mask = (
                        picture(*place)
                        for place in (
                            ('prompt', 'Click a point'),
                            ('similarity', 'Similarity, dark to bright'),
                            ('mask', 'Above the threshold'),
                        )
                    )
                threshold = gradio.Slider(
                    -1.0,
                    1.0,
                    THRESHOLD,
                    step=0.01,
                    label='Threshold T (cosine similarity)',
                    elem_id='threshold',
                )
                status = gradio.Markdown(OPEN_FIRST, elem_id='status')
        quick: dict[str, Any] = dict(
            show_progress='hidden', api_visibility='private'
        )
        upload.change(
            open_file,
            upload,
            [name, found, shown, heat, mask, status],
            # Gradio would open it as whatever PIL can, programs included.
            preprocess=False,
            api_visibility='private',
        )
        shown.select(
            click,
            [name, threshold],
            [found, shown, heat, mask, status],
            **quick,
        )
        threshold.input(
            slide,
            [name, found, threshold],
            [mask, status],
            trigger_mode='always_last',
            **quick,
        )
    return blocks


def segmented(
    pixels: NDArray[np.uint8], found: NDArray[np.float32], threshold: float
) -> tuple[NDArray[np.uint8], str]:
    """Return the image with all but the mask darkened, and what it is."""
    mask = found > threshold
    text = (
        f'{mask.mean():.1%} of the image lies above {threshold:g}; the '
        f'similarities go from {found.min():.2f} to {found.max():.2f}.'
    )
    return enlarged(keep_mask(pixels, mask)), text


def enlargement(pixels: NDArray[np.uint8]) -> int:
    """Return how many times a small image is enlarged on the page."""
    return max(1, SMALL_SIDE // max(pixels.shape[:2]))


def enlarged(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a small image with larger pixels."""
    times = enlargement(pixels)
    return pixels.repeat(times, axis=0).repeat(times, axis=1)


def heat_map(found: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return similarities in colours, from the lowest one up to 1, H×W×3."""
    lowest = float(found.min())
    scaled = (found - lowest) / max(1.0 - lowest, 1e-6)
    colours = matplotlib.colormaps['viridis'](scaled, bytes=True)
    result: NDArray[np.uint8] = colours[..., :3]
    return result


def with_cross(pixels: NDArray[np.uint8], x: int, y: int) -> Any:
    """Return the image with a cross at a point."""
    image = Image.fromarray(pixels)
    drawing = ImageDraw.Draw(image)
    arm = max(3, min(image.size) // 24)
    for colour, width in (('white', 3), ('red', 1)):
        drawing.line((x - arm, y, x + arm, y), colour, width)
        drawing.line((x, y - arm, x, y + arm), colour, width)
    return np.asarray(image)


def _gradio() -> Any:
    """Import Gradio, which then tells nobody.

    Raises:
        UsageError: If it is not installed.
    """
    os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'
    try:
        import gradio
    except ImportError as error:
        raise cli.UsageError(
            f"The page needs Gradio ({error}): pip install 'mmmoco[demo]'."
        ) from None
    return gradio


class HostCheck:
    """Answer only what is addressed to this machine.

    A page of anybody's, whose name is made to lead here, could else read
    what this one shows.

    Args:
        app: What answers.
        names: Allowed besides addresses and ``localhost``.
    """

    def __init__(self, app: Any, names: Sequence[str]) -> None:
        self.app, self.names = app, {name.lower() for name in names}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer, or refuse."""
        headers = dict(scope.get('headers') or ())
        host = headers.get(b'host', b'').decode('latin-1')
        if scope['type'] == 'lifespan' or self.allows(host):
            await self.app(scope, receive, send)
        elif scope['type'] == 'websocket':
            await send({'type': 'websocket.close', 'code': 1008})
        else:
            text = f'{host[:80]!r} is not the name of this page.\n'
            kind = (b'content-type', b'text/plain; charset=utf-8')
            await send(
                {
                    'type': 'http.response.start',
                    'status': 421,
                    'headers': [kind],
                }
            )
            await send({'type': 'http.response.body', 'body': text.encode()})

    def allows(self, host: str) -> bool:
        """Tell whether a Host header names this machine."""
        name = re.sub(r':\d+$', '', host).strip('[]').lower()
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name == 'localhost' or name in self.names
        return True


def free_port(host: str) -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def launch(args: argparse.Namespace, folder: str) -> tuple[Any, str]:
    """Build the model and listen.

    Args:
        args: The command line.
        folder: For examples and uploads, while the page is open.

    Returns:
        The running page, which ``close()`` ends, and its address.

    Raises:
        UsageError: If host and port cannot be had.
    """
    if not 0 <= args.port <= 65535:
        raise cli.UsageError(f'--port {args.port}: use 0 to 65535.')
    os.environ[UPLOADS] = str(Path(folder, 'uploads'))
    _gradio()
    from starlette.middleware import Middleware  # Comes with Gradio.

    blocks = page(build(args), Path(args.checkpoint).name, folder)
    names = [args.host, socket.gethostname(), socket.getfqdn()]
    try:
        _, url, _ = blocks.launch(
            server_name=args.host,
            server_port=args.port or free_port(args.host),
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            ssr_mode=False,
            run_history=False,
            footer_links=[],
            max_file_size=MAX_BYTES,
            app_kwargs={'middleware': [Middleware(HostCheck, names)]},
        )
    except OSError as error:
        raise cli.UsageError(
            f'Cannot listen on {args.host}:{args.port} '
            f'({error.strerror or error}): choose another --port or --host.'
        ) from None
    return blocks, url


@contextmanager
def _passing_folder() -> Iterator[str]:
    """Make a folder that goes also when SIGTERM ends the process."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    uploads = os.environ.get(UPLOADS)
    try:
        with tempfile.TemporaryDirectory(prefix='mmmoco_page_') as folder:
            yield folder
    finally:
        signal.signal(signal.SIGTERM, before)
        os.environ.pop(UPLOADS, None)
        if uploads is not None:
            os.environ[UPLOADS] = uploads


def serve(args: argparse.Namespace) -> None:
    """Serve as the command line says, until interrupted."""
    with _passing_folder() as folder:
        blocks, url = launch(args, folder)
        sys.stdout.write(f'Open {url} (Ctrl+C ends)\n')
        if not is_loopback(args.host):
            sys.stdout.write(
                f'Whoever reaches {args.host} can use this page.\n'
            )
        sys.stdout.flush()
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            sys.stdout.write('\n')
        finally:
            blocks.close()


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``demo/prompt_segmentation.py``."""
    args = parser().parse_args(argv)
    cli.run(lambda: serve(args), 'prompt_segmentation.py', args.debug)
