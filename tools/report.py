"""One HTML file about a run or several: ``python tools/report.py --help``."""

from mmmoco.apis.report import main

if __name__ == '__main__':
    main()
