"""Disconnects of clients in any phase: the exchange ends at once, and no failure is counted."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from tests.support.gateways import Gateway, gateway, until
from tests.support.http_client import Client, connect, request
from tests.support.origins import Connection, ScriptedOrigin, chunk
from tests.support.servers import blackhole

pytestmark = pytest.mark.e2e


_LEAVE: dict[str, Callable[[Client], None]] = {"close": Client.close, "reset": Client.reset}
_SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(autouse=True)
def _no_complaint(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)


async def _run(
    script: Callable[[Connection], Awaitable[None]],
    phase: Callable[[Client], Awaitable[None]],
    leave: str,
    middlewares: int,
    caplog: pytest.LogCaptureFixture,
) -> ScriptedOrigin:
    """Let a client disconnect in ``phase``; the origin must see the close."""
    async with (
        ScriptedOrigin(script) as origin,
        gateway(origin.url, middlewares=middlewares) as gate,
    ):
        async with connect(gate.address) as client:
            await phase(client)
            _LEAVE[leave](client)
            await origin.all_left()
        await _untouched(gate)
    assert [record.getMessage() for record in caplog.records] == []
    return origin


async def _untouched(gate: Gateway) -> None:
    """Check that nothing is in flight and every destination may still be picked."""
    await until(lambda: gate.in_flight == 0)
    assert gate.balancer.available == gate.balancer.destinations


@pytest.mark.parametrize("leave", _LEAVE)
@pytest.mark.parametrize("middlewares", [0, 1, 2])
async def test_client_leaves_before_the_first_byte(
    leave: str, middlewares: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A destination that has not responded yet sees the close."""
    arrived = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.read_request()
        arrived.set()
        await connection.peer_left()

    async def phase(client: Client) -> None:
        await client.send(request(target="/billing/x"))
        await arrived.wait()

    origin = await _run(script, phase, leave, middlewares, caplog)

    assert len(origin.requests) == 1


@pytest.mark.parametrize("leave", _LEAVE)
@pytest.mark.parametrize("middlewares", [0, 1, 2])
async def test_client_leaves_before_the_first_byte_after_its_upload(
    leave: str, middlewares: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The same after the whole body was sent."""
    arrived = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.read_request()
        arrived.set()
        await connection.peer_left()

    async def phase(client: Client) -> None:
        await client.send(request("POST", "/billing/x", body=b"hello" * 50_000))
        await arrived.wait()

    origin = await _run(script, phase, leave, middlewares, caplog)

    assert len(origin.requests) == 1


@pytest.mark.parametrize("leave", _LEAVE)
@pytest.mark.parametrize("middlewares", [0, 1, 2])
@pytest.mark.parametrize(
    "framing", [(b"Content-Length", b"10"), (b"Transfer-Encoding", b"chunked")]
)
async def test_client_leaves_during_its_upload(
    framing: tuple[bytes, bytes], leave: str, middlewares: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The destination does not see a complete upload."""
    arrived = asyncio.Event()

    async def script(connection: Connection) -> None:
        received = await connection.read_head()
        arrived.set()
        await connection.read_body(received)

    async def phase(client: Client) -> None:
        piece = b"hello" if framing[0] == b"Content-Length" else chunk(b"hello")
        await client.send(request("POST", "/billing/x", [framing]) + piece)
        await arrived.wait()

    origin = await _run(script, phase, leave, middlewares, caplog)

    assert not origin.request.complete


@pytest.mark.parametrize("leave", _LEAVE)
@pytest.mark.parametrize("middlewares", [0, 1, 2])
async def test_client_leaves_during_an_idle_event_stream(
    leave: str, middlewares: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A silent stream is ended, too."""

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(_SSE + chunk(b"data: 1\n\n"))
        await connection.peer_left()

    async def phase(client: Client) -> None:
        await client.send(request(target="/billing/x"))
        await client.read_head()
        await client.read_chunk()

    await _run(script, phase, leave, middlewares, caplog)


@pytest.mark.parametrize("leave", _LEAVE)
@pytest.mark.parametrize("middlewares", [0, 1, 2])
async def test_client_leaves_during_a_large_response(
    leave: str, middlewares: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A download that waits for the client is ended."""

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (1 << 40))
        while True:
            await connection.send(bytes(65536))

    async def phase(client: Client) -> None:
        await client.send(request(target="/billing/x"))
        await client.read_head()
        await client.reader.readexactly(100_000)

    await _run(script, phase, leave, middlewares, caplog)


@pytest.mark.parametrize("leave", _LEAVE)
@pytest.mark.parametrize("middlewares", [0, 1])
async def test_client_leaves_during_the_dial(
    leave: str, middlewares: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The dial to a host that drops our SYN is cancelled."""
    with blackhole() as port:
        async with (
            gateway(f"http://127.0.0.1:{port}", middlewares=middlewares) as gate,
            connect(gate.address) as client,
        ):
            await client.send(request(target="/billing/x"))
            await until(lambda: gate.in_flight == 1)
            _LEAVE[leave](client)
            await _untouched(gate)

    assert [record.getMessage() for record in caplog.records] == []
