"""Test a checkpoint: ``python tools/test.py --help``."""

from mmmoco.apis.probing.test import main

if __name__ == '__main__':
    main()
