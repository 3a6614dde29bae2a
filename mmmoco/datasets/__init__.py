from . import transforms
from .addressed import AddressedDataset, AddressedSampler, SampleAddress
from .bad_files import BadFile, BadFileLog, UnreadableDataError
from .cifar import CIFAR
from .class_split import ClassFolderSplit
from .digit_scenes import DigitScenes
from .hugging_face import HFDataset, HFStream
from .image_folder import ImageFolderDataset
from .lvis import LVISInstances
from .seasonal_places import SeasonalPlaces
from .shard_stream import Record, ShardStream
from .tar_shards import TarShards
