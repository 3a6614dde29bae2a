"""Serving the page to this machine."""

import ipaddress
import os
import re
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmmoco.apis.cli import UsageError

#: Tells Gradio where uploads go.
UPLOADS = 'GRADIO_TEMP_DIR'

#: An upload may have this many bytes.
MAX_BYTES = 32 * 2**20


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == 'localhost'


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
            from starlette.responses import PlainTextResponse

            text = f'{host[:80]!r} is not the name of this page.\n'
            refusal = PlainTextResponse(text, status_code=421)
            await refusal(scope, receive, send)

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


def launch(blocks: Any, host: str, port: int) -> str:
    """Listen; ``blocks.close()`` ends it.

    Args:
        blocks: The page.
        host: Name or address of this machine.
        port: 0: any that is free.

    Returns:
        The address of the page.

    Raises:
        UsageError: If host and port cannot be had.
    """
    from starlette.middleware import Middleware  # Comes with Gradio.

    names = [host, socket.gethostname(), socket.getfqdn()]
    try:
        _, url, _ = blocks.launch(
            server_name=host,
            server_port=port or free_port(host),
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            ssr_mode=False,
            run_history=False,
            footer_links=[],
            css_paths=[Path(__file__).with_name('page.css')],
            max_file_size=MAX_BYTES,
            app_kwargs={'middleware': [Middleware(HostCheck, names)]},
        )
    except OSError as error:
        raise UsageError(
            f'Cannot listen on {host}:{port} ({error.strerror or error}): '
            'choose another --port or --host.'
        ) from None
    return str(url)


@contextmanager
def passing_folder() -> Iterator[str]:
    """Make a folder for examples and uploads that goes also with SIGTERM.

    Uploads go there for as long as the environment stays.
    """
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory(prefix='mmmoco_page_') as folder:
            os.environ[UPLOADS] = str(Path(folder, 'uploads'))
            yield folder
    finally:
        signal.signal(signal.SIGTERM, before)


def serve(blocks: Any, host: str, port: int) -> None:
    """Serve a page until interrupted."""
    url = launch(blocks, host, port)
    sys.stdout.write(f'Open {url} (Ctrl+C ends)\n')
    if not is_loopback(host):
        sys.stdout.write(f'Whoever reaches {host} can use this page.\n')
    sys.stdout.flush()
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        sys.stdout.write('\n')
    finally:
        blocks.close()
