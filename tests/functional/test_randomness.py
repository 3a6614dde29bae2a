import random

import numpy as np
import torch

from mmmoco.functional import (
    derive_seed,
    generator,
    seed_global_generators,
)


def test_an_address_gives_one_number_whatever_was_drawn_before():
    first = torch.rand(3, generator=generator(7, 3, 0, 'view_q'))
    torch.rand(100)
    again = torch.rand(3, generator=generator(7, 3, 0, 'view_q'))
    assert torch.equal(first, again)


def test_neighbouring_addresses_share_nothing():
    seeds = {
        derive_seed(seed, step, rank, name)
        for seed in range(3)
        for step in range(20)
        for rank in range(4)
        for name in ('view_q', 'view_k')
    }
    assert len(seeds) == 3 * 20 * 4 * 2
    # Not a concatenation: (1, 23) and (12, 3) differ.
    assert derive_seed(0, 1, 23) != derive_seed(0, 12, 3)
    assert derive_seed(0, '1') != derive_seed(0, 1)


def test_numbers_are_uniform_over_steps():
    draws = torch.stack(
        [torch.rand(1, generator=generator(0, i)) for i in range(2000)]
    )
    assert abs(draws.mean() - 0.5) < 0.02
    assert abs(draws.var() - 1 / 12) < 0.006


def test_global_generators_follow_the_address():
    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()

    seed_global_generators(1, 2, 'view')
    first = draw()
    draw()
    seed_global_generators(1, 2, 'view')
    assert draw() == first
    seed_global_generators(1, 3, 'view')
    assert all(a != b for a, b in zip(draw(), first, strict=True))
