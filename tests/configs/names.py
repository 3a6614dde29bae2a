"""Which configs there are."""

from mmengine.config import Config

import mmmoco
from mmmoco.apis.lookup import config_root

NAMES = mmmoco.list_configs()
#: Those of pre-training.
OWN = [n for n in NAMES if not n.startswith('benchmarks/')]
#: Those that need neither mmdet nor mmseg; tests/downstream has the others.
CORE = [n for n in NAMES if not n.startswith('benchmarks/mm')]
RUNTIME = Config.fromfile(config_root() / '_base_' / 'default_runtime.py')
#: A config that lists its own hooks must not lose one of these.
RUNTIME_HOOKS = {hook.type for hook in RUNTIME.custom_hooks}
