"""The delay before the next address of a name is tried."""

from __future__ import annotations

import socket
import time

from fastapi_proxy_di.transport.dialling.race import connect_first
from fastapi_proxy_di.transport.dialling.resolver import numeric_addresses
from tests.support.servers import blackhole
from tests.transport.loops import on_every_loop


@on_every_loop
async def test_silent_address_costs_a_quarter_of_a_second() -> None:
    """The Connection Attempt Delay of RFC 8305 section 8; the best of three."""
    times = []
    with blackhole() as silent, socket.create_server(("127.0.0.1", 0)) as alive:
        addresses = [
            numeric_addresses("127.0.0.1", port)[0] for port in (silent, alive.getsockname()[1])
        ]
        for _ in range(3):
            began = time.monotonic()
            (await connect_first(addresses, [])).close()
            times.append(time.monotonic() - began)

    assert 0.24 < min(times) < 0.5
