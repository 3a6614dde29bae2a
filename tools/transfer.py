"""One process of a transfer: ``bash tools/transfer.sh --help``."""

from mmmoco.apis import cli
from mmmoco.apis.training.jobs import transfer

if __name__ == '__main__':
    cli.main(transfer, prog='transfer.sh')
