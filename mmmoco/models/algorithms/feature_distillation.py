from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmmoco.functional import (
    check_distance,
    check_weights,
    feature_distance,
    feature_similarity,
)
from mmmoco.models.encoders import image_channels, shapes_of, size_of
from mmmoco.registry import MODELS
from mmmoco.two_phase import TwoPhaseModel

from .teacher import Teacher
from .tokens import Stage, build_for_tokens, stages_of


@MODELS.register_module()
class FeatureDistillation(TwoPhaseModel):
    """A student of any kind learns the features of frozen teachers.

    Transformers and convolutional networks, of mmpretrain, timm or here, may
    be either. The student's class token, or the mean over its map, learns
    the teacher's; its patch tokens, or its map, learn the teacher's patches
    at the same place, on the teacher's grid. Registers are left out. Linear
    adapters stand between, one for each of the two at every stage, but for
    networks of one kind and width. Of several views, stages and teachers the
    mean counts.

    Networks with several ``out_indices`` are compared stage by stage, in
    their order.

    Args:
        backbone: Config of the student.
        teacher: Config of a :class:`Teacher`, or a list of them.
        cls_weight: Weight of the loss of class token or mean.
        patch_weight: Weight of the loss of patch tokens or maps.
        cls_distance: ``'cosine'`` or ``'smooth_l1'``.
        patch_distance: ``'cosine'`` or ``'smooth_l1'``.
        **kwargs: As for :class:`TwoPhaseModel`; ``data_preprocessor`` tells
            the student's mean and std.
    """

    def __init__(
        self,
        backbone: dict[str, Any],
        teacher: dict[str, Any] | Sequence[dict[str, Any]],
        cls_weight: float = 1.0,
        patch_weight: float = 1.0,
        cls_distance: str = 'cosine',
        patch_distance: str = 'cosine',
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_weights(cls_weight, patch_weight)
        check_distance(cls_distance)
        check_distance(patch_distance)
        terms = {
            'cls': (cls_weight, cls_distance),
            'patches': (patch_weight, patch_distance),
        }
        self.terms = {name: term for name, term in terms.items() if term[0]}
        if not hasattr(self.data_preprocessor, 'mean'):
            raise ValueError(
                'FeatureDistillation needs a data_preprocessor with mean and '
                'std, as ViewAugmentor: the teacher normalises otherwise.'
            )
        self.backbone = build_for_tokens(backbone)
        several = not isinstance(teacher, Mapping)
        configs = [teacher] if isinstance(teacher, Mapping) else [*teacher]
        teachers: list[Teacher] = [MODELS.build(each) for each in configs]
        self._check_teachers(teachers)
        self.teacher = nn.ModuleList(teachers) if several else teachers[0]
        own = self._shapes(self.backbone, size_of(backbone), 'backbone')
        self.adapter: Any = nn.ModuleList()
        for i, (each, config) in enumerate(
            zip(teachers, configs, strict=True)
        ):
            place = f'teacher.{i}' if several else 'teacher'
            size = each.size or size_of(config['backbone'])
            goals = self._shapes(each.backbone, size, place)
            if len(goals) != len(own):
                raise ValueError(
                    f'model.backbone gives {len(own)} stage(s) and model.'
                    f'{place} {len(goals)}: give both as many out_indices.'
                )
            pairs = zip(own, goals, strict=True)
            self.adapter.append(self._adapters(pairs, several))
        if self.channels_last:
            self.to(memory_format=torch.channels_last)

    def _check_teachers(self, teachers: Sequence[Any]) -> None:
        """See that each is one, and knows the units of the pixels.

        Raises:
            ValueError: If there is none, or one is or does otherwise.
        """
        if not teachers:
            raise ValueError('model.teacher is empty: give one or more.')
        for each in teachers:
            if not isinstance(each, Teacher):
                raise ValueError(
                    f'model.teacher is a {type(each).__name__}: give dict('
                    "type='Teacher', backbone=…) with that as its backbone."
                )
            own = cast(Any, self.data_preprocessor).std
            if each.std.is_meta:
                continue  # Built for its shapes alone.
            if float(each.std.max()) < 1 <= float(own.min()):
                raise ValueError(
                    f'model.teacher.std={each.std.flatten().tolist()} is for '
                    f'pixels of 0 … 1, model.data_preprocessor.std='
                    f'{own.flatten().tolist()} is not: give mean and std of '
                    'the teacher in grey levels, times 255.'
                )

    def _shapes(
        self, network: nn.Module, size: Sequence[int], place: str
    ) -> list[tuple[int, ...]]:
        """Return the shapes of what a network gives.

        Raises:
            ValueError: If it does not tell, takes images of other channels,
                or gives no map to compare.
        """
        given = cast(Any, self.data_preprocessor).mean.numel()
        taken = image_channels(network) or given
        name = f'model.{place} ({type(network).__name__})'
        if taken != given:
            raise ValueError(
                f'{name} takes images of {taken} channel(s), but model.'
                f'data_preprocessor has {given} value(s) of mean and std: '
                'student and teacher see the same images.'
            )
        shapes = shapes_of(network, given, size)
        if not shapes:
            raise ValueError(
                f'{name} takes no images of {size[0]}×{size[1]}: set its '
                'img_size (for timm also dynamic_img_size=True).'
            )
        if 'patches' in self.terms and min(map(len, shapes)) < 3:
            raise ValueError(
                f'{name} gives vectors and no map: set patch_weight=0 (a '
                'ConvNeXt of mmpretrain gives maps with '
                'gap_before_final_norm=False).'
            )
        return shapes

    def _adapters(
        self,
        pairs: Iterable[tuple[tuple[int, ...], tuple[int, ...]]],
        several: bool,
    ) -> nn.ModuleList:
        """Return what stands between the stages of student and teacher."""
        stages = nn.ModuleList()
        for own, goal in pairs:
            width, target = (x[2 if len(x) == 3 else 1] for x in (own, goal))
            alike = len(own) == len(goal) and width == target
            between: dict[str, nn.Module] = {}
            for name in self.terms:
                between[name] = nn.Linear(width, target)
                if alike and not several:
                    between[name] = nn.Identity()
            stages.append(nn.ModuleDict(between))
        return stages

    # ------------------------------------------------- teacher and student

    @property
    def teachers(self) -> list[Any]:
        """All of them, in the order of the config."""
        several = isinstance(self.teacher, nn.ModuleList)
        return [*self.teacher] if several else [self.teacher]

    def goals(self, teacher: Teacher, x: Tensor) -> list[Stage]:
        """Return a teacher's features of images as the student sees them."""
        own = cast(Any, self.data_preprocessor)
        result: list[Stage] = teacher(x, own.mean, own.std)
        return result

    def encoders(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """The student's class token or mean, as it is and adapted.

        That of the (first) teacher is there to compare with.
        """

        def own(x: Tensor) -> Tensor:
            return stages_of(self.backbone, x, 'backbone')[-1].cls

        def adapted(x: Tensor) -> Tensor:
            return F.normalize(self._adapted(own(x)).float(), dim=1)

        return {
            'backbone': own,
            'neck': adapted,
            'teacher': lambda x: self.goals(self.teachers[0], x)[-1].cls,
        }

    def _adapted(self, cls: Tensor) -> Tensor:
        """Return class tokens in the width of the first teacher."""
        adapter = next(iter(self.adapter[0][-1].values()))
        adapted: Tensor = adapter(cls)
        return adapted

    # -------------------------------------------------------------- loss

    def loss(
        self, inputs: Mapping[str, Tensor], ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the losses of class tokens and patches.

        Args:
            inputs: Normalised views by name, each N×C×H×W.
            ids: N sample ids, not used.
        """
        log: dict[str, Any] = {}
        for x in inputs.values():
            own = stages_of(self.backbone, x, 'backbone')
            with torch.no_grad():
                self.queries = self._adapted(own[-1].cls)
            share = 1 / (len(inputs) * len(self.teachers) * len(own))
            for teacher, adapters in zip(
                self.teachers, self.adapter, strict=True
            ):
                goals = self.goals(teacher, x)
                for stages in zip(own, goals, adapters, strict=True):
                    for name, value in self._compare(*stages).items():
                        log[name] = log.get(name, 0.0) + share * value
        return log

    def _compare(
        self, own: Stage, goal: Stage, adapters: nn.ModuleDict
    ) -> dict[str, Tensor]:
        result: dict[str, Tensor] = {}
        for name, (weight, kind) in self.terms.items():
            if name == 'cls':
                token, target = adapters[name](own.cls), goal.cls
            else:
                assert own.patches is not None and goal.patches is not None
                target = goal.patches.flatten(2).mT
                grid = goal.patches.shape[-2:]
                token = on_grid(adapters[name], own.patches, grid)
            distance = feature_distance(token, target, kind)
            result[f'loss_{name}'] = weight * distance
            result[f'sim_{name}'] = feature_similarity(token, target)
        return result


def on_grid(adapter: nn.Module, patches: Tensor, grid: torch.Size) -> Tensor:
    """Return adapted patches N×(h·w)×C, resampled to another grid.

    Args:
        adapter: From the student's width to the teacher's.
        patches: N×C×h'×w'.
        grid: h and w.
    """
    tokens: Tensor = adapter(patches.flatten(2).mT)
    if patches.shape[-2:] == grid:
        return tokens
    maps = tokens.float().mT.unflatten(2, patches.shape[-2:])
    maps = F.interpolate(maps, grid, mode='bilinear', antialias=True)
    return maps.flatten(2).mT
