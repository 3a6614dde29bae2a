from .hard_negatives import HardNegatives
from .info_nce import InfoNCE
