"""Runs headless Chromium, for tests of what a browser sees."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.processes import Process, running

__all__ = ["browsing", "needs_chromium"]

_CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium: Final = pytest.mark.skipif(
    _CHROMIUM is None, reason="needs Chromium: apt-get install chromium"
)
"""Skips a test where Chromium is not installed."""


@contextlib.asynccontextmanager
async def browsing(url: str, profile: Path, *flags: str) -> AsyncIterator[Process]:
    """Keep a page open until the end of the block.

    Args:
        url: The page.
        profile: An empty folder for the browser's files.
        *flags: Further flags of the command.

    Yields:
        The browser. A line of its output names the address of its debugging protocol.
    """
    assert _CHROMIUM is not None
    async with running(
        _CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-proxy-server",
        "--remote-debugging-port=0",  # without it a headless one leaves after the page's load
        f"--user-data-dir={profile}",
        *flags,
        url,
    ) as browser:
        yield browser
