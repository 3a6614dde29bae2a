"""Check a config before training: ``python tools/verify_config.py --help``."""

from mmmoco.apis.preflight.verify import main

if __name__ == '__main__':
    main()
