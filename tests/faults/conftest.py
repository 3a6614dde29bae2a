"""The machinery of this folder, which benchmarks/soak.py uses as well."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope='session')
def uninterrupted(tmp_path_factory):
    """Return a function that gives a finished run, each kind once."""
    from runs import Run

    known = {}

    def make(processes=1, knn=False, images=None, iterations=False, **options):
        key = repr(
            (processes, knn, images, iterations, sorted(options.items()))
        )
        if key not in known:
            folder = tmp_path_factory.mktemp('uninterrupted')
            known[key] = Run(
                folder,
                {k.replace('__', '.'): v for k, v in options.items()},
                processes,
                knn=knn,
                images=images,
                iterations=iterations,
            ).finish()
        return known[key]

    return make
