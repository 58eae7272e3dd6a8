"""One browser for the tests of a file."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.browser import Browser, open_browser


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    """Run Chromium; each test opens pages of its own, which share nothing."""
    async with open_browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser
