"""Memory of a run: ``python tools/estimate_memory.py --help``."""

from mmmoco.apis import cli
from mmmoco.apis.preflight.jobs import estimate_memory

if __name__ == '__main__':
    cli.main(estimate_memory)
