"""What every kind of own labels has in common."""

import os
from dataclasses import dataclass, field


@dataclass
class Labels:
    """The labels of one split.

    Attributes:
        folder: Of the images.
        names: Of the images, below it.
        remarks: What there is to say.
    """

    folder: str
    names: list[str]
    remarks: list[str] = field(default_factory=list, kw_only=True)

    @property
    def paths(self) -> set[str]:
        """Return the files of the images."""
        places = (os.path.join(self.folder, name) for name in self.names)
        return set(map(os.path.realpath, places))
