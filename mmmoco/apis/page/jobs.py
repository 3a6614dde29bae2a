"""One click, one object, in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mmmoco.apis.cli import Settings, UsageError
from mmmoco.apis.process import tidy

if TYPE_CHECKING:
    from mmengine.config import Config


@tidy
def prompt_segmentation(
    checkpoint: str,
    *,
    config: str | Config | None = None,
    size: int = 448,
    host: str = '127.0.0.1',
    port: int = 7860,
    cfg_options: Settings | None = None,
) -> None:
    """Serve a page on which one click segments an object, until interrupted.

    Open an image, click points on it and beside it, move the threshold,
    choose a layer, compare with random weights and with colours, download
    the mask. Nothing leaves this machine.

    Args:
        checkpoint: File of a pre-training run.
        config: Of the run; default: what the checkpoint tells about itself.
        size: Longest side that the model sees, in pixels.
        host: Name or address to listen on.
        port: 0: any.
        cfg_options: Override settings of the config.

    Raises:
        FileNotFoundError: If config or checkpoint do not exist.
        UsageError: If host and port cannot be had, or options do not fit
            together.

    Example:
        mmmoco prompt work_dirs/mmc_digits/epoch_27.pth
    """
    if not 0 <= port <= 65535:
        raise UsageError(f'--port {port}: use 0 to 65535.')
    from .layout import import_gradio, page
    from .prompting import build
    from .server import passing_folder, serve

    with passing_folder() as folder:
        import_gradio()  # Whether it is there is said first.
        prompting = build(checkpoint, config, size, cfg_options)
        serve(page(prompting, Path(checkpoint).name, folder), host, port)
