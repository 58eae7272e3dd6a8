"""A terminal of a given size that a command runs in, and the screen that a person would see."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator, Mapping
from typing import Final

_DEADLINE_SECONDS: Final = 100.0
"""For machines that stall; below the time after which a test is ended."""


class Terminal:
    """A pseudo terminal, as the emulator ``pyte`` renders it.

    Attributes:
        raw: All bytes that were written to it.

    Args:
        width: Columns.
        height: Lines.
    """

    def __init__(self, width: int, height: int) -> None:
        import pyte

        self.raw: bytes = b""
        self._screen = pyte.Screen(width, height)
        self._stream = pyte.ByteStream(self._screen)
        self._news = asyncio.Event()
        self._ours, self.theirs = pty.openpty()
        size = struct.pack("HHHH", height, width, 0, 0)
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, size)
        os.set_blocking(self._ours, False)
        asyncio.get_running_loop().add_reader(self._ours, self._read)

    @property
    def lines(self) -> list[str]:
        """The screen, without blanks at the ends of lines."""
        return [line.rstrip() for line in self._screen.display]

    async def shows(self, pattern: str) -> re.Match[str]:
        """Wait until the screen matches."""
        async with asyncio.timeout(_DEADLINE_SECONDS):
            while not (found := re.search(pattern, "\n".join(self.lines), re.MULTILINE)):
                self._news.clear()
                await self._news.wait()
        return found

    def close(self) -> None:
        """Close the terminal; a command that still runs in it gets SIGHUP."""
        asyncio.get_running_loop().remove_reader(self._ours)
        os.close(self._ours)
        os.close(self.theirs)

    def _read(self) -> None:
        data = os.read(self._ours, 65536)
        self.raw += data
        self._stream.feed(data)
        self._news.set()


@contextlib.asynccontextmanager
async def package_in_terminal(
    *words: str, width: int, height: int, environment: Mapping[str, str] | None = None
) -> AsyncIterator[tuple[Terminal, asyncio.subprocess.Process]]:
    """Run ``python -m fastapi_proxy_di`` in a terminal until the end of the block.

    Args:
        *words: The arguments.
        width: Columns of the terminal.
        height: Lines of the terminal.
        environment: Variables on top of a terminal's usual ones.
    """
    usual = {"TERM": "xterm-256color", **(environment or {})}
    sizes = {"COLUMNS", "LINES", "NO_COLOR"}
    inherited = {name: value for name, value in os.environ.items() if name not in sizes}
    terminal = Terminal(width, height)
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "fastapi_proxy_di",
            *words,
            stdin=terminal.theirs,
            stdout=terminal.theirs,
            stderr=terminal.theirs,
            env={**inherited, **usual},
            start_new_session=True,
        )
        try:
            yield terminal, process
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(_DEADLINE_SECONDS):
                await process.wait()
    finally:
        terminal.close()
