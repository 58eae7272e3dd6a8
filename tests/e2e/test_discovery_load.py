"""Destinations come and go under load: DNS gives 3 addresses, then 30, then 1."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from itertools import count
from pathlib import Path
from typing import Final, Self

import pytest

from tests.support.dns_servers import dnsmasq
from tests.support.gateways import gateway, until
from tests.support.http_client import connect, request
from tests.support.servers import free_port

pytestmark = pytest.mark.e2e

_CLIENTS: Final = 8
_RESPONSE_SECONDS: Final = 0.01


class _Fleet:
    """Destinations on 127.0.1.1, 127.0.1.2 and so on, all with one port.

    Attributes:
        port: Their port.
        gets: How many GETs each has received, by its number.
        posts: How often each POST was received, by its target.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.gets: Counter[int] = Counter()
        self.posts: Counter[bytes] = Counter()
        self._servers: dict[int, asyncio.Server] = {}
        self._connections: dict[int, set[asyncio.StreamWriter]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for number in [*self._servers]:
            await self.kill(number)

    async def start(self, *numbers: int) -> None:
        """Let destinations accept connections."""
        for number in numbers:
            connections = self._connections[number] = set()

            async def serve(
                reader: asyncio.StreamReader,
                writer: asyncio.StreamWriter,
                number: int = number,
                connections: set[asyncio.StreamWriter] = connections,
            ) -> None:
                connections.add(writer)
                with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                    await self._serve(number, reader, writer)
                writer.close()

            self._servers[number] = await asyncio.start_server(
                serve, f"127.0.1.{number}", self.port
            )

    async def kill(self, number: int) -> None:
        """End a destination as a crash does: connections are reset, its port refuses new ones."""
        server = self._servers.pop(number)
        server.close()
        for writer in self._connections.pop(number):
            writer.transport.abort()
        await server.wait_closed()

    def hosts(self, *numbers: int) -> str:
        """Give the lines of a hosts file in which these are ``api.internal``."""
        return "".join(f"127.0.1.{number} api.internal\n" for number in numbers)

    def urls(self, *numbers: int) -> set[str]:
        """Give the addresses of destinations."""
        return {f"http://127.0.1.{number}:{self.port}" for number in numbers}

    async def _serve(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            method, target, _ = head.split(b" ", 2)
            if method == b"GET":
                self.gets[number] += 1
            else:
                self.posts[target] += 1
            await asyncio.sleep(_RESPONSE_SECONDS)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


class _Load:
    """Clients that send GETs and POSTs one after the other.

    Attributes:
        statuses: How often each status came, by method.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self.statuses: dict[str, Counter[int]] = {"GET": Counter(), "POST": Counter()}
        self._address = address
        self._numbers = count()

    async def run(self) -> None:
        """Send requests on one connection until cancelled."""
        async with connect(self._address) as client:
            while True:
                number = next(self._numbers)
                method = "POST" if number % 4 == 0 else "GET"
                await client.send(request(method, f"/billing/{number}"))
                reply = await client.read_response(method)
                self.statuses[method][reply.status] += 1


async def test_three_thirty_one_destinations_under_load(tmp_path: Path) -> None:
    """No GET fails, and no POST is sent twice; those that are gone crash under load."""
    few, many, last = (1, 2, 3), tuple(range(1, 31)), (7,)
    async with _Fleet() as fleet, dnsmasq(tmp_path, fleet.hosts(*few)) as server:
        await fleet.start(*many)
        discovery = {"nameservers": server.nameserver, "refresh": 0.1}
        source = f"dns+http://api.internal:{fleet.port}"
        async with gateway(source, discovery=discovery) as gate:
            load = _Load(gate.address)

            def found() -> set[str]:
                return {one.url for one in gate.balancer.destinations}

            async with asyncio.TaskGroup() as group:
                clients = [group.create_task(load.run()) for _ in range(_CLIENTS)]
                await until(lambda: found() == fleet.urls(*few) and len(fleet.gets) == len(few))
                await server.write(fleet.hosts(*many))
                await until(lambda: found() == fleet.urls(*many) and len(fleet.gets) == len(many))
                posts_before = load.statuses["POST"].copy()
                await server.write(fleet.hosts(*last))
                await until(lambda: found() == fleet.urls(*last))
                for number in set(many) - set(last):
                    await fleet.kill(number)
                at_last = fleet.gets[last[0]]
                await until(lambda: fleet.gets[last[0]] > at_last + 20)
                for client in clients:
                    client.cancel()

    assert set(load.statuses["GET"]) == {200}
    assert set(posts_before) == {200}
    assert set(fleet.posts.values()) == {1}
    assert set(load.statuses["POST"]) <= {200, 502}
    assert load.statuses["POST"][502] <= _CLIENTS  # under way when their destination crashed
