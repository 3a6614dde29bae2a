from .addressed_randomness_hook import AddressedRandomnessHook
from .bad_files_hook import BadFilesHook
from .batch_check_hook import GuardHook
from .checkpoint_hook import ContrastCheckpointHook
from .drop_guard_hook import DropGuardHook
from .evaluation_hook import EvaluationHook, KNNHook
from .fill_queue_hook import FillQueueHook
from .head_warmup_hook import HeadWarmupHook
from .kernel_settings_hook import KernelSettingsHook
from .monitor_hook import MonitorHook
from .non_finite_hook import NonFiniteHook
from .preemption_hook import PreemptionHook
from .scalars_hook import ScalarsHook
from .update_hooks import DictionaryUpdateHook, KeyEncoderUpdateHook
from .verify_pretrained_hook import VerifyPretrainedHook
