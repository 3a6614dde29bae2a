"""k-NN accuracy of a checkpoint: ``python tools/knn.py --help``."""

from mmmoco.apis import cli
from mmmoco.apis.probing.jobs import evaluate_knn

if __name__ == '__main__':
    cli.main(evaluate_knn, positionals=('config', 'checkpoint'))
