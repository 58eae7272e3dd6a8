"""The outage drill without times: destinations die, close and fail under load, and return.

The times are measured by ``tests/timing/test_drill.py``. Every wait here is for an event that
must happen, so a busy machine only makes the test longer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import pytest

from tests.drill.fleet import Fleet, Server, one_gateway
from tests.drill.load import Load, Record
from tests.support.gateways import until
from tests.support.servers import free_port

pytestmark = pytest.mark.e2e


_SETTINGS: Final = {
    "HEALTH__PATH": "/health",
    "HEALTH__INTERVAL": "0.5",
    "RETRIES__STATUSES": "500,502,503",
    "EJECTION__STATUSES": "500",
}
_SECONDS: Final = 60.0


class _Drill:
    def __init__(self, running: Fleet, load: Load) -> None:
        self.destinations = running.destinations
        self._running = running
        self._load = load

    def gets(self, since: int) -> list[Record]:
        """Give the GETs that ended after a number of records."""
        return [one for one in self._load.records[since:] if one.kind == "get"]

    async def until_gets(self, condition: Callable[[list[Record]], bool]) -> list[Record]:
        """Wait until the GETs from now on fulfil a condition, and give them."""
        since = len(self._load.records)
        await until(lambda: condition(self.gets(since)), _SECONDS)
        return self.gets(since)

    async def until_back(self, *servers: Server) -> None:
        """Wait until each of the destinations serves requests again."""
        ports = {server.port for server in servers}
        await self.until_gets(lambda gets: ports <= {one.served_by for one in gets})

    async def until_out(self, server: Server) -> None:
        """Wait until the gateway sends a destination no more requests."""
        await until(
            lambda: any(
                line["event"] in ("DestinationDown", "DestinationEjected")
                and line["destination"] == server.url
                for line in self._running.events
            ),
            _SECONDS,
        )


def _twenty(gets: list[Record]) -> bool:
    return len(gets) >= 20


@pytest.mark.slow
async def test_no_get_fails_while_a_destination_is_left() -> None:
    """Killed, closing and failing destinations are hidden from clients while another one serves."""
    ports = [free_port() for _ in range(3)]
    async with one_gateway(ports, _SETTINGS) as running:
        load = Load([running.gateways[0].port], gets=20, posts=10, streams=1)
        async with load.running():
            drill = _Drill(running, load)
            killed, closing, failing = running.destinations
            await drill.until_back(*running.destinations)

            await killed.kill()
            await drill.until_out(killed)
            await drill.until_gets(_twenty)
            await killed.start()
            await drill.until_back(killed)

            await closing.set_mode("close")
            await drill.until_gets(_twenty)
            await closing.set_mode("well")

            await failing.set_mode("fail")
            await drill.until_out(failing)
            await drill.until_gets(_twenty)
            await failing.set_mode("well")
            await drill.until_back(*running.destinations)
            with_some_left = drill.gets(0)

            await asyncio.gather(*(server.kill() for server in running.destinations))
            without = await drill.until_gets(lambda gets: any(one.failed for one in gets))
            await asyncio.gather(*(server.start() for server in running.destinations))
            await drill.until_back(*running.destinations)

    assert [one for one in with_some_left if one.failed] == []
    assert {one.outcome for one in without if one.failed} <= {"502", "503", "broken off"}
