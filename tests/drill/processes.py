"""The real processes of a drill: start them, hurt them, heal them, end them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.support.http_client import fetch

_ROOT: Final = Path(__file__).parents[2]
_START_SECONDS: Final = 30.0


class Process:
    """One server process at a port of its own, which it keeps through its deaths.

    Args:
        module: What ``python -m`` runs.
        port: Given to it as its argument.
        environment: Variables on top of ours.
    """

    def __init__(
        self, module: str, port: int, environment: Mapping[str, str] | None = None
    ) -> None:
        self.port = port
        self.lines: list[dict[str, Any]] = []
        self._module = module
        self._environment = {**os.environ, **(environment or {})}
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start it and wait until it answers."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            self._module,
            str(self.port),
            stdout=asyncio.subprocess.PIPE,
            cwd=_ROOT,
            env=self._environment,
        )
        self._reading = asyncio.create_task(self._read(self._process))
        async with asyncio.timeout(_START_SECONDS):
            while True:
                with contextlib.suppress(OSError, EOFError):
                    # Several: what a process that has just begun is slow in is its own.
                    for _ in range(5):
                        await fetch(("127.0.0.1", self.port), target="/item")
                    return
                await asyncio.sleep(0.02)

    async def set_mode(self, mode: str) -> None:
        """Tell a destination how to answer."""
        await fetch(("127.0.0.1", self.port), "PUT", f"/mode/{mode}")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    async def kill(self) -> None:
        """SIGKILL, and wait until the kernel has buried it."""
        self.signal(signal.SIGKILL)
        await self.ended()

    async def ended(self) -> None:
        """Wait until it has ended and all it said is read."""
        assert self._process is not None
        assert self._reading is not None
        await self._process.wait()
        await self._reading

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            self.lines.append(json.loads(line))


@dataclass(frozen=True, slots=True)
class Fleet:
    """A gateway and its destinations."""

    gateway: Process
    destinations: list[Process]


@contextlib.asynccontextmanager
async def fleet(
    gateway_port: int, ports: list[int], settings: Mapping[str, str]
) -> AsyncIterator[Fleet]:
    """Run the processes of a drill.

    Args:
        gateway_port: Where the gateway listens.
        ports: Where the destinations listen.
        settings: Of the upstream, by the end of the variable's name.
    """
    destinations = [Process("tests.drill.destination", port) for port in ports]
    environment = {f"UPSTREAM_DRILL_{name}": value for name, value in settings.items()}
    environment["UPSTREAM_DRILL_DESTINATIONS"] = ",".join(one.url for one in destinations)
    gateway = Process("tests.drill.gateway", gateway_port, environment)
    started: list[Process] = []
    try:
        started += destinations
        await asyncio.gather(*(process.start() for process in destinations))
        started.append(gateway)
        await gateway.start()
        yield Fleet(gateway, destinations)
    finally:
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                process.signal(signal.SIGCONT)
            with contextlib.suppress(ProcessLookupError):
                process.signal(signal.SIGTERM)
        await asyncio.gather(*(process.ended() for process in started))
