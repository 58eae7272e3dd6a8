"""Starts the app of a how-to page under each server, and finds out when it serves."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from tests.support.processes import ROOT, Process, running
from tests.support.servers import free_port

__all__ = ["COMMANDS", "accepts_connections", "serving"]

_PAGES = ROOT / "docs" / "src" / "how_to"
_DEADLINE_SECONDS = 100.0  # for machines that stall

COMMANDS = {
    "uvicorn": "uvicorn main:app --port {port}",
    "fastapi run": "fastapi run main.py --host 127.0.0.1 --port {port}",
    "fastapi dev": "fastapi dev main.py --port {port}",
    "gunicorn": "gunicorn main:app -b 127.0.0.1:{port}",
    "granian": "granian --interface asgi --port {port} main:app",
    "hypercorn": "hypercorn main:app --bind 127.0.0.1:{port}",
}
"""Commands without options for the shutdown: a module that Python runs by ``-m``, arguments."""


@contextlib.asynccontextmanager
async def serving(
    server: str, options: str, folder: Path, upstream: str, **settings: str
) -> AsyncIterator[Process]:
    """Serve ``main.py`` in a folder, ready when this yields.

    Args:
        server: A key of `COMMANDS`.
        options: Further words of the command line.
        folder: Gets the app and the file of gunicorn's settings.
        upstream: Address of the only destination.
        **settings: Variables of further settings of the upstream.
    """
    shutil.copy(_PAGES / "ready.py", folder / "main.py")
    shutil.copy(_PAGES / "gunicorn_conf.py", folder)
    port = free_port()
    words = f"{COMMANDS[server].format(port=port)} {options}".split()
    environment = {"UPSTREAM_BILLING_DESTINATIONS": upstream, **settings}
    async with running(
        sys.executable, "-m", *words, environment=environment, folder=folder
    ) as process:
        process.port = port
        await accepts_connections(process)
        yield process


async def accepts_connections(process: Process) -> None:
    """Wait until the server listens: granian says that it started a worker before it does."""
    async with asyncio.timeout(_DEADLINE_SECONDS):
        while True:
            assert process.status is None, process.lines
            with contextlib.suppress(ConnectionRefusedError):
                _, writer = await asyncio.open_connection(*process.address)
                writer.close()
                return
            await asyncio.sleep(0.05)
