"""The time from the server's disconnect message to the end of the exchange."""

from __future__ import annotations

import asyncio
import statistics

import pytest

from fastapi_proxy_di import Upstream
from tests.forwarding.departures import (
    PATIENCE_SECONDS,
    PHASES,
    DisconnectNoted,
    PhasedOrigin,
    request_up_to,
)
from tests.support.gateways import gateway_app, until
from tests.support.http_client import connect, request
from tests.support.origins import ScriptedOrigin
from tests.support.servers import blackhole, run_app

pytestmark = pytest.mark.e2e


_LIMIT_SECONDS = 0.1
_TIMED = 5


def _median_delay(words: list[float], ends: list[float]) -> float:
    """The median of several runs, because a single pause may be the machine's."""
    return statistics.median(end - word for word, end in zip(words, ends, strict=True))


@pytest.mark.parametrize("middlewares", [0, 1, 2])
@pytest.mark.parametrize("phase", PHASES)
async def test_exchange_ends_within_100_ms_of_the_disconnect(phase: str, middlewares: int) -> None:
    """From the server's ``http.disconnect`` to the end that the destination sees."""
    script = PhasedOrigin()
    async with ScriptedOrigin(script) as origin:
        noted = DisconnectNoted(gateway_app(origin.url, middlewares=middlewares))
        async with run_app(noted) as running:
            for count in range(1, _TIMED + 1):
                async with connect(running.address) as client:
                    await request_up_to(phase, client, script.arrived)
                    client.reset()
                    await origin.all_left()
                assert len(noted.times) == len(script.ends) == count

    assert _median_delay(noted.times, script.ends) < _LIMIT_SECONDS


@pytest.mark.parametrize("middlewares", [0, 1, 2])
async def test_dial_ends_within_100_ms_of_the_disconnect(middlewares: int) -> None:
    """A dial to a host that drops our SYN is cancelled."""
    ends: list[float] = []
    with blackhole() as port:
        app = gateway_app(f"http://127.0.0.1:{port}", middlewares=middlewares)
        noted = DisconnectNoted(app)
        async with run_app(noted) as running:
            (destination,) = Upstream("billing").of(app).destinations
            for _ in range(_TIMED):
                async with connect(running.address) as client:
                    await client.send(request(target="/billing/x"))
                    await until(lambda: destination.in_flight == 1, PATIENCE_SECONDS)
                    client.reset()
                    await until(lambda: destination.in_flight == 0, PATIENCE_SECONDS)
                    ends.append(asyncio.get_running_loop().time())

    assert _median_delay(noted.times, ends) < _LIMIT_SECONDS
