"""One HTML file about a run or several: ``python tools/report.py --help``."""

from mmmoco.apis import cli
from mmmoco.apis.report.jobs import report

if __name__ == '__main__':
    cli.main(report)
