"""Write features of images to a file: see ``--help``."""

from mmmoco.apis.probing.extract_features import main

if __name__ == '__main__':
    main()
