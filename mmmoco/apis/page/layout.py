"""The page: what stands where, and what it does. Gradio makes it."""

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from PIL import Image

from mmmoco.apis.cli import UsageError

from .pictures import enlarged, enlargement, heat_map, segmented, with_cross
from .prompting import Prompting

OPEN_FIRST = 'Open an image, then click a point of it.'

#: T at the start; the paper varies it from 0 to 0.3.
THRESHOLD = 0.3


def import_gradio() -> Any:
    """Import Gradio, which then tells nobody.

    Raises:
        UsageError: If it is not installed.
    """
    os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'
    try:
        import gradio
    except ImportError as error:
        raise UsageError(
            f'The page needs Gradio ({error}): pip install gradio.'
        ) from None
    return gradio


def told(work: Callable[..., Any]) -> Callable[..., Any]:
    """Show what is wrong with an input on the page, in one line."""

    @wraps(work)
    def run(*args: Any) -> Any:
        try:
            return work(*args)
        except (UsageError, OSError, ValueError) as error:
            raise import_gradio().Error(
                str(error), print_exception=False
            ) from None

    return run


class Answers:
    """What the page shows after an upload, a click, a move of the threshold.

    Args:
        prompting: Images and maps.
    """

    def __init__(self, prompting: Prompting) -> None:
        self.prompting = prompting

    @told
    def open_file(self, file: dict[str, Any] | None) -> Any:
        """Return name, map, image, heat map, mask and status."""
        if file is None:
            return None, None, None, None, None, OPEN_FIRST
        name = self.prompting.open_upload(Path(file['path']).read_bytes())
        image = self.prompting.opened(name)
        rows, columns = image.tokens.shape[1:]
        text = (
            f'{columns} × {rows} tokens in {image.seconds:.2f} s. Click a '
            'point of the image.'
        )
        return name, None, enlarged(image.pixels), None, None, text

    @told
    def click(self, name: str | None, threshold: float, event: Any) -> Any:
        """Return map, image with a cross, heat map, mask and status."""
        if name is None:
            raise UsageError(OPEN_FIRST)
        x, y = map(int, event.index)
        pixels = self.prompting.opened(name).pixels
        times = enlargement(pixels)
        found = self.prompting.map(name, x // times, y // times)
        mask, text = segmented(pixels, found, threshold)
        crossed = with_cross(enlarged(pixels), x, y)
        return found, crossed, enlarged(heat_map(found)), mask, text

    @told
    def slide(self, name: str | None, found: Any, threshold: float) -> Any:
        """Return mask and status."""
        if name is None or found is None:
            return None, OPEN_FIRST
        pixels = self.prompting.opened(name).pixels
        return segmented(pixels, found, threshold)


def page(prompting: Prompting, title: str, folder: str) -> Any:
    """Lay out the page.

    Args:
        prompting: Images and maps.
        title: What model this is.
        folder: Where the examples are written.

    Returns:
        A ``gradio.Blocks``.
    """
    gradio = import_gradio()
    with gradio.Blocks(title='Prompt segmentation') as blocks:
        gradio.Markdown(
            f'# One click, one object\n`{title}`: how similar every patch is '
            'to the one that you click, and what lies above the threshold.'
        )
        state = gradio.State(), gradio.State()
        with gradio.Row():
            with gradio.Column(scale=1, min_width=240):
                upload = _upload(gradio, _examples(prompting, folder))
            with gradio.Column(scale=4):
                with gradio.Row():
                    pictures = [
                        _picture(gradio, *place)
                        for place in (
                            ('prompt', 'Click a point'),
                            ('similarity', 'Similarity, dark to bright'),
                            ('mask', 'Above the threshold'),
                        )
                    ]
                threshold = gradio.Slider(
                    -1.0,
                    1.0,
                    THRESHOLD,
                    step=0.01,
                    label='Threshold T (cosine similarity)',
                    elem_id='threshold',
                )
                status = gradio.Markdown(OPEN_FIRST, elem_id='status')
        shown = [*state, *pictures, status]
        _connect(gradio, Answers(prompting), upload, threshold, shown)
    return blocks


def _examples(prompting: Prompting, folder: str) -> list[str]:
    paths = []
    for number, pixels in enumerate(prompting.examples, 1):
        paths.append(str(Path(folder, f'scene {number}.png')))
        Image.fromarray(pixels).save(paths[-1])
    return paths


def _upload(gradio: Any, examples: list[str]) -> Any:
    upload = gradio.Image(
        label='Open an image',
        type='filepath',
        sources=['upload', 'clipboard'],
        height=240,
        elem_id='upload',
    )
    gradio.Examples(examples, upload, label='or a drawn scene')
    return upload


def _picture(gradio: Any, place: str, label: str) -> Any:
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


def _connect(
    gradio: Any, answers: Answers, upload: Any, threshold: Any, shown: Any
) -> None:
    """Say what an upload, a click and the threshold change."""

    def click(name: Any, threshold: Any, event: Any) -> Any:
        return answers.click(name, threshold, event)

    # Gradio hands over what it finds annotated so.
    click.__annotations__['event'] = gradio.SelectData
    name, found, image, _, mask, status = shown
    quick = dict(show_progress='hidden', api_visibility='private')
    upload.change(
        answers.open_file,
        upload,
        shown,
        # Gradio would open it as whatever PIL can, programs included.
        preprocess=False,
        api_visibility='private',
    )
    image.select(click, [name, threshold], shown[1:], **quick)
    threshold.input(
        answers.slide,
        [name, found, threshold],
        [mask, status],
        trigger_mode='always_last',
        **quick,
    )
