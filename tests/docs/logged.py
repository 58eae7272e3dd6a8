"""Puts faults into one gateway under uvicorn, and tells what its log says of each.

Each fault has an upstream of its own, so that all happen at the same time in one process.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Final

from fastapi import FastAPI

from fastapi_proxy_di import proxy_router
from tests.e2e.servers import uvicorn
from tests.support.gateways import until
from tests.support.http_client import connect, fetch, request
from tests.support.origins import Connection, Script, ScriptedOrigin, always, chunk, response_bytes
from tests.support.processes import Process
from tests.support.servers import free_port
from tests.support.websocket_client import shake_hands
from tests.support.websocket_origin import accepting

__all__ = ["app", "logged"]

_SECONDS: Final = 60.0


async def _silent(connection: Connection) -> None:
    await connection.read_request()
    await connection.peer_left()


async def _breaking(connection: Connection) -> None:
    await connection.read_request()
    await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"half"))


async def _breaking_tunnel(connection: Connection) -> None:
    await connection.send(accepting(await connection.read_head()))


class Place:
    """A destination that can die and return.

    Args:
        script: What it does with a connection; by default 200 with ``ok``.
    """

    def __init__(self, script: Script | None = None) -> None:
        self.port: Final = free_port()
        self.requests: Callable[[], int] = lambda: 0
        self._script: Final = script
        self._origin: ScriptedOrigin | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen."""
        origin = self._origin = ScriptedOrigin(self._script, port=self.port)
        await origin.__aenter__()
        self.requests = lambda: len(origin.requests)

    async def die(self) -> None:
        """Close its port and its connections."""
        origin, self._origin = self._origin, None
        if origin is not None:
            await origin.__aexit__(None, None, None)


class Upstream:
    """One upstream of the gateway, and the faults that it gets.

    Args:
        name: Its name, and its mount.
        faults: Puts the faults in.
        *places: Its destinations.
        **settings: Variables, without the prefix of the upstream.
    """

    def __init__(
        self,
        name: str,
        faults: Callable[[Upstream], Awaitable[None]],
        *places: Place,
        **settings: str,
    ) -> None:
        self.name = name
        self.places = places
        self.settings = settings
        self.rows: list[tuple[str, int]] = []
        self.server: Process
        self._faults = faults

    async def run(self, server: Process) -> None:
        """Put the faults into the running gateway."""
        self.server = server
        await self._faults(self)

    def row(self, title: str) -> None:
        """Let the lines from now on belong to a row of the table."""
        self.rows.append((title, len(self.server.lines)))

    async def get(self) -> int:
        """Send a request through the gateway; give the status of the response."""
        return (await fetch(self.server.address, target=f"/{self.name}/x")).status

    async def shake_hands(self) -> int:
        """Open a WebSocket through the gateway; give the status of the response."""
        async with connect(self.server.address) as client:
            reply = await shake_hands(client, f"/{self.name}/x")
            if reply.status == 101:
                await client.reader.readexactly(2)  # the gateway's close frame
            return reply.status

    async def gets_until(self, text: str) -> None:
        """Send requests until the log of the current row has a line with a text."""
        while not any(text in line for line in self._now()):
            assert await self.get() in (200, 500)

    async def line(self, text: str) -> None:
        """Wait until the log of the current row has a line with a text."""
        await until(lambda: any(text in line for line in self._now()), _SECONDS)

    def _now(self) -> list[str]:
        return self._own(self.server.lines[self.rows[-1][1] :])

    def log(self) -> dict[str, list[str]]:
        """Give the lines of each row, with the names of the table.

        Numbers that are logged at shutdown belong to the first row.
        """
        log: dict[str, list[str]] = {title: [] for title, _ in self.rows}
        for number, line in enumerate(self.server.lines):
            if self._own([line]):
                begun = [title for title, start in self.rows if start <= number]
                row = self.rows[0][0] if " × " in line else begun[-1]
                log[row].append(self._shown(line))
        return log

    def _own(self, lines: list[str]) -> list[str]:
        own = re.compile(rf" (WARNING|ERROR) {self.name}\b|/{self.name}/x\b")
        return [one for one in lines if own.search(one)]

    def _shown(self, line: str) -> str:
        line = re.sub(r"^\S+ \S+ WARNING ", "", line)
        line = re.sub(r"^INFO: .* - ", "INFO: ", line)
        line = re.sub(rf"(?<![\w.]){self.name}\b", "billing", line)
        for number, place in enumerate(self.places, 1):
            line = line.replace(place.url, f"http://10.0.0.{number}:8000")
            line = line.replace(f"('127.0.0.1', {place.port})", f"('10.0.0.{number}', 8000)")
        return line


async def _dies_with_probes(upstream: Upstream) -> None:
    upstream.row("A destination dies, and is probed")
    await upstream.places[0].die()
    await upstream.line("is down")
    upstream.row("It returns")
    await upstream.places[0].start()
    await upstream.line("is up")


