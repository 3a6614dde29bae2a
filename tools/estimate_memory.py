"""Memory of a run: ``python tools/estimate_memory.py --help``."""

from mmmoco.apis.preflight.memory import main

if __name__ == '__main__':
    main()
