"""Linear probe of a checkpoint: ``python tools/linear_probe.py --help``."""

from mmmoco.apis.probing.linear_probe import main

if __name__ == '__main__':
    main()
