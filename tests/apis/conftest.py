"""The browser that several pages are opened in."""

from pathlib import Path

import pytest

BROWSER = '/usr/bin/chromium'


@pytest.fixture(scope='module')
def browser():
    """The Chromium of the system; missing, the test fails."""
    from playwright.sync_api import sync_playwright

    assert Path(BROWSER).is_file(), 'bash tools/setup.sh full installs it'
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=BROWSER, args=['--no-sandbox']
        )
        yield chromium
        chromium.close()
