"""Commands of the package as real processes, and what they leave behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

_DEADLINE_SECONDS = 30.0


@dataclass(slots=True)
class Command:
    """A running command and what it has printed so far."""

    process: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list)

    async def line(self, pattern: str) -> re.Match[str]:
        """Wait for a line of the standard output that has the pattern."""
        assert self.process.stdout is not None
        async with asyncio.timeout(_DEADLINE_SECONDS):
            while True:
                raw = await self.process.stdout.readline()
                assert raw, f"no line has {pattern!r}: {self.lines}"
                self.lines.append(raw.decode().rstrip("\n"))
                if match := re.search(pattern, self.lines[-1]):
                    return match

    async def end(self) -> int:
        """Wait until it is over, with everything it printed in ``lines``."""
        assert self.process.stdout is not None
        async with asyncio.timeout(_DEADLINE_SECONDS):
            rest = await self.process.stdout.read()
            self.lines += rest.decode().splitlines()
            return await self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process alone, as ``kill`` does."""
        self.process.send_signal(number)


@contextlib.asynccontextmanager
async def command(*words: str, environment: dict[str, str] | None = None) -> AsyncIterator[Command]:
    """Run ``python -m fastapi_proxy_di`` with these words; killed at the end if it still runs.

    Args:
        *words: The command and its options.
        environment: Variables on top of the test's own.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "fastapi_proxy_di",
        *words,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **(environment or {})},
        start_new_session=True,
    )
    try:
        yield Command(process)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
