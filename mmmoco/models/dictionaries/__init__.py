from mmmoco.two_phase import Dictionary

from .in_batch import InBatch
from .memory_bank import MemoryBank
from .queue import Queue
