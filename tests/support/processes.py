"""Runs commands as processes: starts them, reads their output, sends signals, ends them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

__all__ = ["ROOT", "Process", "package", "running", "start"]

ROOT: Final = Path(__file__).parents[2]
"""Of the repository: where processes start, unless they are given another folder."""
_DEADLINE_SECONDS: Final = 100.0
"""For machines that stall; below the time after which a test is ended."""


class Process:
    """A process that was started, and what it has printed.

    Attributes:
        pid: Its id; its own session's and process group's too.
        port: Where a server listens; set by the code that starts one.
        lines: What it has printed so far, on both outputs.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.pid = process.pid
        self.port = 0
        self.lines: list[str] = []
        self._process = process
        self._seen = 0
        self._news = asyncio.Event()
        self._reading = asyncio.create_task(self._read(), name="output of a process")

    @property
    def address(self) -> tuple[str, int]:
        """Host and port for a client."""
        return ("127.0.0.1", self.port)

    @property
    def url(self) -> str:
        """Absolute base URL without a slash at its end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def status(self) -> int | None:
        """The exit status; ``None`` while the process runs."""
        return self._process.returncode

    async def line(self, pattern: str) -> re.Match[str]:
        """Wait for a line that matches the pattern, after the line that was found before."""
        async with asyncio.timeout(_DEADLINE_SECONDS):
            while True:
                while self._seen < len(self.lines):
                    self._seen += 1
                    if match := re.search(pattern, self.lines[self._seen - 1]):
                        return match
                assert not self._reading.done(), f"no line has {pattern!r}: {self.lines}"
                self._news.clear()
                await self._news.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process alone, as ``kill`` does."""
        self._process.send_signal(number)

    async def end(self) -> int:
        """Wait until the process has ended and all its output is in ``lines``; give its status."""
        async with asyncio.timeout(_DEADLINE_SECONDS):
            await self._reading
            return await self._process.wait()

    async def stop(self) -> int:
        """Send SIGTERM; at the end kill the process and its children."""
        with contextlib.suppress(ProcessLookupError):
            self.signal(signal.SIGTERM)
        try:
            return await self.end()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            self.lines.append(line.decode().rstrip("\n"))
            self._news.set()
        self._news.set()


async def start(
    *words: str, environment: Mapping[str, str] | None = None, folder: Path = ROOT
) -> Process:
    """Start a command; the caller ends it.

    Args:
        *words: The command and its arguments.
        environment: Variables on top of the test's own.
        folder: Where it starts.
    """
    return Process(
        await asyncio.create_subprocess_exec(
            *words,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
    )


@contextlib.asynccontextmanager
async def running(
    *words: str, environment: Mapping[str, str] | None = None, folder: Path = ROOT
) -> AsyncIterator[Process]:
    """Run a command until the end of the block; arguments as for ``start``."""
    process = await start(*words, environment=environment, folder=folder)
    try:
        yield process
    finally:
        await process.stop()


def package(
    *words: str, environment: Mapping[str, str] | None = None
) -> contextlib.AbstractAsyncContextManager[Process]:
    """Run ``python -m fastapi_proxy_di`` with these words, in the test's own folder."""
    command = (sys.executable, "-m", "fastapi_proxy_di", *words)
    return running(*command, environment=environment, folder=Path.cwd())
