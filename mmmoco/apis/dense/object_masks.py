"""Images with the masks of their objects, from the usual annotations.

COCO instances, COCO panoptic, VOC, Cityscapes, and the embedded scenes; each
a sequence of :class:`MaskedImage`.
"""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmmoco.datasets.digit_scenes import DigitScenes
from mmmoco.datasets.transforms.loading import open_image
from mmmoco.files import Listing, files_below, read_json
from mmmoco.messages import library

Masks = NDArray[np.bool_]


class MaskedImage(NamedTuple):
    """An image and its objects.

    Attributes:
        image: H×W×3, uint8, RGB.
        masks: Q×H×W; Q may be 0.
        classes: Q class indices of the data set.
    """

    image: NDArray[np.uint8]
    masks: Masks
    classes: list[int]


class ObjectMasks(Sequence[MaskedImage]):
    """Base of the data sets below: objects by image, small ones left out.

    Args:
        entries: What the images are read from, in their order.

    Attributes:
        min_area: Objects with fewer pixels are left out.
    """

    min_area = 1

    def __init__(self, entries: Sequence[Any]) -> None:
        self.entries = entries

    def __len__(self) -> int:
        """Number of images."""
        return len(self.entries)

    @abstractmethod
    def read(self, index: int) -> tuple[Any, list[Masks], list[int]]:
        """Return image, masks and classes of one image."""

    def __getitem__(self, index: Any) -> Any:
        """Return one image with its objects."""
        image, masks, classes = self.read(range(len(self))[index])
        pixels = np.asarray(image, dtype=np.uint8)
        if pixels.ndim == 2:
            pixels = np.repeat(pixels[..., None], 3, axis=2)
        kept = [
            (mask, label)
            for mask, label in zip(masks, classes, strict=True)
            if np.count_nonzero(mask) >= self.min_area
        ]
        stacked = np.zeros((len(kept), *pixels.shape[:2]), np.bool_)
        for i, (mask, _) in enumerate(kept):
            if mask.shape != pixels.shape[:2]:
                raise ValueError(
                    f'Image {index}: its mask is {mask.shape}, the image '
                    f'{pixels.shape[:2]}; image and annotation do not belong '
                    'together.'
                )
            stacked[i] = mask
        return MaskedImage(pixels, stacked, [label for _, label in kept])


class SceneObjects(ObjectMasks):
    """The digits of embedded scenes.

    Args:
        scenes: The scenes.
    """

    def __init__(self, scenes: DigitScenes) -> None:
        super().__init__(range(len(scenes)))
        self.scenes = scenes

    def read(self, index: int) -> tuple[Any, list[Masks], list[int]]:
        """Return a scene."""
        digits = self.scenes.annotations(index)
        image = self.scenes.images[index].numpy()
        return image, [d.mask for d in digits], [d.label for d in digits]


class CocoObjects(ObjectMasks):
    """Instances of any COCO JSON; crowds are left out.

    Args:
        annotations: The JSON.
        images: Folder of its ``file_name`` entries.

    Raises:
        FileNotFoundError: If the file does not exist.
        ImportError: If pycocotools is not installed.
    """

    def __init__(self, annotations: str | Path, images: str | Path) -> None:
        path = _file(annotations)
        coco = library('pycocotools.coco', str(path))
        content = read_json(path)
        if not {'images', 'annotations', 'categories'} <= content.keys():
            raise ValueError(f'{str(path)!r} is no COCO instance file.')
        self.coco = coco.COCO()
        self.coco.dataset = content
        self.coco.createIndex()
        self.folder = Path(images)
        super().__init__(sorted(self.coco.imgs))

    def read(self, index: int) -> tuple[Any, list[Masks], list[int]]:
        """Return an image with its instances."""
        name = self.entries[index]
        found = self.coco.loadAnns(
            self.coco.getAnnIds(imgIds=name, iscrowd=False)
        )
        masks = [self.coco.annToMask(a).astype(bool) for a in found]
        image = _rgb(self.folder / self.coco.imgs[name]['file_name'])
        return image, masks, [int(a['category_id']) for a in found]


