from .addressed_randomness_hook import AddressedRandomnessHook
from .checkpoint_hook import ContrastCheckpointHook
from .knn_hook import KNNHook
from .monitor_hook import MonitorHook
from .update_hooks import DictionaryUpdateHook, KeyEncoderUpdateHook

__all__ = [
    'AddressedRandomnessHook',
    'ContrastCheckpointHook',
    'DictionaryUpdateHook',
    'KNNHook',
    'KeyEncoderUpdateHook',
    'MonitorHook',
]
