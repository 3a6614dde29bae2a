from .addressed_randomness_hook import AddressedRandomnessHook
from .bad_files_hook import BadFilesHook
from .checkpoint_hook import ContrastCheckpointHook
from .guard_hook import GuardHook
from .knn_hook import KNNHook
from .monitor_hook import MonitorHook
from .update_hooks import DictionaryUpdateHook, KeyEncoderUpdateHook

__all__ = [
    'AddressedRandomnessHook',
    'BadFilesHook',
    'ContrastCheckpointHook',
    'DictionaryUpdateHook',
    'GuardHook',
    'KNNHook',
    'KeyEncoderUpdateHook',
    'MonitorHook',
]
