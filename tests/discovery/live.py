"""A gateway for a name in DNS, an origin on all addresses of this machine, and requests."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Any

from tests.support.gateways import Gateway, gateway, until
from tests.support.http_client import fetch

__all__ = ["PROBE", "Load", "Origin", "known", "lines", "live", "origin"]


PROBE = "/health"


class Origin:
    """One server on all addresses of this machine's loopback.

    Attributes:
        port: Where it listens.
        served: How many requests each address got.
        posts: How often each POST arrived, by its path.
        hosts: The Host headers that arrived.
        probed: How many probes each address got; they are not among the requests.
        healthy: Set while probes get a response.
    """

    def __init__(self) -> None:
        self.port = 0
        self.served: Counter[str] = Counter()
        self.posts: Counter[str] = Counter()
        self.hosts: set[str] = set()
        self.probed: Counter[str] = Counter()
        self.healthy = asyncio.Event()
        self.healthy.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Respond to each request of a connection with the address that it was sent to."""
        address = writer.get_extra_info("sockname")[0]
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                method, path, _ = head.split(" ", 2)
                if path == PROBE:
                    self.probed[address] += 1
                    await self.healthy.wait()
                else:
                    self.served[address] += 1
                self.posts[path] += method == "POST"
                self.hosts.add(head.lower().partition("\r\nhost: ")[2].partition("\r\n")[0])
                await asyncio.sleep(0.002)
                body = address.encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        writer.close()


@contextlib.asynccontextmanager
async def origin(host: str = "0.0.0.0") -> AsyncIterator[Origin]:
    """Run an origin."""
    made = Origin()
    server = await asyncio.start_server(made.serve, host, 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()


def live(
    port: int,
    nameserver: str,
    *,
    name: str = "api.internal",
    health: Mapping[str, Any] | None = None,
    **discovery: Any,
) -> contextlib.AbstractAsyncContextManager[Gateway]:
    """Run a gateway for a name, which it looks up all the time.

    Args:
        port: Of the destinations.
        nameserver: Where it looks up.
        name: The name.
        health: Settings of probes.
        **discovery: Further settings of discovery.
    """
    settings = {"nameservers": [nameserver], "refresh": 0.05, "family": "both", **discovery}
    source = f"dns+http://{name}:{port}"
    return gateway(source, policy="round_robin", discovery=settings, health=health or {})


def lines(*numbers: int) -> str:
    """Give the addresses 127.0.0.<number> of the name, for dnsmasq."""
    return "".join(f"127.0.0.{number} api.internal\n" for number in numbers)


def known(gate: Gateway) -> int:
    """Give the number of destinations."""
    return len(gate.balancer.destinations)


class Load:
    """Clients that send a GET and a POST in turn, until they are stopped."""

    def __init__(self, gate: Gateway, clients: int = 6) -> None:
        self.statuses: Counter[tuple[str, int]] = Counter()
        self.sent = 0
        self._gate, self._running = gate, True
        self._tasks = [asyncio.create_task(self._client()) for _ in range(clients)]

    async def _client(self) -> None:
        while self._running:
            self.sent += 1
            path = f"/billing/{self.sent}"
            for method in ("GET", "POST"):
                response = await fetch(self._gate.address, method, path)
                self.statuses[method, response.status] += 1

    async def more(self, number: int) -> None:
        """Wait until that many further requests have begun."""
        wanted = self.sent + number
        await until(lambda: self.sent >= wanted, 30)

    async def stop(self) -> None:
        """End the load."""
        self._running = False
        await asyncio.gather(*self._tasks)
