"""Test a checkpoint: ``python tools/test.py --help``."""

from mmmoco.apis.test import main

if __name__ == '__main__':
    main()
