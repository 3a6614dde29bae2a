"""What there is to train on: device, memory, cores, units for bfloat16."""

from dataclasses import dataclass
from pathlib import Path

import torch

from mmmoco.apis.config.adapt import has_bfloat16_units
from mmmoco.system import cores, memory

#: Bytes that are planned with where nothing tells how many there are.
UNKNOWN = 8 << 30


@dataclass(frozen=True)
class Machine:
    """What a process has.

    Attributes:
        name: Of the GPU, if there is one.
        gpus: Number of GPUs.
        memory: Bytes of the device, those in use on a CPU not counted.
        cores: Of the process.
        bfloat16: Whether the device computes in it, and does not emulate it.
    """

    name: str
    gpus: int
    memory: int
    cores: int
    bfloat16: bool

    @property
    def on_cpu(self) -> bool:
        """Whether there is no GPU."""
        return not self.gpus

    def __str__(self) -> str:
        place = f'{self.cores} CPU cores, no GPU'
        if not self.on_cpu:
            count = f'{self.gpus} × ' if self.gpus > 1 else ''
            place = f'{count}{self.name}, {self.cores} CPU cores'
        units = 'with' if self.bfloat16 else 'without'
        size = f'{self.memory / 2**30:.0f} GiB'
        return f'{place}, {size}, {units} bfloat16 units'


def this_machine() -> Machine:
    """Return what this process has."""
    name, gpus, room = '', 0, 0
    if torch.cuda.is_available():
        facts = torch.cuda.get_device_properties(0)
        name, gpus = facts.name, torch.cuda.device_count()
        room = facts.total_memory
    return Machine(
        name,
        gpus,
        room or _free_memory(),
        cores(),
        has_bfloat16_units(),
    )


def _free_memory() -> int:
    """Return the bytes that programs can still have; files kept count."""
    try:
        lines = Path('/proc/meminfo').read_text().splitlines()
        facts = dict(line.split(':', 1) for line in lines)
        return int(facts['MemAvailable'].split()[0]) << 10
    except (OSError, KeyError, ValueError):
        return memory() or UNKNOWN
