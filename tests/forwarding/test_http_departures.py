"""Disconnects of clients: the exchange ends, and no task, socket or count is left."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from fastapi_proxy_di import Upstream
from tests.forwarding.departures import (
    PATIENCE_SECONDS,
    PHASES,
    DisconnectNoted,
    PhasedOrigin,
    request_up_to,
)
from tests.support.gateways import Gateway, gateway, gateway_app, until
from tests.support.http_client import connect, request
from tests.support.origins import ScriptedOrigin
from tests.support.servers import blackhole, run_app

pytestmark = pytest.mark.e2e


_WAVES = 4
_AT_ONCE = 20


@pytest.mark.parametrize("middlewares", [0, 1, 2])
@pytest.mark.parametrize("phase", PHASES)
async def test_exchange_ends_when_its_client_has_left(phase: str, middlewares: int) -> None:
    """The destination sees the close, after the server's ``http.disconnect``."""
    script = PhasedOrigin()
    async with ScriptedOrigin(script) as origin:
        noted = DisconnectNoted(gateway_app(origin.url, middlewares=middlewares))
        async with run_app(noted) as running, connect(running.address) as client:
            await request_up_to(phase, client, script.arrived)
            client.reset()
            await origin.all_left()

    assert len(noted.times) == len(script.ends) == 1
    assert noted.times <= script.ends


@pytest.mark.parametrize("middlewares", [0, 1, 2])
async def test_dial_ends_when_its_client_has_left(middlewares: int) -> None:
    """A dial to a host that drops our SYN is cancelled."""
    with blackhole() as port:
        app = gateway_app(f"http://127.0.0.1:{port}", middlewares=middlewares)
        noted = DisconnectNoted(app)
        async with run_app(noted) as running:
            (destination,) = Upstream("billing").of(app).destinations
            async with connect(running.address) as client:
                await client.send(request(target="/billing/x"))
                await until(lambda: destination.in_flight == 1, PATIENCE_SECONDS)
                client.reset()
                await until(lambda: destination.in_flight == 0, PATIENCE_SECONDS)

    assert len(noted.times) == 1


async def test_hundreds_of_disconnects_leave_nothing_behind() -> None:
    """In five phases, closing and resetting in turn."""
    script = PhasedOrigin()
    with blackhole() as port:
        async with (
            ScriptedOrigin(script) as origin,
            gateway(origin.url) as gate,
            gateway(f"http://127.0.0.1:{port}") as stuck,
        ):
            tasks, descriptors = asyncio.all_tasks(), _descriptors()
            for wave in range(_WAVES):
                for phase in PHASES:
                    await _disconnect_in_a_phase(gate, phase, script.arrived, resets=bool(wave % 2))
                await _disconnect_in_a_phase(stuck, "connecting", None, resets=bool(wave % 2))
            await origin.all_left()
            await until(lambda: asyncio.all_tasks() <= tasks, PATIENCE_SECONDS)
            await until(lambda: _descriptors() <= descriptors, PATIENCE_SECONDS)
            async with connect(gate.address) as client:
                await request_up_to("events", client, script.arrived)
            failures = [
                destination.failures
                for one in (gate, stuck)
                for destination in one.balancer.destinations
            ]

    assert len(origin.requests) == origin.connections == _WAVES * _AT_ONCE * len(PHASES) + 1
    assert failures == [0, 0]


async def _disconnect_in_a_phase(
    gate: Gateway, phase: str, arrived: asyncio.Semaphore | None, *, resets: bool
) -> None:
    """Let many clients send a request up to a phase, and disconnect at once."""
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connect(gate.address)) for _ in range(_AT_ONCE)]
        for client in clients:
            if arrived is None:
                await client.send(request(target="/billing/x"))
            else:
                await request_up_to(phase, client, arrived)
        await until(lambda: gate.in_flight == _AT_ONCE, PATIENCE_SECONDS)
        for client in clients:
            if resets:
                client.reset()
            else:
                client.close()
    await until(lambda: gate.in_flight == 0, PATIENCE_SECONDS)


def _descriptors() -> set[str]:
    """Give the open files of this process, each socket by its own number."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the directory's own
            found.add(str(entry.readlink()))
    return found
