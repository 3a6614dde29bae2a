"""Low-shot linear SVM of a checkpoint: ``python tools/svm.py --help``."""

from mmmoco.apis import cli
from mmmoco.apis.probing.jobs import evaluate_svm

if __name__ == '__main__':
    cli.main(evaluate_svm, positionals=('config', 'checkpoint'))
