"""The time of the first event of a stream through the gateway, as processes."""

from __future__ import annotations

import statistics
import time

import pytest

from tests.e2e.conftest import Upstream
from tests.e2e.test_flow import gateway
from tests.support.http_client import connect, request

pytestmark = pytest.mark.e2e


async def first_event_seconds(address: tuple[str, int], target: str) -> float:
    """Measure the first event of a stream, on a connection that is open already."""
    async with connect(address) as client:
        await client.send(request("GET", "/nowhere"))
        await client.read_response()
        start = time.perf_counter()
        await client.send(request("GET", target))
        assert (await client.read_head()).status == 200
        assert await client.read_chunk() == b"data: first\n\n"
        return time.perf_counter() - start


async def test_first_event_is_delayed_by_less_than_twenty_milliseconds(upstream: Upstream) -> None:
    """The median through the gateway minus that of the upstream alone, measured in turns."""
    direct, through = [], []
    async with gateway("tests.e2e.gateway:app", upstream.destination) as server:
        for _ in range(15):
            direct.append(await first_event_seconds(upstream.app.address, "/events"))
            through.append(await first_event_seconds(server.address, "/billing/events"))

    assert statistics.median(through) - statistics.median(direct) < 0.020
