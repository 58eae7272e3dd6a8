"""WebSockets to in-process apps."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket
from starlette.types import Message, Receive, Scope, Send
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection

from fastapi_proxy_di import Upstream
from fastapi_proxy_di.transport.asgi.websocket import AsgiWebSocket
from fastapi_proxy_di.wire.close import Close
from tests.support.gateways import gateway, until
from tests.support.websocket_client import Closed, open_websocket
from tests.transport.asgi.apps import Inner, body, closing, plain, raises, start, talk

pytestmark = pytest.mark.e2e


async def test_asgi_websocket_drops_messages_after_its_end() -> None:
    """The end is given by ``recv``, which keeps the first end only."""
    channel = AsgiWebSocket()
    channel.start_close(Close())
    channel.app_ended("raised", LookupError())
    await channel.send("late")

    assert (await channel.recv(), channel.sent_messages) == (None, 0)
    assert (channel.close_code, channel.error) == (1005, None)


async def test_asgi_abort_ends_a_waiting_send() -> None:
    """``send`` raises for a message that no one will read."""
    channel = AsgiWebSocket()
    sending = asyncio.create_task(channel.take_from_app({"type": "websocket.send", "text": "x"}))
    await asyncio.sleep(0)
    channel.abort()
    with pytest.raises(OSError, match="has ended"):
        await sending


async def test_asgi_websocket_does_not_wait_for_ever_for_its_app(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An app that goes on after the end delays the client for a bounded time."""
    monkeypatch.setattr("fastapi_proxy_di.transport.asgi.websocket._CLOSE_SECONDS", 0.01)
    channel = AsgiWebSocket()
    channel.start_close(Close(1000))
    await asyncio.wait_for(channel.wait_closed(), 10)

    assert channel.close_code == 1000


async def test_asgi_websocket_works_through_the_gateway(inner: Inner) -> None:
    """Subprotocol, headers, messages of both kinds, and the client's close code."""
    ended: list[tuple[int, str]] = []
    app = FastAPI()

    @app.websocket("/ws")
    async def echo(websocket: WebSocket) -> None:
        assert websocket.scope["subprotocols"] == ["v1", "v2"]
        await websocket.accept("v2", [(b"x-server", b"inner")])
        await websocket.send_text(await websocket.receive_text())
        await websocket.send_bytes(await websocket.receive_bytes())
        message = await websocket.receive()
        ended.append((message["code"], message["reason"]))

    def say(websocket: ClientConnection) -> tuple[Any, ...]:
        assert websocket.response is not None
        websocket.send("hé")
        text = websocket.recv(timeout=10)
        websocket.send(b"\x00")
        data = websocket.recv(timeout=10)
        websocket.close(4001, "enough")
        return (websocket.subprotocol, websocket.response.headers["x-server"], text, data)

    async with gateway(inner(app)) as gate:
        heard = await talk(gate, say, offer=("v1", "v2"))
        await until(lambda: ended and not gate.in_flight)

    assert heard == ("v2", "inner", "hé", b"\x00")
    assert ended == [(4001, "enough")]


async def test_asgi_websocket_close_of_the_app_reaches_the_client(inner: Inner) -> None:
    """Code and reason arrive, after the messages before them."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "bye"})
        await send({"type": "websocket.close", "code": 4002, "reason": "done"})
        seen.append((await receive())["code"])
        for message in ({"type": "websocket.send", "text": "more"}, {"type": "websocket.close"}):
            try:
                await send(message)
            except OSError:
                seen.append(message["type"])

    seen: list[Any] = []
    async with gateway(inner(plain(handle))) as gate:
        # Not the client of websockets 12, which loses messages that arrive just before a close.
        async with open_websocket(gate.address, "/billing/ws") as websocket:
            heard = [await websocket.recv(), await websocket.recv()]
        await until(lambda: len(seen) == 3)

    assert heard == ["bye", Closed(4002, "done")]
    assert seen == [4002, "websocket.send", "websocket.close"]


@pytest.mark.parametrize(("raises", "code"), [(False, 1000), (True, 1011)])
async def test_asgi_websocket_ends_with_its_app(inner: Inner, raises: bool, code: int) -> None:
    """An app that returns closes it; an app that raises is a failure of the destination."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        if raises:
            raise LookupError

    async with gateway(inner(plain(handle))) as gate:
        closed, _ = await talk(gate, closing)
        await until(lambda: not gate.in_flight)
        failures = gate.balancer.destinations[0].failures

    assert (closed, failures) == (code, int(raises))


@pytest.mark.parametrize(
    ("messages", "status", "text"),
    [
        ([{"type": "websocket.close", "code": 1000}], 403, b""),
        (
            [
                {**start(418, (b"x-why", b"tea")), "type": "websocket.http.response.start"},
                {**body(b"short"), "type": "websocket.http.response.body"},
            ],
            418,
            b"short",
        ),
    ],
)
async def test_asgi_websocket_refusal_reaches_the_client(
    inner: Inner, messages: list[Message], status: int, text: bytes
) -> None:
    """A close before the handshake is 403, a denial response is forwarded."""
    after: list[str] = []

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        for message in messages:
            await send(message)
        after.append((await receive())["type"])

    async with gateway(inner(plain(handle))) as gate:
        with pytest.raises(InvalidStatus) as refused:
            await talk(gate, closing)
        await until(lambda: after)

    assert refused.value.response.status_code == status
    assert (refused.value.response.body or b"") == text
    assert after == ["websocket.disconnect"]


