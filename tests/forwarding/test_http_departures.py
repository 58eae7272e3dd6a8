"""Clients that leave, timed and counted: gone within 100 ms of the word, nothing stays behind."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
from pathlib import Path

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_proxy_di import Upstream
from tests.support.gateways import Gateway, gateway, gateway_app, until
from tests.support.http_client import Client, connect, request
from tests.support.origins import Connection, ScriptedOrigin, chunk
from tests.support.servers import blackhole, run_app

_SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_ENDLESS = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (1 << 40)
_PHASES = ["uploading", "thinking", "body", "events"]
_LIMIT_SECONDS = 0.1
_TIMED = 5
_WAVES = 20
_AT_ONCE = 20
_PATIENCE_SECONDS = 10.0


class _Told:
    """An app that notes when the server says that a client has left."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.times: list[float] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        heard = False

        async def told() -> Message:
            nonlocal heard
            message = await receive()
            if message["type"] == "http.disconnect" and not heard:
                heard = True
                self.times.append(asyncio.get_running_loop().time())
            return message

        await self._app(scope, told, send)


class _Origin:
    """Takes every request as far as its path says, then waits for the end.

    Attributes:
        arrived: Released as a request is there, as far as it comes.
        ends: When connections ended.
    """

    def __init__(self) -> None:
        self.arrived = asyncio.Semaphore(0)
        self.ends: list[float] = []

    async def __call__(self, connection: Connection) -> None:
        received = await connection.read_head()
        if received.target == b"/uploading":
            await connection.reader.readexactly(5)
        self.arrived.release()
        try:
            if received.target == b"/events":
                await connection.send(_SSE + chunk(b"data: 1\n\n"))
            if received.target == b"/body":
                await connection.send(_ENDLESS)
                while True:
                    await connection.send(bytes(65536))
            await connection.peer_left()
        finally:
            self.ends.append(asyncio.get_running_loop().time())


async def _come_as_far_as(phase: str, client: Client, arrived: asyncio.Semaphore) -> None:
    """Send a request and wait until it is amid its phase."""
    framing = [(b"Content-Length", b"9")] if phase == "uploading" else []
    piece = b"hello" if framing else b""
    await client.send(request("POST", f"/billing/{phase}", framing) + piece)
    async with asyncio.timeout(_PATIENCE_SECONDS):
        await arrived.acquire()
    if phase in ("body", "events"):
        await client.read_head()
        await client.reader.readexactly(9)


def _median_delay(words: list[float], ends: list[float]) -> float:
    """The median, for a pause of the machine's is not the gateway's."""
    return statistics.median(end - word for word, end in zip(words, ends, strict=True))


@pytest.mark.parametrize("middlewares", [0, 1, 2])
@pytest.mark.parametrize("phase", _PHASES)
async def test_exchange_ends_within_100_ms_of_the_word(phase: str, middlewares: int) -> None:
    """From the server's ``http.disconnect`` to the end that the destination sees."""
    script = _Origin()
    async with ScriptedOrigin(script) as origin:
        told = _Told(gateway_app(origin.url, middlewares=middlewares))
        async with run_app(told) as running:
            for count in range(1, _TIMED + 1):
                async with connect(running.address) as client:
                    await _come_as_far_as(phase, client, script.arrived)
                    client.reset()
                    await origin.all_left()
                assert len(told.times) == len(script.ends) == count

    assert _median_delay(told.times, script.ends) < _LIMIT_SECONDS


@pytest.mark.parametrize("middlewares", [0, 1, 2])
async def test_dial_ends_within_100_ms_of_the_word(middlewares: int) -> None:
    """A host that swallows our SYN is not waited for any longer."""
    ends: list[float] = []
    with blackhole() as port:
        app = gateway_app(f"http://127.0.0.1:{port}", middlewares=middlewares)
        told = _Told(app)
        async with run_app(told) as running:
            (destination,) = Upstream("billing").of(app).destinations
            for _ in range(_TIMED):
                async with connect(running.address) as client:
                    await client.send(request(target="/billing/x"))
                    await until(lambda: destination.in_flight == 1, _PATIENCE_SECONDS)
                    client.reset()
                    await until(lambda: destination.in_flight == 0, _PATIENCE_SECONDS)
                    ends.append(asyncio.get_running_loop().time())

    assert _median_delay(told.times, ends) < _LIMIT_SECONDS


async def test_two_thousand_that_leave_leave_nothing_behind() -> None:
    """In five phases, closing and resetting in turn: no task, no socket, no count is left."""
    script = _Origin()
    with blackhole() as port:
        async with (
            ScriptedOrigin(script) as origin,
            gateway(origin.url) as gate,
            gateway(f"http://127.0.0.1:{port}") as stuck,
        ):
            tasks, descriptors = asyncio.all_tasks(), _descriptors()
            for wave in range(_WAVES):
                for phase in _PHASES:
                    await _come_and_leave(gate, phase, script.arrived, resets=bool(wave % 2))
                await _come_and_leave(stuck, "connecting", None, resets=bool(wave % 2))
            await origin.all_left()
            await until(lambda: asyncio.all_tasks() <= tasks, _PATIENCE_SECONDS)
            await until(lambda: _descriptors() == descriptors, _PATIENCE_SECONDS)
            async with connect(gate.address) as client:
                await _come_as_far_as("events", client, script.arrived)
            failures = [
                destination.failures
                for one in (gate, stuck)
                for destination in one.balancer.destinations
            ]

    assert _WAVES * _AT_ONCE * (len(_PHASES) + 1) == 2000
    assert len(origin.requests) == origin.connections == _WAVES * _AT_ONCE * len(_PHASES) + 1
    assert failures == [0, 0]


async def _come_and_leave(
    gate: Gateway, phase: str, arrived: asyncio.Semaphore | None, *, resets: bool
) -> None:
    """Let a wave of clients come as far as their phase and leave at once."""
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connect(gate.address)) for _ in range(_AT_ONCE)]
        for client in clients:
            if arrived is None:
                await client.send(request(target="/billing/x"))
            else:
                await _come_as_far_as(phase, client, arrived)
        await until(lambda: gate.in_flight == _AT_ONCE, _PATIENCE_SECONDS)
        for client in clients:
            if resets:
                client.reset()
            else:
                client.close()
    await until(lambda: gate.in_flight == 0, _PATIENCE_SECONDS)


def _descriptors() -> int:
    """How many files and sockets this process has open."""
    return len(list(Path("/dev/fd").iterdir()))
