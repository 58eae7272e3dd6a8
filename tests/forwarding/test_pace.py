"""Event streams in pauses: heartbeats to the client, and an end to silence."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Annotated, Final

import pytest
from fastapi import Depends, FastAPI, Request

from fastapi_proxy_di import Balancer, ProxiedResponse, Upstream
from fastapi_proxy_di.forwarding.pace import HEARTBEAT
from tests.forwarding.asgi_server import asgi_gateway
from tests.support.engines import engine, stream_head
from tests.support.gateways import gateway, until
from tests.support.http_client import Client, connect, fetch, request
from tests.support.origins import Connection, ScriptedOrigin, always, chunk

pytestmark = pytest.mark.e2e

EVENT: Final = b"data: hello\n\n"
BEATS: Final = {"heartbeat": 0.05}


class Engine:
    """Sends what a test gives it, piece by piece.

    Attributes:
        pieces: What is sent next; ``None`` ends the body.
    """

    def __init__(self, *headers: tuple[bytes, bytes]) -> None:
        self.pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._headers = headers

    async def __call__(self, connection: Connection) -> None:
        """Respond to one request."""
        await connection.read_request()
        await connection.send(stream_head(*self._headers))
        while (piece := await self.pieces.get()) is not None:
            await connection.send(chunk(piece))
        await connection.send(chunk(b""))
        await connection.read_request()


async def begun(client: Client, target: str = "/billing/x") -> None:
    """Send a request and read the head of its response."""
    await client.send(request(target=target))
    assert (await client.read_head()).status in {200, 201}


async def sends_nothing(client: Client, seconds: float = 0.2) -> bool:
    """Whether nothing comes for some time."""
    reading = asyncio.create_task(client.reader.read(1))
    done, _ = await asyncio.wait([reading], timeout=seconds)
    reading.cancel()
    await asyncio.wait([reading])
    return not done


async def first_of(client: Client, expected: bytes) -> None:
    """Read chunks until one is no heartbeat, and check it."""
    while (piece := await client.read_chunk()) == HEARTBEAT:
        pass
    assert piece == expected


async def test_heartbeat_comes_in_pauses_between_events() -> None:
    """Before the first event and after it, again and again, and never within one."""
    script = Engine()
    async with (
        ScriptedOrigin(script) as origin,
        gateway(origin.url, streams=BEATS) as gate,
        connect(gate.address) as client,
    ):
        await begun(client)
        assert [await client.read_chunk() for _ in range(3)] == [HEARTBEAT] * 3
        script.pieces.put_nowait(EVENT)
        await first_of(client, EVENT)
        assert await client.read_chunk() == HEARTBEAT
        script.pieces.put_nowait(None)
        await first_of(client, b"")


@pytest.mark.parametrize("part", [b"da", b"data: a\n", b"data: a\r\n", b": a\n", b"\xef\xbb"])
async def test_heartbeat_never_comes_within_an_event(part: bytes) -> None:
    """Nothing is sent until the event has ended."""
    script = Engine()
    script.pieces.put_nowait(EVENT + part)
    async with (
        ScriptedOrigin(script) as origin,
        gateway(origin.url, streams=BEATS) as gate,
        connect(gate.address) as client,
    ):
        await begun(client)
        assert await client.read_chunk() == EVENT + part
        assert await sends_nothing(client)


@pytest.mark.parametrize(
    "pieces",
    [[b"\xef\xbb\xbfdata: a\n\n"], [b"\xef", b"\xbb", b"\xbfdata: a\n\n"], [b"data: a\n\n"]],
)
async def test_byte_order_mark_behind_a_heartbeat_is_removed(pieces: list[bytes]) -> None:
    """It means nothing there, and would be read as part of the first field."""
    script = Engine()
    async with (
        ScriptedOrigin(script) as origin,
        gateway(origin.url, streams=BEATS) as gate,
        connect(gate.address) as client,
    ):
        await begun(client)
        assert await client.read_chunk() == HEARTBEAT
        for piece in pieces:
            script.pieces.put_nowait(piece)
        await first_of(client, b"data: a\n\n")


async def test_part_of_a_mark_at_the_end_of_a_stream_is_passed_on() -> None:
    """Every other byte is."""
    script = Engine()
    async with (
        ScriptedOrigin(script) as origin,
        gateway(origin.url, streams=BEATS) as gate,
        connect(gate.address) as client,
    ):
        await begun(client)
        assert await client.read_chunk() == HEARTBEAT
        script.pieces.put_nowait(b"\xef\xbb")
        script.pieces.put_nowait(None)
        await first_of(client, b"\xef\xbb")


WITHOUT: Final[dict[str, bytes]] = {
    "a length": b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\nContent-Length: 50\r\n\r\n",
    "a coding": stream_head((b"Content-Encoding", b"gzip")),
    "an unknown coding": stream_head((b"Content-Encoding", b"x")),
    "another status": stream_head(status=201),
    "another type": b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n",
}


@pytest.mark.parametrize("head", WITHOUT.values(), ids=WITHOUT)
async def test_other_responses_have_no_heartbeats(head: bytes) -> None:
    """Their bytes are not ours to add to."""

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(head)
        await connection.peer_left()

    async with (
        ScriptedOrigin(script) as origin,
        gateway(origin.url, streams=BEATS) as gate,
        connect(gate.address) as client,
    ):
        await begun(client)
        assert await sends_nothing(client)


async def test_endpoint_that_sets_a_length_gets_no_heartbeats() -> None:
    """The headers count as they are sent."""
    app = FastAPI()

    @app.get("/stream")
    async def stream(
        balancer: Annotated[Balancer, Depends(Upstream("billing"))], request: Request
    ) -> ProxiedResponse:
        response = await balancer.forward(request, path="/x")
        response.headers["content-length"] = str(len(EVENT))
        return response

    script = Engine()
    async with (
        ScriptedOrigin(script) as origin,
        gateway(origin.url, app=app, streams=BEATS) as gate,
        connect(gate.address) as client,
    ):
        await begun(client, "/stream")
        assert await sends_nothing(client)
        script.pieces.put_nowait(EVENT)
        script.pieces.put_nowait(None)
        assert await client.reader.readexactly(len(EVENT)) == EVENT


async def test_heartbeats_reset_no_timeout() -> None:
    """``timeouts.activity`` still ends a silent stream, which is broken for the client."""
    async with (
        ScriptedOrigin(engine(EVENT, then="stall")) as origin,
        gateway(origin.url, streams=BEATS, timeouts={"activity": 0.5}) as gate,
    ):
        reply = await fetch(gate.address, "GET", "/billing/x")

    assert not reply.whole
    assert reply.body.startswith(EVENT + HEARTBEAT)
    assert reply.body.replace(HEARTBEAT, b"") == EVENT


async def test_client_that_leaves_between_heartbeats_ends_the_stream_upstream() -> None:
    """At once."""
    async with (
        ScriptedOrigin(engine(then="stall")) as origin,
        gateway(origin.url, streams=BEATS) as gate,
    ):
        async with connect(gate.address) as client:
            await begun(client)
            assert await client.read_chunk() == HEARTBEAT
            client.close()
            await origin.all_left()
        await until(lambda: gate.in_flight == 0)
        assert gate.balancer.available == gate.balancer.destinations


async def test_stream_that_breaks_is_broken_behind_heartbeats() -> None:
    """It is never ended cleanly."""
    go = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(stream_head() + chunk(EVENT))
        await go.wait()

    async with (
        ScriptedOrigin(script) as origin,
        gateway(origin.url, streams=BEATS) as gate,
        connect(gate.address) as client,
    ):
        await begun(client)
        assert [await client.read_chunk() for _ in range(2)] == [EVENT, HEARTBEAT]
        go.set()
        with pytest.raises(EOFError):
            await first_of(client, b"")


async def test_trailers_of_a_stream_are_passed_on() -> None:
    """As those of other responses, to a server that takes them."""
    head = stream_head((b"Trailer", b"x-count"))
    reply = head + chunk(EVENT) + b"0\r\nX-Count: 1\r\n\r\n"
    async with (
        ScriptedOrigin(always(reply)) as origin,
        asgi_gateway(
            origin.url, extensions=["http.response.trailers"], streams={"heartbeat": 30}
        ) as server,
    ):
        messages = await server.get()

    assert messages[-1]["headers"] == [(b"x-count", b"1")]


async def test_response_that_was_closed_is_not_sent() -> None:
    """It says so, as other responses do."""
    app = FastAPI()

    @app.get("/stream")
    async def stream(
        balancer: Annotated[Balancer, Depends(Upstream("billing"))], request: Request
    ) -> str:
        response = await balancer.forward(request, path="/x")
        await response.aclose()
        with pytest.raises(RuntimeError, match="closed already"):
            await response(request.scope, request.receive, sent.append)  # type: ignore[arg-type]
        return "ok"

    sent: list[object] = []
    async with (
        ScriptedOrigin(engine(EVENT)) as origin,
        gateway(origin.url, app=app, streams=BEATS) as gate,
    ):
        reply = await fetch(gate.address, "GET", "/stream")

    assert (reply.status, sent) == (200, [])


@pytest.mark.slow
async def test_many_streams_are_whole_and_those_abandoned_end_at_once() -> None:
    """200 streams in one process; 50 clients leave, the others get each event once."""
    flow = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(stream_head() + chunk(EVENT))
        if connection.number <= 50:
            await connection.peer_left()
            return
        await flow.wait()
        await connection.send(chunk(EVENT) + chunk(b""))
        await connection.read_request()

    async with (
        ScriptedOrigin(script) as origin,
        gateway(origin.url, streams={"first_event": 9, "idle": 9, "heartbeat": 0.1}) as gate,
    ):

        async def stream() -> bytes:
            reply = await fetch(gate.address, "GET", "/billing/x")
            assert reply.whole
            return reply.body

        async with contextlib.AsyncExitStack() as stack:
            leaving = [await stack.enter_async_context(connect(gate.address)) for _ in range(50)]
            for client in leaving:
                await begun(client)
            staying = [asyncio.create_task(stream()) for _ in range(150)]
            await until(lambda: origin.open_connections == 200)
            for client in leaving:
                client.reset()
            await until(lambda: gate.in_flight == 150, 1.0)
        flow.set()
        bodies = await asyncio.gather(*staying)

    assert {body.replace(HEARTBEAT, b"") for body in bodies} == {EVENT + EVENT}
