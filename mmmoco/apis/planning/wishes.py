"""What the user of ``plan`` and ``pretrain`` has said.

Nothing heavy is imported, so that what makes no sense is said at once.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from mmmoco.apis.lookup import missing

Method = Literal['mocov1', 'mocov2', 'densecl', 'mocov3']
Order = Literal['auto', 'hwc', 'chw']
#: Planning and starting take longer than this anywhere.
LEAST_SECONDS = 18.0
#: Names of folders that say nothing about the images in them.
_PLAIN = {'images', 'image', 'img_dir', 'data', 'imgs', 'img', 'jpg'}
LEAST = dict(image_size=32, batch_size=2, queue=1, epochs=1, gpus=1, seed=0)
#: More is a slip, and a schedule of it takes hours to count through.
_MOST = dict(
    image_size=4096,
    batch_size=10**6,
    queue=2**22,
    epochs=10**5,
    hours=10**5,
    lr=1000,
    gpus=10**5,
    seed=2**32 - 1,
)


@dataclass(frozen=True)
class Wishes:
    """The options of :func:`mmmoco.plan`; None: to be chosen."""

    data: str = ''
    work_dir: str | None = None
    method: Method | None = None
    backbone: str | None = None
    image_size: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    m: float | None = None
    queue: int | None = None
    epochs: int | None = None
    hours: float | None = None
    seed: int = 0
    gpus: int = 1
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    order: Order = 'auto'
    init: str | None = None
    allow_drop: float | bool = False

    @property
    def folder(self) -> Path:
        """The work dir: given, or called as the images are."""
        if self.work_dir:
            return Path(self.work_dir)
        path = Path(self.data).expanduser().resolve()
        if path.name.lower() in _PLAIN and path.parent.name:
            path = path.parent
        name = ''.join(c if c.isprintable() else '_' for c in path.name)
        return Path('work_dirs', name or 'images')

    @property
    def config(self) -> Path:
        """Where the config lies.

        Not in the work dir itself: there the runner puts the resolved one, by
        the same name and without comments.
        """
        name = re.sub(r'[^\w-]', '_', self.folder.name)
        return self.folder / 'plan' / f'{name or "config"}.py'

    def pick(self, name: str, usual: Any, why: str) -> tuple[Any, str]:
        """Return what was asked for, or else what is usual, and why."""
        asked = getattr(self, name)
        return (usual, why) if asked is None else (asked, 'as asked')

    @property
    def note(self) -> Path:
        """Where it is noted that a pre-training has begun, until its end."""
        return self.config.with_name('unfinished.json')

    def begun(self) -> Mapping[str, Any] | None:
        """Return what was noted when the same command began, if it did."""
        try:
            noted: dict[str, Any] = json.loads(self.note.read_text())
            same = noted['wishes'] == json.loads(json.dumps(asdict(self)))
        except (OSError, ValueError, LookupError, TypeError):
            return None
        return noted if same else None

    def check(self, goes_on: bool = False) -> None:
        """Refuse what makes no sense.

        Args:
            goes_on: Whether the same command may go on in a work dir.

        Raises:
            FileNotFoundError: If the weights to go on from are not there.
            ValueError: Naming the option.
        """
        for name, low in LEAST.items():
            value = getattr(self, name)
            if value is not None and value < low:
                flag = name.replace('_', '-')
                raise ValueError(f'--{flag} {value}: must be at least {low}.')
        for name, high in _MOST.items():
            value = getattr(self, name)
            if value is not None and value > high:
                flag = name.replace('_', '-')
                raise ValueError(f'--{flag} {value}: at most {high:,}.')
        for name in ('lr', 'hours'):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f'--{name} {value}: must be above 0.')
        if self.allow_drop is not False and self.init is None:
            raise ValueError(
                '--allow-drop goes with --init: nothing can drop.'
            )
        if not 0 <= self.allow_drop <= 100:
            raise ValueError(
                f'--allow-drop {self.allow_drop}: percentage points, from 0 '
                'to 100; without a number nothing stops the run.'
            )
        if self.init and not Path(self.init).expanduser().is_file():
            raise FileNotFoundError(f'--init: {missing(self.init)}')
        if self.m is not None and not 0.5 <= self.m < 1:
            raise ValueError(
                f'--m {self.m}: it is the weight of the old key parameters, '
                'from 0.5 to below 1 (0.99, 0.999).'
            )
        if self.hours is not None and self.hours * 3600 < LEAST_SECONDS:
            raise ValueError(
                f'--hours {self.hours:g} are {self.hours * 3600:.2g} s, too '
                'few: planning and starting alone take more. Give at least '
                f'--hours {LEAST_SECONDS / 3600:.2g}.'
            )
        if self.epochs is not None and self.hours is not None:
            raise ValueError(
                '--epochs and --hours both say how long: give one of them.'
            )
        place = self.folder
        while not place.exists():
            place = place.parent
        if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
            raise ValueError(
                f'--work-dir {str(self.folder)!r}: {str(place)!r} is no '
                'folder that can be written to.'
            )
        begun = goes_on and self.begun()
        if not begun and any(self.folder.glob('*_[0-9]*.pth')):
            again = f'mmmoco train {self.config} --resume goes on with it, or '
            raise ValueError(
                f'--work-dir {str(self.folder)!r} holds the checkpoints of a '
                f'run: {again if self.config.is_file() else ""}take another '
                'one.'
            )
