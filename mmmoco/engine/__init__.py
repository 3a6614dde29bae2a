from . import checkpoint_io, hooks, optim
from .loops import ContrastEpochLoop
from .runner import ContrastRunner
