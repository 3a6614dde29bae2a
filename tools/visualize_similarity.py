"""Pictures of similarity maps: ``tools/visualize_similarity.py --help``."""

from mmmoco.apis.dense.visualize_similarity import main

if __name__ == '__main__':
    main()
