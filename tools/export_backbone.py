"""Hand over a backbone: ``python tools/export_backbone.py --help``."""

from mmmoco.apis.exchange.export_backbone import main

if __name__ == '__main__':
    main()
