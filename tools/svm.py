"""Low-shot linear SVM of a checkpoint: ``python tools/svm.py --help``."""

from mmmoco.apis.probing.svm import main

if __name__ == '__main__':
    main()
