"""Train a config: ``python tools/train.py --help``."""

from mmmoco.apis.training.train import main

if __name__ == '__main__':
    main()
