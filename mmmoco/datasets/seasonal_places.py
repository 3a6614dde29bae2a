import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmmoco.files import Listing, hidden
from mmmoco.messages import log_warning
from mmmoco.registry import DATASETS

from .addressed import AddressedDataset
from .groups import group_numbers
from .image_folder import EXTENSIONS
from .value_range import check_ranges


@DATASETS.register_module()
class SeasonalPlaces(AddressedDataset):
    """Places that were photographed several times: a folder for each.

    ``data_root/<place>/<acquisition>``, where an acquisition is a file, or a
    folder with one file for each band (SSL4EO-S12); names that begin with a
    dot are left out. A sample is a place, and a group; with
    :class:`SeasonalViews` its views show different acquisitions.

    Args:
        data_root: Folder of the places.
        data_prefix: Sub-folder, for example ``'s2c'``.
        min_acquisitions: Places with fewer are left out; the log says how
            many.
        extensions: Which files are images, in lower case.
        pipeline: Configs of transforms.

    Raises:
        FileNotFoundError: If no place has enough acquisitions.
    """

    grouped = True
    groups: npt.NDArray[np.int64]

    def __init__(
        self,
        data_root: str,
        data_prefix: str = '',
        min_acquisitions: int = 2,
        extensions: Sequence[str] = (*EXTENSIONS, '.npy'),
        pipeline: Sequence[dict[str, Any]] = (),
    ) -> None:
        super().__init__(pipeline)
        self.extensions = tuple(e.lower() for e in extensions)
        root = Path(data_root).expanduser() / data_prefix
        if not root.is_dir():
            raise FileNotFoundError(
                f'data_root {str(root)!r} does not exist or is no folder. Set '
                'it to the folder with one folder for each place.'
            )
        with os.scandir(root) as entries:
            every = sorted(entry.name for entry in entries if entry.is_dir())
        names = [name for name in every if not hidden(name)]
        Listing(hidden=[n for n in every if hidden(n)]).report(root)
        found = [(name, self._acquisitions(root / name)) for name in names]
        self.places = [
            (str(root / name), files)
            for name, files in found
            if len(files) >= min_acquisitions
        ]
        if not self.places:
            raise FileNotFoundError(
                f'No folder in {str(root)!r} holds {min_acquisitions} or '
                'more acquisitions: files that end with '
                f'{", ".join(self.extensions)}, or folders of such files. '
                'Images without places are trained on with '
                'mocov2_r50_1xb64_bands, or dataset.type=ImageFolderDataset.'
            )
        if len(self.places) < len(names):
            log_warning(
                f'{len(names) - len(self.places)} of {len(names)} places in '
                f'{str(root)!r} have fewer than {min_acquisitions} '
                'acquisitions and are left out.'
            )
        self.groups = group_numbers(Path(p).name for p, _ in self.places)
        check_ranges(self)

    def _acquisitions(self, place: Path) -> list[str]:
        return sorted(
            str(entry)
            for entry in place.iterdir()
            if self._is_image(entry)
            or (
                not hidden(entry.name)
                and entry.is_dir()
                and any(map(self._is_image, entry.iterdir()))
            )
        )

    def _is_image(self, path: Path) -> bool:
        # A broken link counts: reading it tells what is wrong.
        name = path.name
        return name.lower().endswith(self.extensions) and not hidden(name)

    def __len__(self) -> int:
        """Number of places."""
        return len(self.places)

    def name_of(self, index: int) -> str:
        """Return the folder of a place."""
        return self.places[index][0]

    def sample(self, index: int) -> dict[str, Any]:
        """Return acquisitions and position; the first one also alone."""
        return {
            'acquisitions': self.places[index][1],
            'img_path': self.places[index][1][0],
            'sample_idx': index,
            'group': int(self.groups[index]),
        }
