"""The page: what stands where, and what it does. Gradio makes it."""

import math
import os
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmmoco.apis.cli import UsageError

from .pictures import (
    dividing,
    enlarged,
    enlargement,
    heat_map,
    lowest_of,
    segmented,
)
from .prompting import SOURCES, Point, Prompting

OPEN_FIRST = 'Open an image or take a drawn scene, then click an object.'
SIGNS = ('+ on the object', '− beside it')


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


class Session(NamedTuple):
    """What one browser works on.

    Attributes:
        name: Of the image; None: none is open.
        points: That were clicked.
        found: Their map.
    """

    name: str | None = None
    points: tuple[Point, ...] = ()
    found: NDArray[np.float32] | None = None


class Answers:
    """What the page shows after an upload, a click, a move of the threshold.

    All but :meth:`slide` return session, slider, picture, status, file of
    the mask and heat map.

    Args:
        prompting: Images and maps.
        folder: Where the masks are written.
    """

    def __init__(self, prompting: Prompting, folder: str) -> None:
        self.prompting, self.folder = prompting, Path(folder)

    @told
    def open_file(self, file: dict[str, Any]) -> Any:
        """Open an upload."""
        content = Path(file['path']).read_bytes()
        return self.without_map(self.prompting.open_upload(content))

    @told
    def open_scene(self, number: int) -> Any:
        """Open one of the examples."""
        pixels = self.prompting.examples[number]
        return self.without_map(self.prompting.open(pixels))

    @told
    def click(
        self,
        session: Session,
        source: str,
        layer: int,
        threshold: float,
        sign: str,
        event: Any,
    ) -> Any:
        """Add a point."""
        name, points, found = session
        if name is None:
            raise UsageError(OPEN_FIRST)
        times = enlargement(self.prompting.opened(name).pixels)
        x, y = (int(at) // times for at in event.index)
        points = *points, Point(x, y, sign == SIGNS[0])
        kept = None if found is None else threshold
        return self.show(Session(name, points), source, layer, kept)

    @told
    def drop(
        self, session: Session, source: str, layer: int, threshold: float
    ) -> Any:
        """Take the last point away."""
        kept = session._replace(points=session.points[:-1])
        return self.show(kept, source, layer, threshold)

    @told
    def slide(self, session: Session, threshold: float) -> Any:
        """Return picture, status and file of the mask."""
        name, points, found = session
        if name is None or found is None:
            raise UsageError(OPEN_FIRST)
        image = self.prompting.opened(name)
        mask = found > threshold
        text = (
            f'**{mask.mean():.1%}** of the image lies above {threshold:g}; '
            f'similarities from {np.nanmin(found):.3f} to '
            f'{np.nanmax(found):.3f}.'
        )
        file = self.folder / name / 'mask.png'
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(mask).resize(image.size[::-1]).save(file)
        shown = segmented(image.pixels, mask, points)
        return shown, text, _download(str(file))

    @told
    def show(
        self,
        session: Session,
        source: str,
        layer: int,
        threshold: float | None = None,
    ) -> Any:
        """Show the map of some features; it may choose its own threshold."""
        name, points, _ = session
        if name is None or not any(point.inside for point in points):
            return self.without_map(name, points)
        tokens = self.prompting.tokens(name, source)
        start = time.perf_counter()
        found = self.prompting.map(name, points, source, layer)
        passed = time.perf_counter() - start
        lowest = math.floor(lowest_of(found) * 1000) / 1000
        if threshold is None:
            threshold = round(dividing(found), 3)
        threshold = min(max(threshold, lowest), 1.0)
        session = Session(name, points, found)
        picture, text, file = self.slide(session, threshold)
        text += (
            f' Map in {passed * 1000:.0f} ms, tokens of {source} in '
            f'{tokens.seconds:.2f} s.'
        )
        heat = enlarged(heat_map(found))
        slider = _slider(lowest, threshold, True)
        return session, slider, picture, text, file, heat

    def without_map(
        self, name: str | None = None, points: tuple[Point, ...] = ()
    ) -> Any:
        """Show an image and the points on it; None: no image."""
        text, picture = OPEN_FIRST, None
        if name is not None:
            tokens = self.prompting.tokens(name)
            rows, columns = tokens.layers[-1].shape[1:]
            text = (
                f'{columns} × {rows} tokens in {tokens.seconds:.2f} s. Click '
                'an object.'
            )
            pixels = self.prompting.opened(name).pixels
            everything = np.ones(pixels.shape[:2], bool)
            picture = segmented(pixels, everything, points)
        session = Session(name, points)
        return session, _slider(), picture, text, _download(), None


def _slider(
    lowest: float = 0.0, value: float = 0.5, usable: bool = False
) -> Any:
    return import_gradio().Slider(
        lowest,
        1.0,
        value,
        step=0.001,
        label='Threshold T (cosine similarity)',
        interactive=usable,
        buttons=[],
        elem_id='threshold',
    )


def _download(file: str | None = None) -> Any:
    return import_gradio().DownloadButton(
        'Download the mask',
        file,
        size='md',
        interactive=file is not None,
        elem_id='download',
    )


def page(prompting: Prompting, title: str, folder: str) -> Any:
    """Lay out the page.

    Args:
        prompting: Images and maps.
        title: What model this is.
        folder: Where examples and masks are written.

    Returns:
        A ``gradio.Blocks``.
    """
    gradio = import_gradio()
    with gradio.Blocks(title='Prompt segmentation') as blocks:
        gradio.Markdown(f'# One click, one object\n`{title}`')
        scenes = gradio.Dataset(
            components=[gradio.Image(render=False)],
            samples=[[path] for path in _examples(prompting, folder)],
            type='index',
            label='Drawn scenes',
            elem_id='scenes',
        )
        with gradio.Row():
            with gradio.Column(scale=3, min_width=300):
                picture = _picture(
                    gradio, 'picture', 'Image', sources=['upload', 'clipboard']
                )
                threshold = _slider()
                status = gradio.Markdown(OPEN_FIRST, elem_id='status')
            with gradio.Column(scale=2, min_width=300):
                sign = gradio.Radio(
                    SIGNS, value=SIGNS[0], label='A click is', elem_id='sign'
                )
                with gradio.Row():
                    drop = gradio.Button('Undo the last point', size='md')
                    file = _download()
                source = gradio.Radio(
                    SOURCES,
                    value=SOURCES[0],
                    label='Features of',
                    elem_id='source',
                )
                last = prompting.layers - 1
                layer = gradio.Dropdown(
                    list(range(last + 1)),
                    value=last,
                    label=f'Layer (the last is {last})',
                    interactive=last > 0,
                    elem_id='layer',
                )
                gradio.Markdown(
                    'Similarity, dark to bright; grey: nearer to a point '
                    'beside the object.'
                )
                heat = _picture(
                    gradio, 'similarity', 'Similarity', interactive=False
                )
        session = gradio.State(Session())
        answers = Answers(prompting, folder)

        def click(event: Any, *values: Any) -> Any:
            return answers.click(*values, event)

        # Gradio hands over what it finds annotated so.
        click.__annotations__['event'] = gradio.SelectData
        everything = [session, threshold, picture, status, file, heat]
        wanted = [session, source, layer, threshold]
        # Gradio would open it as whatever PIL can, programs included.
        picture.upload(
            *(answers.open_file, picture, everything),
            preprocess=False,
            api_visibility='private',
        )
        quick = dict(show_progress='hidden', api_visibility='private')
        for event, work, inputs, mode in (
            (scenes.click, answers.open_scene, scenes, None),
            (picture.clear, answers.without_map, None, None),
            # A quick second click counts too.
            (picture.select, click, [*wanted, sign], 'multiple'),
            (drop.click, answers.drop, wanted, 'multiple'),
            (source.input, answers.show, wanted[:3], None),
            (layer.input, answers.show, wanted[:3], None),
        ):
            event(work, inputs, everything, trigger_mode=mode, **quick)
        threshold.input(
            *(answers.slide, [session, threshold], [picture, status, file]),
            trigger_mode='always_last',
            **quick,
        )
    return blocks


def _examples(prompting: Prompting, folder: str) -> list[str]:
    paths = []
    for number, pixels in enumerate(prompting.examples, 1):
        paths.append(str(Path(folder, f'scene {number}.png')))
        Image.fromarray(pixels).save(paths[-1])
    return paths


def _picture(gradio: Any, place: str, label: str, **options: Any) -> Any:
    # Gradio's own label would cover a corner of the image.
    return gradio.Image(
        show_label=False,
        alt_text=label,
        type='filepath',
        format='png',
        buttons=['fullscreen'],
        elem_id=place,
        **options,
    )
