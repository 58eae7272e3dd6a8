"""Starts, signals, restarts and stops the processes of the demo's upstream servers.

Each process prints its address on its standard output, so no port is guessed or polled.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import signal
import string
import sys
from typing import Final

from fastapi_proxy_di.cli.demo.upstream import READY

_START_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 3.0


class UpstreamProcess:
    """One demo upstream; its name and port stay when its process restarts.

    Args:
        name: One letter, as shown in the table.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.port: int = 0
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[bytes] | None = None

    @property
    def url(self) -> str:
        """Address of the destination; fixed after the first start."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """Process id, ``None`` while no process that we started is running."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self) -> None:
        """Start the process and wait until it listens; after a restart on the same port.

        Raises:
            RuntimeError: The process ended or printed something else; the text has its output.
            TimeoutError: The process did not listen in time.
        """
        process = self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *_arguments(self.name, self.port),
            "--with-parent",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            # A terminal's Ctrl-C goes to its whole process group; the demo ends its
            # upstreams itself, after its own traffic.
            start_new_session=True,
        )
        assert process.stdout is not None
        async with asyncio.timeout(_START_SECONDS):
            line = (await process.stdout.readline()).decode()
        listening = re.fullmatch(re.escape(READY) + r"http://127\.0\.0\.1:(\d+)\n", line)
        if listening is None:
            self.signal(signal.SIGKILL)
            rest = (await process.stdout.read()).decode()
            raise RuntimeError(f"Upstream {self.name} did not start: {line}{rest}".rstrip())
        self.port = int(listening[1])
        # Further output is read, so that a full pipe never blocks the process.
        self._reader = asyncio.create_task(
            process.stdout.read(), name=f"demo upstream {self.name}: output"
        )

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, if it is running."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def wait(self) -> None:
        """Wait until the process has ended."""
        if self._process is not None:
            await self._process.wait()
        if self._reader is not None:
            await self._reader

    async def stop(self) -> None:
        """End the process: SIGTERM, and SIGKILL after three seconds. Idempotent."""
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await self.wait()
        except TimeoutError:
            self.signal(signal.SIGKILL)
            await self.wait()

    @property
    def start_command(self) -> str:
        """The command that starts the upstream again."""
        return shlex.join([python_command(), *_arguments(self.name, self.port)])


class Fleet:
    """All upstreams of one demo.

    Args:
        count: Number of upstreams, 1 to 26: ``a`` to ``z``.
    """

    def __init__(self, count: int) -> None:
        self.upstreams: tuple[UpstreamProcess, ...] = tuple(
            UpstreamProcess(name) for name in string.ascii_lowercase[:count]
        )

    async def start(self) -> None:
        """Start all at the same time.

        Raises:
            ExceptionGroup: One or more did not start.
        """
        async with asyncio.TaskGroup() as starting:
            for upstream in self.upstreams:
                starting.create_task(upstream.start(), name=f"demo upstream {upstream.name}: start")

    async def stop(self) -> None:
        """Stop all at the same time. Idempotent."""
        async with asyncio.TaskGroup() as stopping:
            for upstream in self.upstreams:
                stopping.create_task(upstream.stop(), name=f"demo upstream {upstream.name}: stop")


def python_command() -> str:
    """Give the shortest command that starts this interpreter from a shell."""
    for word in ("python", "python3"):
        found = shutil.which(word)
        # Links are not resolved: a virtual environment's python is a link to the base one.
        if found is not None and os.path.abspath(found) == sys.executable:  # noqa: PTH100
            return word
    return sys.executable


def _arguments(name: str, port: int) -> list[str]:
    return ["-m", "fastapi_proxy_di", "demo-upstream", "--name", name, "--port", str(port)]
