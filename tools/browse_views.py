"""Look at the views of a config: ``python tools/browse_views.py --help``."""

from mmmoco.apis.preflight.browse_views import main

if __name__ == '__main__':
    main()
