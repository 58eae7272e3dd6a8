"""Starts the servers of a drill, makes them fail and recover, and ends them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from tests.support.http_client import fetch
from tests.support.processes import Process, start
from tests.support.redis_servers import RedisServer
from tests.support.servers import free_port

__all__ = ["Fleet", "Gateways", "Server", "fleet", "one_gateway", "twelve_processes"]

_START_SECONDS: Final = 60.0
_GATEWAYS: Final = 3
_WORKERS: Final = 4


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
    """Gateways and their destinations."""

    gateways: list[Server]
    destinations: list[Server]

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events of all gateways, in order."""
        lines = [line for one in self.gateways for line in one.lines]
        return sorted(lines, key=lambda line: line["at"])

    @property
    def processes(self) -> list[int]:
        """Process ids of the gateways' processes that have started."""
        return [line["pid"] for line in self.events if line["event"] == "Started"]


@contextlib.asynccontextmanager
async def fleet(
    gateway_ports: list[int],
    ports: list[int],
    settings: Mapping[str, str],
    app: Mapping[str, str] | None = None,
) -> AsyncIterator[Fleet]:
    """Run the processes of a drill.

    Args:
        gateway_ports: Where each gateway listens.
        ports: Where the destinations listen.
        settings: Of the upstream, by the end of the variable's name. Its destinations are those
            of ``ports`` unless it names others.
        app: Further variables of the gateways.
    """
    destinations = [Server("tests.drill.destination", port) for port in ports]
    environment = dict(app or {})
    environment |= {f"UPSTREAM_DRILL_{name}": value for name, value in settings.items()}
    environment.setdefault("UPSTREAM_DRILL_DESTINATIONS", ",".join(one.url for one in destinations))
    gateways = [Server("tests.drill.gateway", port, environment) for port in gateway_ports]
    started: list[Server] = []
    try:
        started += destinations
        await asyncio.gather(*(server.start() for server in destinations))
        for gateway in gateways:
            started.append(gateway)
            await gateway.start()
        yield Fleet(gateways, destinations)
    finally:
        for server in started:
            with contextlib.suppress(ProcessLookupError):
                server.process.signal(signal.SIGCONT)
        await asyncio.gather(*(server.process.stop() for server in started))


Gateways: TypeAlias = Callable[[list[int], Mapping[str, str]], AbstractAsyncContextManager[Fleet]]
"""Starts gateways, for destinations at these ports and with these settings of the upstream."""


def one_gateway(
    ports: list[int], settings: Mapping[str, str]
) -> AbstractAsyncContextManager[Fleet]:
    """Run a gateway of one process."""
    return fleet([free_port()], ports, settings)


@contextlib.asynccontextmanager
async def twelve_processes(
    ports: list[int], settings: Mapping[str, str], server: RedisServer | None = None
) -> AsyncIterator[Fleet]:
    """Run three gateways of four processes each, which share a store.

    Args:
        ports: Where the destinations listen.
        settings: Of the upstream.
        server: The store, ``None`` for one of their own.
    """
    with contextlib.ExitStack() as stack:
        store = server or stack.enter_context(RedisServer())
        app = {
            "DRILL_WORKERS": str(_WORKERS),
            "FASTAPI_PROXY_CLUSTER__STORE": store.url,
            "FASTAPI_PROXY_CLUSTER__NAME": "drill",
            "FASTAPI_PROXY_CLUSTER__KEY": "a-key-of-the-drill",
            "FASTAPI_PROXY_CLUSTER__TIMEOUT": "0.25",
        }
        gateways = [free_port() for _ in range(_GATEWAYS)]
        async with fleet(gateways, ports, settings, app) as running:
            async with asyncio.timeout(_START_SECONDS):
                for one in running.gateways:
                    while [line["event"] for line in one.lines].count("Started") < _WORKERS:
                        await one.process.line("")
            yield running
