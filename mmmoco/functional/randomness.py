"""Random numbers with an address.

A draw depends on where it happens (seed, step, rank, sample, purpose), never
on what was drawn before. A run that resumes therefore continues with the
numbers that it would have used, whatever the number of workers.
"""

import hashlib
import random

import numpy as np
import torch
from torch.utils.data import get_worker_info

Address = int | str


def derive_seed(seed: int, *address: Address) -> int:
    """Return the 63-bit seed that belongs to an address.

    Args:
        seed: Seed of the whole run.
        *address: Integers and names, for example ``(step, rank, 'view_q')``.

    Returns:
        A number in [0, 2**63): equal addresses give equal numbers, different
        ones independent numbers (a BLAKE2 hash, not arithmetic, so that
        neighbouring steps share nothing).
    """
    text = repr((int(seed), *address)).encode()
    digest = hashlib.blake2b(text, digest_size=8).digest()
    return int.from_bytes(digest, 'little') >> 1


def generator(
    seed: int, *address: Address, device: torch.device | str = 'cpu'
) -> torch.Generator:
    """Return a torch generator for one address, on ``device``."""
    result = torch.Generator(device=device)
    result.manual_seed(derive_seed(seed, *address))
    return result


def generator_on(
    device: torch.device, source: torch.Generator
) -> torch.Generator:
    """Return ``source`` if it draws on ``device``, else one that does.

    The latter has the seed of ``source``: its numbers are reproduced, but on
    devices of the same kind only.
    """
    if source.device == device:
        return source
    result = torch.Generator(device=device)
    result.manual_seed(source.initial_seed())
    return result


def seed_global_generators(seed: int, *address: Address) -> None:
    """Seed the global generators of python, numpy and torch, on all devices.

    Foreign transforms and layers (torchvision, dropout) draw from these.
    """
    value = derive_seed(seed, *address)
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.default_generator.manual_seed(value)
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(value)
    if torch.backends.mps.is_available() and get_worker_info() is None:
        torch.mps.manual_seed(value)
