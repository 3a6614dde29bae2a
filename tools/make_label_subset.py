"""List a part of the labelled images: see ``--help``."""

from mmmoco.apis import cli
from mmmoco.apis.data.jobs import label_subset

if __name__ == '__main__':
    cli.main(label_subset)
