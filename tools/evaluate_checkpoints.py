"""Evaluate many checkpoints: see ``--help``."""

from mmmoco.apis.probing.evaluate_checkpoints import main

if __name__ == '__main__':
    main()
