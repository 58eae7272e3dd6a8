"""Opens a page of a host that only the browser knows."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from tests.support.browser import Page, open_browser

__all__ = ["open_page"]


@contextlib.asynccontextmanager
async def open_page(url: str, profile: Path, host: str) -> AsyncIterator[Page]:
    """Keep a page open until the end of the block.

    Args:
        url: The page.
        profile: A folder for the browser's files.
        host: The name that means this machine to the browser.
    """
    async with (
        open_browser(profile, f"--host-resolver-rules=MAP {host} 127.0.0.1") as browser,
        browser.page() as page,
    ):
        await page.send("Page.navigate", url=url)
        yield page
