"""List a part of the labelled images: see ``--help``."""

from mmmoco.apis.data.label_subset import main

if __name__ == '__main__':
    main()
