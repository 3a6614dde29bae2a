"""k-NN accuracy of a checkpoint: ``python tools/knn.py --help``."""

from mmmoco.apis.probing.knn import main

if __name__ == '__main__':
    main()