async def test_asgi_websocket_fault_before_the_handshake_is_502(inner: Inner) -> None:
    """The client is not accepted yet, so it gets a status."""
    async with gateway(inner(plain(raises))) as gate:
        with pytest.raises(InvalidStatus) as refused:
            await talk(gate, closing)

    assert refused.value.response.status_code == 502


async def test_asgi_websocket_app_may_listen_before_it_accepts(inner: Inner) -> None:
    """A waiting reader gets the first message after the handshake."""
    heard: list[Any] = []

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        reader = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        await send({"type": "websocket.accept"})
        message: Any = await reader
        heard.append(message["text"])
        with pytest.raises(RuntimeError, match=r"websocket\.accept"):
            await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})

    def say(websocket: ClientConnection) -> tuple[int, str]:
        websocket.send("first")
        return closing(websocket)

    async with gateway(inner(plain(handle))) as gate:
        close = await talk(gate, say)

    assert (heard, close) == (["first"], (1000, ""))


async def test_asgi_websocket_app_gets_1006_for_a_lost_client(inner: Inner) -> None:
    """Without a close frame the app gets 1006, and its later messages fail."""
    seen: list[Any] = []

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        seen.append((await receive())["code"])
        try:
            await send({"type": "websocket.send", "bytes": b"x"})
        except OSError:
            seen.append("OSError")

    async with gateway(inner(plain(handle))) as gate:
        await talk(gate, lambda one: one.socket.close())
        await until(lambda: len(seen) == 2 and not gate.in_flight)

    assert seen == [1006, "OSError"]


async def test_asgi_websocket_handshake_that_takes_too_long_is_ended(inner: Inner) -> None:
    """The app gets a disconnect before it has accepted, and its late response fails."""
    seen: list[Any] = []

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        seen.append((await receive())["code"])
        try:
            await send({"type": "websocket.accept"})
        except OSError:
            seen.append("OSError")

    async with gateway(inner(plain(handle)), websocket={"open_timeout": 0.05}) as gate:
        with pytest.raises(InvalidStatus) as refused:
            await talk(gate, closing)
        await until(lambda: len(seen) == 2)

    assert refused.value.response.status_code == 504
    assert seen == [1006, "OSError"]


async def test_asgi_websocket_has_backpressure_both_ways(inner: Inner) -> None:
    """A slow reader makes the other side wait."""
    sent = 0
    go_on = asyncio.Event()

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await receive()
        await send({"type": "websocket.accept"})
        await go_on.wait()
        size = 0
        for _ in range(8):
            size += len((await receive())["bytes"])
        for _ in range(64):
            await send({"type": "websocket.send", "bytes": b"x" * 65536})
            sent += 1
        await send({"type": "websocket.close", "code": 4000, "reason": str(size)})

    async with (
        gateway(inner(plain(handle))) as gate,
        open_websocket(gate.address, "/billing/ws") as websocket,
    ):
        for _ in range(8):
            await websocket.send(b"y" * 65536)
        go_on.set()
        heard = [await websocket.recv() for _ in range(64)]
        ended = await websocket.ended()

    assert heard == [b"x" * 65536] * 64
    assert ended == Closed(4000, str(8 * 65536))


async def test_asgi_websocket_message_that_is_too_big_ends_it(inner: Inner) -> None:
    """The limit of the settings applies to apps: 1009 for both sides."""
    seen: list[Any] = []

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "éé"})
        try:
            await send({"type": "websocket.send", "text": "ééé"})
        except OSError:
            seen.append((await receive())["code"])

    async with gateway(inner(plain(handle)), websocket={"max_message_bytes": 4}) as gate:
        async with open_websocket(gate.address, "/billing/ws") as websocket:
            first, ended = await websocket.recv(), await websocket.ended()
        await until(lambda: seen)

    assert (first, ended.code, seen) == ("éé", 1009, [1009])


async def test_asgi_websocket_is_drained(inner: Inner) -> None:
    """A drain closes it with 1001, without waiting for a slow app."""
    told = asyncio.Event()
    release = asyncio.Event()

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        assert (await receive())["code"] == 1001
        told.set()
        await release.wait()

    url = inner(plain(handle))
    async with gateway(url) as gate:
        tunnel = asyncio.create_task(talk(gate, closing))
        await until(lambda: gate.in_flight)
        await until(lambda: Upstream("billing").of(gate.app)._running.tunnels.count)
        await gate.balancer.drain(url, timeout=0.01)
        code, _ = await tunnel
        await told.wait()
        await until(lambda: not gate.in_flight)
        release.set()

    assert code == 1001
