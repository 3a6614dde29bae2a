"""Checkpoints: read without running code, written whole or not at all.

mmengine reads with ``torch.load`` and, refused by its restricted mode, tries
again with everything allowed; on resume it executes the config text of the
file; it saves over the old file. While :data:`guarded` is entered, these are
replaced by the functions of this package, for every caller in mmengine,
mmpretrain, mmdet and mmseg; afterwards they are as they were:

- ``torch.load`` as ``mmengine.runner.checkpoint`` sees it, by which all the
  loaders of ``CheckpointLoader`` (local, http, s3, …) unpickle. Behind it lie
  resume, ``load_from``, ``init_cfg=dict(type='Pretrained')``, the publishing
  of checkpoints and the Python APIs of the other libraries.
- ``mmengine.runner.checkpoint.load_url``, which downloads and unpickles.
- ``_load_checkpoint_with_prefix`` there, which asserts that the prefix exists.
- the local loader of ``CheckpointLoader``, for messages that name the mend.
- ``save_checkpoint`` in ``mmengine.runner`` (``Runner``, ``CheckpointHook``),
  for local paths; other storage goes on to mmengine's.
- ``find_latest_checkpoint`` there, so that resuming skips damaged files.
- ``open`` in ``mmengine.hooks.checkpoint_hook``, which has one use: writing
  the ``last_checkpoint`` pointer.
- ``BaseInferencer._init_model``, which executes the config text of a
  checkpoint if it is given no config.

``meta['config']``, which ``Runner.resume`` would execute, is renamed to
``config_text`` while reading. ``torch.load`` itself stays as it is for all
others, and so do ``FlexibleRunner``'s ways of saving. mmengine's
``CheckpointHook`` still deletes old checkpoints before it saves the new one;
ours does not.
"""

from .contents import config_in, read_meta, state_dict_of
from .fitting import Fit, load_into
from .guard import find_latest_for_all, guarded, load, read_weights
from .latest import (
    any_numbered,
    find_latest,
    folders_of,
    numbered,
    require_resumable,
)
from .reading import CheckpointError, UnsafeCheckpointError, read
from .writing import (
    append_text,
    remove_leftovers,
    replace,
    replaced_folder,
    write,
    write_bytes,
    write_text,
)
