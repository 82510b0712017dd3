"""A browser, for tests of what people see: Debian's Chromium, driven by Playwright.

Needs `pip install pytest playwright websockets` and a Chromium, by default /usr/bin/chromium
(WSREDIS_CHROMIUM). Playwright's own browsers are not needed. What is missing is skipped, and the
summary says so.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: the browser is NOT tested"
)


@pytest.fixture(scope="session")
def browser() -> Iterator[sync_api.Browser]:
    binary = shutil.which(os.environ.get("WSREDIS_CHROMIUM", "/usr/bin/chromium"))
    if binary is None:
        pytest.skip("there is no Chromium (WSREDIS_CHROMIUM): the browser is NOT tested")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=binary,
            headless=True,
            # A browser that runs as root in a container, and calls nobody but the test's server.
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ],
        )
        yield chromium
        chromium.close()
