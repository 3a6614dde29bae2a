"""One process of a transfer: ``bash tools/transfer.sh --help``."""

from mmmoco.apis.training.transfer import main

if __name__ == '__main__':
    main()
