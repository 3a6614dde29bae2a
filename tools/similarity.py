"""Similarities in and between objects: ``tools/similarity.py --help``."""

from mmmoco.apis.dense.similarity import main

if __name__ == '__main__':
    main()
