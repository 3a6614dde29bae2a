"""Before GPU-days go into a config: the jobs behind three tools."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from mmmoco.apis.cli import Settings, UsageError
from mmmoco.apis.process import tidy

if TYPE_CHECKING:
    from mmengine.config import Config

    from .memory import Memory
    from .verify import Check


@dataclass(frozen=True)
class Verification:
    """What the pre-flight check saw.

    Attributes:
        config: What was checked.
        checks: In their order; later ones are left out after one that they
            need has failed.
    """

    config: str
    checks: list[Check]

    @property
    def problem(self) -> str | None:
        """Which checks failed; None if none did."""
        failed = [c.name for c in self.checks if c.verdict == 'ERROR']
        if not failed:
            return None
        return (
            f'{len(failed)} of {len(self.checks)} checks failed: '
            f'{", ".join(failed)}.'
        )

    def __str__(self) -> str:
        column = max(len(check.name) for check in self.checks)
        lines = [self.config, '']
        for check in self.checks:
            head = f'{check.verdict:7}  {check.name:{column}}  '
            lines += textwrap.wrap(
                ' '.join(check.value.split()),
                width=99,
                initial_indent=head,
                subsequent_indent=' ' * len(head),
                break_long_words=False,
                break_on_hyphens=False,
            )
        return '\n'.join(lines)


@tidy
def verify_config(
    config: str | Config,
    *,
    gpus: int = 1,
    cfg_options: Settings | None = None,
    debug: bool = False,
) -> Verification:
    """Check a pre-training config before GPU-days go into it.

    Builds everything, runs one tiny step, and tells what it saw. Exit code 2
    if something is wrong.

    Args:
        config: Path, name, or package::path.
        gpus: Processes that the run is meant for.
        cfg_options: Override settings of the config.
        debug: Let an exception of the run through.

    Raises:
        ValueError: If it is no config of pre-training.

    Example:
        mmmoco verify mocov2_r50_8xb32 --gpus 8
        --cfg-options train_dataloader.dataset.data_root=/data/imagenet
    """
    _at_least_one(gpus=gpus)
    from mmmoco.apis.config.files import load_config, name_of

    from .verify import verify

    cfg = load_config(config, cfg_options)
    return Verification(name_of(config), verify(cfg, gpus, debug))


@tidy
def estimate_memory(
    config: str | Config,
    *,
    batch_size: int | None = None,
    gpus: int = 1,
    json: Annotated[str | None, {'metavar': 'FILE'}] = None,
    cfg_options: Settings | None = None,
) -> Memory:
    """Memory of one process of a pre-training run.

    Neither a GPU nor the data nor memory for the model is needed. Not in the
    sum: what the driver takes, and workspaces inside the kernels.

    Args:
        config: Path, name, or package::path.
        batch_size: Images per GPU in one forward (the config's).
        gpus: Processes of the run; several need a second copy of the
            gradients.
        json: Write the figures.
        cfg_options: Override settings of the config.

    Raises:
        ValueError: If it is no config of pre-training.

    Example:
        mmmoco memory mocov2_r50_8xb32 --batch-size 64
        --gpus 8
    """
    _at_least_one(batch_size=batch_size, gpus=gpus)
    from pathlib import Path

    from mmmoco.apis.config.files import load_config, name_of

    from .memory import estimate

    cfg = load_config(config, cfg_options)
    memory = estimate(name_of(config), cfg, batch_size, gpus)
    if json:
        Path(json).write_text(memory.as_json())
    return memory


@tidy
def browse_views(
    config: str | Config,
    *,
    out: Annotated[str, {'metavar': 'PNG'}] = 'views.png',
    num: int = 4,
    seed: int = 0,
    epoch: int = 0,
    bands: Annotated[tuple[int, int, int], {'metavar': ('R', 'G', 'B')}] = (
        0,
        1,
        2,
    ),
    cfg_options: Settings | None = None,
) -> str:
    """Draw the originals and all views of some samples.

    With the parameters that were drawn, exactly as training gets them.

    Args:
        config: Path, name, or package::path.
        out: Picture to write.
        num: Samples.
        seed: Of the draws.
        epoch: Of the draws.
        bands: Bands to show as red, green, blue where there are more.
        cfg_options: Override settings of the config.

    Returns:
        What was drawn, and where it is.

    Raises:
        ValueError: If the config has no pre-training data, or ``num`` is
            below 1.

    Example:
        mmmoco views mocov3_vit-s_8xb128_300e --out views.png
        --cfg-options train_dataloader.dataset.data_root=/my/images
    """
    _at_least_one(num=num)
    from mmmoco.apis.config.files import load_config

    from .browse_views import draw

    return draw(load_config(config, cfg_options), out, num, seed, epoch, bands)


def _at_least_one(**numbers: int | None) -> None:
    for name, value in numbers.items():
        if value is not None and value < 1:
            flag = name.replace('_', '-')
            raise UsageError(f'--{flag} {value}: must be at least 1.')
