"""mmmoco: momentum-contrast pre-training for OpenMMLab.

Every tool is a function here: paths and numbers in, a small result out. They
can be called one after the other in one process, such as a notebook.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .apis.data.jobs import (
    dataset_stats,
    label_subset,
    make_digit_scenes,
    make_shards,
)
from .apis.dense.jobs import (
    davis,
    similarity,
    visualize_similarity,
    zero_shot_segmentation,
)
from .apis.exchange.jobs import (
    convert_config,
    export_backbone,
    import_checkpoint,
)
from .apis.own_data.jobs import transfer_config
from .apis.planning.jobs import plan, pretrain
from .apis.preflight.jobs import browse_views, estimate_memory, verify_config
from .apis.probing.jobs import (
    evaluate_checkpoints,
    evaluate_knn,
    evaluate_svm,
    extract_features,
    linear_probe,
    near_duplicates,
    test,
)
from .apis.process import require_openmmlab
from .apis.report.jobs import report
from .apis.training.jobs import train, transfer
from .openmmlab import require_one_line
from .version import __version__

if TYPE_CHECKING:
    from .apis import get_model, list_configs, load_config
    from .engine.train_step import TrainStep

require_one_line()

__all__ = [
    'TrainStep',
    '__version__',
    'browse_views',
    'convert_config',
    'dataset_stats',
    'davis',
    'estimate_memory',
    'evaluate_checkpoints',
    'evaluate_knn',
    'evaluate_svm',
    'export_backbone',
    'extract_features',
    'get_model',
    'import_checkpoint',
    'label_subset',
    'linear_probe',
    'list_configs',
    'load_config',
    'make_digit_scenes',
    'make_shards',
    'near_duplicates',
    'plan',
    'pretrain',
    'report',
    'similarity',
    'test',
    'train',
    'transfer',
    'transfer_config',
    'verify_config',
    'visualize_similarity',
    'zero_shot_segmentation',
]


#: Packages that are imported when they are first named.
_PACKAGES = (
    'apis',
    'convert',
    'datasets',
    'engine',
    'evaluation',
    'functional',
    'models',
    'registry',
    'visualization',
)


def __getattr__(name: str) -> Any:
    # What takes seconds to import: mmengine, mmpretrain and torch.
    if name not in __all__ and name not in _PACKAGES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from . import apis

    if name in apis.__all__:
        return getattr(apis, name)
    require_openmmlab()
    if name == 'TrainStep':
        from .engine.train_step import TrainStep

        return TrainStep
    return import_module(f'{__name__}.{name}')


def __dir__() -> list[str]:
    own = [name for name in globals() if name.startswith('__')]
    return sorted({*own, *__all__, *_PACKAGES})
