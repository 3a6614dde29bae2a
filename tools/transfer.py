"""One process of ``tools/transfer.sh``."""

from mmmoco.apis import cli
from mmmoco.apis.training.jobs import train, transfer

USAGE = (
    'bash tools/transfer.sh CKPT TASK [GPUS] [--data-root DIR] [--check] '
    '[ARGUMENTS OF train.py]'
)

if __name__ == '__main__':
    cli.main(transfer, prog='transfer.sh', options_of=train, usage=USAGE)
