"""The fixtures of `wsredis.testing`, for pytest. Installed, the package brings them by itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .testing import Outbox, Site


@pytest.fixture
def wsredis_server() -> Iterator[Site]:
    """A real engine for this test: ``connect(path, client=…)``, ``send``, ``receive``."""
    with Site() as site:
        yield site


@pytest.fixture
def wsredis_outbox(wsredis_server: Site) -> Outbox:
    """What this test has published. It needs no library, and nothing leaves the process."""
    return wsredis_server.outbox
