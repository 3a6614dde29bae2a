"""``python -m mmmoco``: the same as the command ``mmmoco``."""

from mmmoco.apis.command import main

if __name__ == '__main__':
    main()