async def _dies(upstream: Upstream) -> None:
    upstream.row("A destination dies without probes")
    await upstream.places[0].die()
    await upstream.gets_until("is ejected")
    upstream.row("It returns, or its ejection ends")
    await upstream.places[0].start()
    await upstream.line("is readmitted")


async def _slow(upstream: Upstream) -> None:
    upstream.row("A destination is slow")
    assert [await upstream.get() for _ in range(2)] == [504] * 2


async def _errors(upstream: Upstream) -> None:
    upstream.row("A destination responds with 500")
    assert [await upstream.get() for _ in range(3)] == [500] * 3


async def _ejecting(upstream: Upstream) -> None:
    upstream.row("It responds with 500, and 500 is in `ejection.statuses`")
    await upstream.gets_until("is ejected")


async def _all_down(upstream: Upstream) -> None:
    upstream.row("All destinations are down")
    for place in upstream.places:
        await place.die()
    await upstream.line("has no available destination")
    assert [await upstream.get() for _ in range(3)] == [502] * 3
    upstream.row("They return")
    await asyncio.gather(*(place.start() for place in upstream.places))
    for place in upstream.places:
        await upstream.line(f"{place.url} is up")


async def _none_used(upstream: Upstream) -> None:
    upstream.row("All are down with `when_none_available=fail`")
    await upstream.places[0].die()
    await upstream.line("is down")
    assert [await upstream.get() for _ in range(3)] == [503] * 3


async def _refuses(upstream: Upstream) -> None:
    upstream.row("A destination refuses a WebSocket")
    assert await upstream.shake_hands() == 403


async def _unreachable(upstream: Upstream) -> None:
    upstream.row("A WebSocket finds no destination")
    await upstream.places[0].die()
    assert await upstream.shake_hands() == 502


async def _limit(upstream: Upstream) -> None:
    upstream.row("A limit is reached")
    async with connect(upstream.server.address) as client:
        await client.send(request(target=f"/{upstream.name}/x"))
        await until(upstream.places[0].requests, _SECONDS)
        assert [await upstream.get() for _ in range(3)] == [503] * 3


async def _saved(upstream: Upstream) -> None:
    upstream.row("A retry saves a request")
    await upstream.places[0].die()
    assert await upstream.get() == 200


async def _breaks_off(upstream: Upstream) -> None:
    upstream.row("A destination breaks off responses")
    for _ in range(3):
        assert await upstream.get() == 200


async def _ends_tunnels(upstream: Upstream) -> None:
    upstream.row("A destination dies with open WebSockets")
    for _ in range(3):
        assert await upstream.shake_hands() == 101


_PROBES: Final = {"HEALTH__PATH": "/health", "HEALTH__INTERVAL": "0.05"}


def _upstreams() -> list[Upstream]:
    failing = always(response_bytes(500))
    return [
        Upstream("probed", _dies_with_probes, Place(), Place(), **_PROBES),
        Upstream("mortal", _dies, Place(), Place(), EJECTION__BASE_TIME="2"),
        Upstream("slow", _slow, Place(_silent), TIMEOUTS__FIRST_BYTE="0.1"),
        Upstream("errors", _errors, Place(failing)),
        Upstream("ejecting", _ejecting, Place(failing), Place(), EJECTION__STATUSES="500"),
        Upstream("everywhere", _all_down, Place(), Place(), POLICY="first", **_PROBES),
        Upstream("strict", _none_used, Place(), WHEN_NONE_AVAILABLE="fail", **_PROBES),
        Upstream("refusing", _refuses, Place(always(response_bytes(403)))),
        Upstream("unreachable", _unreachable, Place()),
        Upstream("limited", _limit, Place(_silent), LIMITS__MAX_IN_FLIGHT="1", LIMITS__QUEUE="0"),
        Upstream("saved", _saved, Place(), Place(), POLICY="first"),
        Upstream("breaking", _breaks_off, Place(_breaking)),
        Upstream("tunnels", _ends_tunnels, Place(_breaking_tunnel)),
    ]


app = FastAPI()
for one in _upstreams():
    app.include_router(proxy_router(one.name), prefix=f"/{one.name}")


async def logged() -> tuple[dict[str, list[str]], list[str]]:
    """Run the gateway with uvicorn's defaults; give the lines of its log by row, and all."""
    upstreams = _upstreams()
    environment: dict[str, str] = {}
    for one in upstreams:
        prefix = f"UPSTREAM_{one.name.upper()}_"
        environment[prefix + "DESTINATIONS"] = ",".join(place.url for place in one.places)
        environment |= {prefix + name: value for name, value in one.settings.items()}
        await asyncio.gather(*(place.start() for place in one.places))
    try:
        async with uvicorn("tests.docs.logged:app", environment=environment) as server:
            await asyncio.gather(*(one.run(server) for one in upstreams))
    finally:
        await asyncio.gather(*(place.die() for one in upstreams for place in one.places))
    rows = {title: lines for one in upstreams for title, lines in one.log().items()}
    return rows, server.lines
