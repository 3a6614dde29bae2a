"""The report on one run or several."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from mmmoco.apis.process import tidy


@tidy
def report(
    work_dirs: Annotated[Sequence[str] | str, {'metavar': 'WORK_DIR'}],
    *,
    out: str | None = None,
    map: Literal['pca', 'tsne'] = 'pca',
) -> Path:
    """Write one HTML file about a run, or about several side by side.

    It needs no network and no other file.

    Args:
        work_dirs: Folders of runs.
        out: File to write; default: WORK_DIR/report.html of the first.
        map: How features.npz is drawn.

    Returns:
        The file.

    Raises:
        FileNotFoundError: If a folder does not exist or holds no run.
        ValueError: If a folder is given twice, or a file of it is broken.

    Example:
        mmmoco report work_dirs/mocov2_digits
    """
    from mmmoco.engine import checkpoint_io
    from mmmoco.messages import printable
    from mmmoco.version import __version__
    from mmmoco.visualization.report import render_report

    from .work_dir import names_of, read_run

    if isinstance(work_dirs, str | Path):
        work_dirs = [work_dirs]
    folders = [Path(folder) for folder in work_dirs]
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ValueError('A work dir is given twice.')
    runs = [
        read_run(folder, name, map)
        for folder, name in zip(folders, names_of(folders), strict=True)
    ]
    made = f'{time.strftime("%Y-%m-%d %H:%M")}, mmmoco {__version__}'
    target = Path(out or folders[0] / 'report.html')
    parent = target.resolve().parent
    if not parent.is_dir():
        raise FileNotFoundError(f'--out: {str(parent)!r} does not exist.')
    checkpoint_io.write_text(target, printable(render_report(runs, made)))
    return target
