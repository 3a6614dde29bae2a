"""Similarities in and between objects: ``tools/similarity.py --help``."""

from mmmoco.apis.similarity import main

if __name__ == '__main__':
    main()
