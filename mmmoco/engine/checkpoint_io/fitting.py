"""Whether weights fit a module. Everything that loads asks here."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, cast

from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import Tensor, nn

from mmmoco.convert.anatomy import called
from mmmoco.convert.importing import recognise
from mmmoco.messages import few
from mmmoco.older_versions import before_loading

from .reading import CheckpointError

#: Old files lack the batches that BatchNorm counted; they start at 0, and
#: are not counted here.
COUNTERS = ('*num_batches_tracked',)
#: Names of a whole module.
WHOLE = ('',)
#: What turns other layouts into ours.
IMPORT = 'mmmoco import'
#: For what starts from weights.
MEND = 'With --allow-partial the run begins anyway, and names what is random.'

_SIZES = re.compile(
    r'size mismatch for (\S+): .*?Size\(\[(.*?)\]\).*?Size\(\[(.*?)\]\)'
)


@dataclass
class Fit:
    """How the weights of a file fit a module, by the names of its tensors.

    Attributes:
        own: All tensors of the module but counters of BatchNorm.
        theirs: All of the file.
        missing: Those that the file lacks.
        reshaped: Those of another shape in the file, and both shapes.
        extra: Tensors of the file that the module lacks.
        faults: What the module itself says against the file.
    """

    own: list[str]
    theirs: list[str]
    missing: list[str]
    reshaped: dict[str, str]
    extra: list[str]
    faults: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, own: Mapping[str, Any], theirs: Mapping[str, Tensor]) -> 'Fit':
        """Compare names and shapes alone."""
        own = {name: own[name] for name in outside(own, COUNTERS)}
        shapes = {
            name: f'{tuple(theirs[name].shape)} for {tuple(value.shape)}'
            for name, value in own.items()
            if name in theirs and value.shape != theirs[name].shape
        }
        return cls(
            own=list(own),
            theirs=list(theirs),
            missing=[name for name in own if name not in theirs],
            reshaped=shapes,
            extra=outside(
                [name for name in theirs if name not in own], COUNTERS
            ),
        )

    def stays(self, needed: tuple[str, ...] = WHOLE) -> list[str]:
        """What keeps its initial values, below the given prefixes."""
        return [
            name
            for name in [*self.missing, *self.reshaped]
            if name.startswith(needed)
        ]

    def problems(
        self,
        needed: tuple[str, ...] = WHOLE,
        allow_missing: Iterable[str] = (),
        allow_extra: Iterable[str] = (),
        allow_reshaped: Iterable[str] = (),
    ) -> list[str]:
        """Say what does not fit, each with its number and first names.

        Args:
            needed: Prefixes of the tensors that are asked for.
            allow_missing: Shell patterns of keys that the file may lack.
            allow_extra: Patterns of keys that the module may lack.
            allow_reshaped: Patterns of keys that the module resizes.
        """
        missing, reshaped = (
            [name for name in names if name.startswith(needed)]
            for names in (self.missing, self.reshaped)
        )
        groups = {
            'missing in the file': outside(missing, allow_missing),
            'of another shape': [
                f'{name} {self.reshaped[name]}'
                for name in outside(reshaped, allow_reshaped)
            ],
            'unknown to the model': outside(self.extra, allow_extra),
        }
        return [*named(groups), *self.faults]

    def other_network(self) -> list[str]:
        """Say which the two are, if each is known: ``'a ResNet-50 file'``."""
        theirs, own = called(self.theirs), called(self.own)
        if theirs is None or own is None or theirs == own:
            return []
        return [f'a {theirs} file, a {own} model']

    def counts(self, needed: tuple[str, ...] = WHOLE) -> str:
        """Say how many fit: ``'0 of 318 backbone tensors fit'``."""
        asked = [name for name in self.own if name.startswith(needed)]
        failed = len({*self.missing, *self.reshaped} & {*asked})
        part = ', '.join(prefix.rstrip('.') for prefix in needed)
        part = f'{part} tensors' if part else 'tensors'
        return f'{len(asked) - failed} of {len(asked)} {part} fit'

    def report(self) -> str:
        """Say in one line what was loaded, what not, and what is left."""
        text = self.counts()
        if self.stays():
            text += f'; as initialised stay {_by_part(self.stays())}'
            text += f' ({few(self.stays())})'
        if self.extra:
            text += f'; not used are {_by_part(self.extra)}'
        return text


def require(
    fit: Fit,
    what: str,
    source: str,
    *,
    needed: tuple[str, ...] = WHOLE,
    partial: bool = False,
    mend: str = '',
    **allow: Iterable[str],
) -> None:
    """Refuse weights that do not fit.

    Args:
        fit: What was found.
        what: That was to be filled.
        source: Where the weights are from.
        needed: Prefixes of the tensors that are asked for; of anything else
            it is enough that one tensor of the file fits.
        partial: Allow that some do not fit.
        mend: What to do, if some fit.
        **allow: Patterns, see :meth:`Fit.problems`.

    Raises:
        CheckpointError: In one line, with the numbers.
    """
    problems = fit.problems(needed, **allow) if needed else [*fit.faults]
    problems[:0] = fit.other_network()
    nothing = bool(fit.own) and {*fit.own} <= {*fit.missing, *fit.reshaped}
    if nothing or fit.faults or (problems and not partial):
        text = f'{source} does not fit {what}: {fit.counts(needed or WHOLE)}'
        lines = '; '.join([text, *(_reason(fit, needed) or problems)])
        raise CheckpointError(f'{lines}. {"" if nothing else mend}'.rstrip())


def load_into(
    module: nn.Module,
    state_dict: Mapping[str, Tensor],
    source: str = 'The checkpoint',
    *,
    needed: tuple[str, ...] = WHOLE,
    partial: bool = False,
    mend: str = '',
    **allow: Iterable[str],
) -> Fit:
    """Load weights; what is asked for must be there, in its shape.

    Args:
        module: What is filled; half filled when the load fails.
        state_dict: Its weights, from :func:`state_dict_of`.
        source: Where they are from, for the message.
        needed: Prefixes of the tensors that are asked for.
        partial: Allow that some tensors do not fit.
        mend: What to do, if some fit.
        **allow: ``allow_missing``, shell patterns (``head.*``) of keys that
            the weights may lack; ``allow_extra``, of those that the module
            may lack.

    Returns:
        What fits and what does not.

    Raises:
        CheckpointError: Anything else differs; one line with the numbers.
    """
    while is_model_wrapper(module) or isinstance(module, BaseTTAModel):
        module = cast(nn.Module, module.module)
    with watch(module) as found:
        try:
            module.load_state_dict(state_dict, strict=False)
        except RuntimeError as error:
            # Of shapes, which are among what was found, or of anything else.
            if not found:
                raise CheckpointError(
                    f'{source} does not fit {type(module).__name__}: {error}'
                ) from error
    require(
        found[-1],
        type(module).__name__,
        source,
        needed=needed,
        partial=partial,
        mend=mend,
        **allow,
    )
    return found[-1]


@contextmanager
def watch(module: nn.Module) -> Iterator[list[Fit]]:
    """Collect what every load of a module finds, whoever loads.

    The module itself tells: it may rename or resize while it loads.
    """
    found: list[Fit] = []
    given: list[tuple[list[str], list[str]]] = []

    def before(*arguments: Any) -> None:
        _, state_dict, prefix, *_, messages = arguments
        if not prefix:  # Else it is a part of what is loaded.
            given[:] = [(list(state_dict), messages)]

    def after(module: nn.Module, keys: Any) -> None:
        if given:
            found.append(_seen(module, keys, *given.pop()))

    handles = [
        before_loading(module, before),
        module.register_load_state_dict_post_hook(after),
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _seen(
    module: nn.Module, keys: Any, theirs: list[str], messages: list[str]
) -> Fit:
    own = outside(
        (n for n, v in module.state_dict().items() if isinstance(v, Tensor)),
        COUNTERS,
    )
    reshaped: dict[str, str] = {}
    faults: list[str] = []
    for message in messages:
        match = _SIZES.match(message)
        if match:
            name, *sizes = match.groups()
            there, here = (
                tuple(map(int, re.findall(r'\d+', size))) for size in sizes
            )
            reshaped[name] = f'{there} for {here}'
        else:
            faults.append(' '.join(message.split()))
    lacking = [name for name in keys.missing_keys if name not in reshaped]
    missing = outside(lacking, COUNTERS)
    extra = outside(keys.unexpected_keys, COUNTERS)
    return Fit(own, [*theirs], missing, reshaped, extra, faults)


def _reason(fit: Fit, needed: tuple[str, ...]) -> list[str]:
    """Tell why not one name is in the file, if that can be seen."""
    asked = [name for name in fit.own if name.startswith(needed or WHOLE)]
    if not asked or not fit.theirs or {*asked} - {*fit.missing}:
        return []
    layout = layout_of(fit.theirs)
    for name in fit.theirs:
        if name.endswith(f'.{asked[0]}') and IMPORT not in layout:
            prefix = name.removesuffix(asked[0])
            return [f'the file has such names below prefix={prefix!r}']
    return [layout]


def layout_of(names: list[str]) -> str:
    """Say whose layout the names of a file are, or how they begin."""
    try:
        form = recognise(names)
    except ValueError:
        form = None
    if form is not None and form.name not in ('mmmoco', 'openmmlab'):
        return f'this is the layout of {form.title}: run {IMPORT} first'
    tops = list(dict.fromkeys(name.split('.')[0] for name in names))
    return f'the names of the file begin with {few(tops, 8)}'


def named(groups: Mapping[str, list[str]]) -> list[str]:
    """Say for each group that is not empty its number and first names."""
    return [
        f'{len(names)} {title}: {few(names)}'
        for title, names in groups.items()
        if names
    ]


def outside(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """Return the names that fit none of the patterns."""
    allowed = tuple(patterns)
    return [n for n in names if not any(fnmatchcase(n, p) for p in allowed)]


def _by_part(names: list[str]) -> str:
    counts = Counter(name.split('.')[0] for name in names)
    return few([f'{top} ({count})' for top, count in counts.items()], 12)
