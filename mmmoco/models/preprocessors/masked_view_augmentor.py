from collections.abc import Mapping, Sequence
from typing import Any

from mmmoco.functional import generator
from mmmoco.registry import BATCH_AUGMENTS, MODELS

from .view_augmentor import ViewAugmentor


@MODELS.register_module()
class MaskedViewAugmentor(ViewAugmentor):
    """Add corrupted copies of some views and their masks, for training.

    After the views are made and normalised, ``view_1`` gets the companions
    ``view_1_corrupted`` and ``view_1_mask`` (N×1×H×W, True where a pixel was
    replaced) beside it in ``inputs``.

    Args:
        corruption: Config of the batch operation that corrupts.
        corrupted_views: Views that are corrupted.
        **kwargs: As for :class:`ViewAugmentor`.
    """

    def __init__(
        self,
        corruption: dict[str, Any],
        corrupted_views: Sequence[str] = ('view_1', 'view_2'),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.corruption = BATCH_AUGMENTS.build(corruption)
        self.corrupted_views = tuple(corrupted_views)

    def make(self, data: Mapping[str, Any], training: bool) -> dict[str, Any]:
        """Make the views; in training also their corrupted copies.

        Raises:
            KeyError: If a view to be corrupted is not there.
        """
        batch = super().make(data, training)
        if not training:
            return batch
        views = batch['inputs']
        for name in self.corrupted_views:
            if name not in views:
                raise KeyError(
                    f'data_preprocessor.corrupted_views names {name!r}, but '
                    f'the batch holds {sorted(views)}.'
                )
            x = views[name]
            draws = generator(*self._address, name, 'corruption')
            corrupted = self.corruption(x, draws)
            views[f'{name}_corrupted'] = corrupted.images
            views[f'{name}_mask'] = corrupted.mask
        return batch