class PanopticObjects(ObjectMasks):
    """Segments of a COCO panoptic JSON and its PNGs; crowds are left out.

    Args:
        annotations: The JSON; the PNGs lie in the folder of its name.
        images: Folder of its images.
        stuff: Keep segments of stuff, too.
    """

    def __init__(
        self, annotations: str | Path, images: str | Path, stuff: bool = False
    ) -> None:
        path = _file(annotations)
        content = read_json(path)
        if not content.get('annotations') or (
            'segments_info' not in content['annotations'][0]
        ):
            raise ValueError(f'{str(path)!r} is no COCO panoptic file.')
        things = {c['id'] for c in content['categories'] if c['isthing']}
        files = {i['id']: i['file_name'] for i in content['images']}
        self.folder, self.maps = Path(images), path.with_suffix('')
        entries = []
        for a in sorted(content['annotations'], key=lambda a: a['image_id']):
            segments = [
                s
                for s in a['segments_info']
                if not s['iscrowd'] and (stuff or s['category_id'] in things)
            ]
            entries.append((files[a['image_id']], a['file_name'], segments))
        super().__init__(entries)

    def read(self, index: int) -> tuple[Any, list[Masks], list[int]]:
        """Return an image with its segments."""
        image, png, segments = self.entries[index]
        colours = np.asarray(_rgb(self.maps / png), dtype=np.int64)
        ids = colours @ np.array([1, 256, 256**2])
        return (
            _rgb(self.folder / image),
            [ids == s['id'] for s in segments],
            [int(s['category_id']) for s in segments],
        )


class LabelObjects(ObjectMasks):
    """Objects from label images: VOC, Cityscapes, or any like them.

    Args:
        pairs: Image, label image of classes, label image of instances. With
            the last one every instance is an object, its class the most
            frequent label in it; without it (None) every connected region
            of one class.
        ignore: Labels that are no objects.

    Raises:
        FileNotFoundError: If there is no image.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[Path, Path, Path | None]],
        ignore: Sequence[int] = (255,),
    ) -> None:
        if not pairs:
            raise FileNotFoundError(
                'No image with a label image was found: check the folders.'
            )
        super().__init__(pairs)
        self.ignore = ignore

    @classmethod
    def voc(cls, root: str | Path, split: str = 'val') -> 'LabelObjects':
        """Read ``SegmentationClass`` and ``SegmentationObject`` of VOC.

        Args:
            root: Folder ``VOC2012`` (or ``VOC2007``).
            split: Name in ``ImageSets/Segmentation``.
        """
        root = Path(root)
        listing = _file(root / f'ImageSets/Segmentation/{split}.txt')
        pairs = []
        for name in listing.read_text().split():
            instances = root / f'SegmentationObject/{name}.png'
            given = instances if instances.is_file() else None
            image = root / f'JPEGImages/{name}.jpg'
            labels = root / f'SegmentationClass/{name}.png'
            pairs.append((image, labels, given))
        return cls(pairs, ignore=(0, 255))

    @classmethod
    def cityscapes(
        cls, root: str | Path, split: str = 'val'
    ) -> 'LabelObjects':
        """Read ``leftImg8bit`` and ``gtFine/*_labelTrainIds.png``.

        Connected regions of one class are the objects.

        Args:
            root: Folder that holds both.
            split: Its part.
        """
        root = Path(root)
        pairs: list[tuple[Path, Path, Path | None]] = []
        folder = root / 'leftImg8bit' / split
        listing = Listing()
        if folder.is_dir():
            listing = files_below(folder, ('.png',))
            listing.report(folder)
        for image in sorted(map(Path, listing.paths)):
            stem = image.name.removesuffix('_leftImg8bit.png')
            labels = root / 'gtFine' / split / image.parent.name
            label = labels / f'{stem}_gtFine_labelTrainIds.png'
            if label.is_file():
                pairs.append((image, label, None))
        return cls(pairs)

    def read(self, index: int) -> tuple[Any, list[Masks], list[int]]:
        """Return an image with its objects."""
        image, label_file, instance_file = self.entries[index]
        labels = _indices(label_file)
        masks, classes = [], []
        if instance_file is not None:
            instances = _indices(instance_file)
            for value in np.setdiff1d(instances, self.ignore):
                mask = instances == value
                label = int(np.bincount(labels[mask]).argmax())
                if label not in self.ignore:
                    masks.append(mask)
                    classes.append(label)
            return _rgb(image), masks, classes
        from scipy.ndimage import label as regions_of

        for value in np.setdiff1d(labels, self.ignore):
            regions, count = regions_of(labels == value)
            masks += [regions == i for i in range(1, count + 1)]
            classes += [int(value)] * count
        return _rgb(image), masks, classes


def _file(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{str(path)!r} does not exist.')
    return path


def _rgb(path: Path) -> Image.Image:
    with open_image(_file(path), str(path)) as image:
        return image.convert('RGB')


def _indices(path: Path) -> NDArray[Any]:
    with open_image(_file(path), str(path)) as image:
        return np.asarray(image)
