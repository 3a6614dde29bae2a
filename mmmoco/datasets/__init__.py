from . import transforms
from .addressed import AddressedDataset, AddressedSampler, SampleAddress
from .digit_scenes import DigitScenes
from .image_folder import ImageFolderDataset

__all__ = [
    'AddressedDataset',
    'AddressedSampler',
    'DigitScenes',
    'ImageFolderDataset',
    'SampleAddress',
    'transforms',
]
