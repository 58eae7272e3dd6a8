"""Starts the servers of a drill, makes them fail and recover, and ends them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tests.support.http_client import fetch
from tests.support.processes import Process, start

__all__ = ["Fleet", "Server", "fleet"]

_START_SECONDS: Final = 30.0


class Server:
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
        self._module = module
        self._environment = environment
        self._process: Process | None = None

    @property
    def url(self) -> str:
        """Address of the server."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The lines of JSON that the server has printed since its last start."""
        return [json.loads(line) for line in self.process.lines if line.startswith("{")]

    @property
    def process(self) -> Process:
        """The current process of the server, or its last one."""
        assert self._process is not None
        return self._process

    async def start(self) -> None:
        """Start the server and wait until it responds."""
        words = (sys.executable, "-m", self._module, str(self.port))
        self._process = await start(*words, environment=self._environment)
        async with asyncio.timeout(_START_SECONDS):
            while True:
                with contextlib.suppress(OSError, EOFError):
                    # Several: what a process that has just begun is slow in is its own.
                    for _ in range(5):
                        await fetch(("127.0.0.1", self.port), target="/item")
                    return
                await asyncio.sleep(0.02)

    async def set_mode(self, mode: str) -> None:
        """Tell a destination how to respond."""
        await fetch(("127.0.0.1", self.port), "PUT", f"/mode/{mode}")

    async def kill(self) -> None:
        """Send SIGKILL, and wait until the process has ended."""
        self.process.signal(signal.SIGKILL)
        await self.process.end()


@dataclass(frozen=True, slots=True)
class Fleet:
    """A gateway and its destinations."""

    gateway: Server
    destinations: list[Server]


@contextlib.asynccontextmanager
async def fleet(
    gateway_port: int, ports: list[int], settings: Mapping[str, str]
) -> AsyncIterator[Fleet]:
    """Run the processes of a drill.

    Args:
        gateway_port: Where the gateway listens.
        ports: Where the destinations listen.
        settings: Of the upstream, by the end of the variable's name. Its destinations are those
            of ``ports`` unless it names others.
    """
    destinations = [Server("tests.drill.destination", port) for port in ports]
    environment = {f"UPSTREAM_DRILL_{name}": value for name, value in settings.items()}
    environment.setdefault("UPSTREAM_DRILL_DESTINATIONS", ",".join(one.url for one in destinations))
    gateway = Server("tests.drill.gateway", gateway_port, environment)
    started: list[Server] = []
    try:
        started += destinations
        await asyncio.gather(*(server.start() for server in destinations))
        started.append(gateway)
        await gateway.start()
        yield Fleet(gateway, destinations)
    finally:
        for server in started:
            with contextlib.suppress(ProcessLookupError):
                server.process.signal(signal.SIGCONT)
        await asyncio.gather(*(server.process.stop() for server in started))
