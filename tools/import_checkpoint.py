"""Take in a checkpoint: ``python tools/import_checkpoint.py --help``."""

from mmmoco.apis.exchange.import_checkpoint import main

if __name__ == '__main__':
    main()
