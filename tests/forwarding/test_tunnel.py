"""Tunnels through a real server: a client in front, an upstream behind, both able to break.

The file is long because each end is shown from both sides with the same pair of peers.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import websockets
from starlette.types import Message, Receive, Scope, Send
from websockets.exceptions import ConnectionClosed

from fastapi_proxy_di.errors import UpstreamDisconnected
from fastapi_proxy_di.forwarding import tunnel as tunnel_module
from fastapi_proxy_di.forwarding.tunnel import Tunnel, TunnelEnd, WebSocketEnd
from tests.support.gateways import until
from tests.support.servers import run_app
from tests.support.websocket_dial import dial
from tests.support.websocket_frames import frame
from tests.support.websocket_origin import FramePeer, frames_from

_TEXT, _BINARY, _CLOSE = 1, 2, 8
_SERVERS = ["websockets-sansio", "wsproto"]
Script = Callable[[FramePeer], Awaitable[None]]


class _Gateway:
    """A server whose only route is a tunnel to one upstream.

    Attributes:
        url: Where clients connect.
        tunnels: Every tunnel that was opened.
        tasks: The tasks they ran in.
        ends: What each ``run`` gave or raised.
    """

    def __init__(self, upstream: tuple[str, int], options: dict[str, Any]) -> None:
        self.url = ""
        self.tunnels: list[Tunnel] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.ends: asyncio.Queue[TunnelEnd | BaseException] = asyncio.Queue()
        self._upstream = upstream
        self._options = options

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for kind in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{kind}.complete"})
            return
        await receive()
        upstream, _ = await dial(*self._upstream, **self._options)
        await send({"type": "websocket.accept"})
        tunnel = Tunnel(receive, send, upstream, name="billing")
        self.tunnels.append(tunnel)
        task = asyncio.current_task()
        assert task is not None
        self.tasks.append(task)
        try:
            self.ends.put_nowait(await tunnel.run())
        except BaseException as error:
            self.ends.put_nowait(error)
            raise

    async def end(self, seconds: float = 10.0) -> TunnelEnd:
        """Wait for the end of a tunnel; no task may be left."""
        end = await asyncio.wait_for(self.ends.get(), seconds)
        assert isinstance(end, TunnelEnd)
        assert not _copy_tasks()
        return end


def _copy_tasks() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name().startswith("websocket ")]


@contextlib.asynccontextmanager
async def _gateway(
    upstream: tuple[str, int], *, ws: str = "websockets-sansio", size: int = 2**24, **options: Any
) -> AsyncIterator[_Gateway]:
    gateway = _Gateway(upstream, options)
    async with run_app(gateway, ws=ws, ws_max_size=size, ws_ping_interval=None) as running:
        gateway.url = f"ws://{running.authority}/"
        yield gateway


@contextlib.asynccontextmanager
async def _scripted(script: Script, **options: Any) -> AsyncIterator[_Gateway]:
    async with frames_from(script) as origin, _gateway(origin.address, **options) as gateway:
        yield gateway


@contextlib.asynccontextmanager
async def _echoing(**options: Any) -> AsyncIterator[_Gateway]:
    """Run a gateway in front of the ``websockets`` server, which echoes."""

    async def echo(connection: Any) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for message in connection:
                await connection.send(message)

    async with websockets.serve(echo, "127.0.0.1", 0, max_size=None, compression=None) as server:
        host, port = next(iter(server.sockets)).getsockname()
        async with _gateway((host, port), **options) as gateway:
            yield gateway


def _connect(gateway: _Gateway, **options: Any) -> Any:
    return websockets.connect(gateway.url, max_size=None, compression=None, **options)


async def _until_left(peer: FramePeer) -> None:
    while await peer.reader.read(65536):
        pass


async def _ended(client: Any) -> tuple[int, str]:
    """Wait until the client has been closed; give its close code and reason."""
    with pytest.raises(ConnectionClosed):
        await asyncio.wait_for(client.recv(), 10)
    return client.close_code, client.close_reason


@pytest.mark.e2e
@pytest.mark.parametrize("ws", _SERVERS)
async def test_tunnel_carries_messages_of_every_kind(ws: str) -> None:
    """Text, binary, empty and fragmented messages come back whole, and are counted."""
    async with _echoing(ws=ws) as gateway, _connect(gateway) as client:
        for message in ("grüße", b"\x00\xff", "", b"", "x" * 100_000, b"y" * 70_000):
            await client.send(message)
            assert await client.recv() == message
        await client.send(["frag", "men", "ted"])
        assert await client.recv() == "fragmented"
        await client.close(1000, "done")
        end = await gateway.end()

    total = 7 + 2 + 100_000 + 70_000 + 10
    assert end == TunnelEnd(WebSocketEnd.CLIENT_CLOSED, 1000, "done", None, 7, total, 7, total)
    assert gateway.tunnels[0].end == end


@pytest.mark.e2e
async def test_tunnel_carries_a_message_above_16_mib() -> None:
    """If the server's own limit is higher, the tunnel adds none."""
    message = bytes(20 * 2**20)
    async with _echoing(size=2**25) as gateway, _connect(gateway, ping_interval=None) as client:
        await client.send(message)
        assert await asyncio.wait_for(client.recv(), 30) == message


@pytest.mark.e2e
async def test_tunnel_carries_small_messages_in_order() -> None:
    """Number and order of small messages hold in both directions."""
    expected = [str(number) for number in range(5_000)]
    async with _echoing() as gateway, _connect(gateway) as client:

        async def send() -> None:
            for message in expected:
                await client.send(message)

        sending = asyncio.create_task(send())
        assert [await client.recv() for _ in expected] == expected
        await sending


@pytest.mark.e2e
@pytest.mark.parametrize("ws", _SERVERS)
@pytest.mark.parametrize("code", [1000, 1001, 1011, 3000, 4999])
async def test_client_close_reaches_the_upstream(ws: str, code: int) -> None:
    """The upstream gets the client's code and reason, after its last message."""
    seen: list[tuple[int, bytes]] = []

    async def script(peer: FramePeer) -> None:
        seen.extend([await peer.read(), await peer.read()])

    async with _scripted(script, ws=ws) as gateway, _connect(gateway) as client:
        await client.send("last")
        await client.close(code, "bye")
        end = await gateway.end()

    assert seen == [(_TEXT, b"last"), (_CLOSE, code.to_bytes(2, "big") + b"bye")]
    assert (end.reason, end.code, end.close_reason) == (WebSocketEnd.CLIENT_CLOSED, code, "bye")


@contextlib.asynccontextmanager
async def _raw_client(gateway: _Gateway) -> AsyncIterator[socket.socket]:
    """Open a WebSocket on a raw socket."""
    host, _, port = gateway.url.removeprefix("ws://").rstrip("/").partition(":")
    loop = asyncio.get_running_loop()
    with socket.socket() as raw:
        raw.setblocking(False)
        await loop.sock_connect(raw, (host, int(port)))
        await loop.sock_sendall(
            raw,
            b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
            b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n",
        )
        assert (await loop.sock_recv(raw, 12)) == b"HTTP/1.1 101"
        await until(lambda: len(gateway.tunnels) == 1)
        yield raw


@pytest.mark.e2e
@pytest.mark.parametrize("ws", _SERVERS)
@pytest.mark.parametrize("how", ["reset", "end"])
async def test_lost_client_breaks_off_the_upstream(ws: str, how: str) -> None:
    """Within a second the upstream's connection breaks, without a close frame."""
    left = asyncio.Event()
    rest = b""

    async def script(peer: FramePeer) -> None:
        nonlocal rest
        with contextlib.suppress(ConnectionError):
            rest = await peer.reader.read()
        left.set()

    async with _scripted(script, ws=ws) as gateway, _raw_client(gateway) as raw:
        if how == "reset":
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raw.close()
        else:
            raw.shutdown(socket.SHUT_WR)
        end = await gateway.end(1.0)
        await asyncio.wait_for(left.wait(), 10)

    assert rest == b""
    assert (end.reason, end.code) == (WebSocketEnd.CLIENT_VANISHED, 1006)


@pytest.mark.e2e
@pytest.mark.parametrize("ws", _SERVERS)
@pytest.mark.parametrize(
    ("payload", "code", "reason", "noted"),
    [
        (b"\x03\xe8bye", 1000, "bye", 1000),
        (b"\x03\xe9", 1001, "", 1001),
        (b"\x0b\xb8", 3000, "", 3000),
        (b"\x13\x87x", 4999, "x", 4999),
        (b"", 1000, "", 1005),
    ],
)
async def test_upstream_close_reaches_the_client(
    ws: str, payload: bytes, code: int, reason: str, noted: int
) -> None:
    """The client gets the upstream's code and reason after its last message."""

    async def script(peer: FramePeer) -> None:
        peer.writer.write(frame(_TEXT, b"last") + frame(_CLOSE, payload))
        assert await peer.read() == (_CLOSE, payload)

    async with _scripted(script, ws=ws) as gateway, _connect(gateway) as client:
        assert await client.recv() == "last"
        assert await _ended(client) == (code, reason)
        end = await gateway.end()

    assert (end.reason, end.code) == (WebSocketEnd.UPSTREAM_CLOSED, noted)
    assert end.error is None


@pytest.mark.e2e
@pytest.mark.parametrize("how", ["reset", "end"])
async def test_lost_upstream_closes_the_client_with_1014(how: str) -> None:
    """1014 is a bad gateway; within a second."""

    async def script(peer: FramePeer) -> None:
        await peer.read()
        if how == "reset":
            peer.reset()

    async with _scripted(script) as gateway, _connect(gateway) as client:
        await client.send("go")
        assert await asyncio.wait_for(_ended(client), 10) == (1014, "upstream disconnected")
        end = await gateway.end(1.0)

    assert (end.reason, end.code) == (WebSocketEnd.UPSTREAM_VANISHED, 1006)
    assert isinstance(end.error, UpstreamDisconnected)


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("frames", "code", "reason"),
    [
        (frame(_TEXT, b"\xff"), 1007, WebSocketEnd.INVALID_DATA),
        (frame(_BINARY, b"x" * 1025), 1009, WebSocketEnd.MESSAGE_TOO_BIG),
        (b"\xf1\x00", 1014, WebSocketEnd.UPSTREAM_PROTOCOL_ERROR),
    ],
)
async def test_fault_of_the_upstream_reaches_the_client(
    frames: bytes, code: int, reason: WebSocketEnd
) -> None:
    """Invalid data has its own close code; a broken protocol is a bad gateway."""

    async def script(peer: FramePeer) -> None:
        peer.writer.write(frames)
        await _until_left(peer)

    async with (
        _scripted(script, max_message_bytes=1024) as gateway,
        _connect(gateway) as client,
    ):
        assert (await _ended(client))[0] == code
        end = await gateway.end()

    assert end.reason is reason
    assert end.error is not None


@pytest.mark.e2e
async def test_silent_upstream_ends_the_tunnel() -> None:
    """A dead peer is found by its missing pong."""
    async with (
        _scripted(_until_left, ping_interval=0.02, ping_timeout=0.02) as gateway,
        _connect(gateway) as client,
    ):
        assert await _ended(client) == (1014, "upstream ping timeout")
        end = await gateway.end()

    assert end.reason is WebSocketEnd.UPSTREAM_PING_TIMEOUT


@pytest.mark.e2e
@pytest.mark.parametrize("message", ["x" * 1025, "ü" * 513, b"x" * 1025])
async def test_client_message_over_the_limit_closes_both_with_1009(message: str | bytes) -> None:
    """``max_message_bytes`` counts bytes, and also limits the client."""
    seen: list[tuple[int, bytes]] = []

    async def script(peer: FramePeer) -> None:
        while not seen or seen[-1][0] != _CLOSE:
            seen.append(await peer.read())

    async with (
        _scripted(script, max_message_bytes=1024) as gateway,
        _connect(gateway) as client,
    ):
        await client.send("ü" * 512)
        await client.send(message)
        assert await _ended(client) == (1009, "message too big")
        end = await gateway.end()

    assert seen == [(_TEXT, "ü".encode() * 512), (_CLOSE, b"\x03\xf1message too big")]
    assert end.reason is WebSocketEnd.MESSAGE_TOO_BIG


@pytest.mark.e2e
async def test_close_ends_a_running_tunnel_on_both_sides() -> None:
    """A drain closes remaining tunnels after its time."""
    seen: list[tuple[int, bytes]] = []

    async def script(peer: FramePeer) -> None:
        seen.append(await peer.read())

    async with _scripted(script) as gateway, _connect(gateway) as client:
        await until(lambda: len(gateway.tunnels) == 1)
        gateway.tunnels[0].close(1012, "draining")
        assert await _ended(client) == (1012, "draining")
        end = await gateway.end()

    assert seen == [(_CLOSE, b"\x03\xf4draining")]
    assert (end.reason, end.code) == (WebSocketEnd.DRAINED, 1012)


@pytest.mark.e2e
async def test_cancellation_closes_both_sides_with_1012_and_is_raised() -> None:
    """The task ends cancelled, and nothing is left."""
    seen: list[tuple[int, bytes]] = []

    async def script(peer: FramePeer) -> None:
        seen.append(await peer.read())

    async with _scripted(script) as gateway, _connect(gateway) as client:
        await until(lambda: len(gateway.tunnels) == 1)
        gateway.tasks[0].cancel()
        assert await _ended(client) == (1012, "")
        raised = await asyncio.wait_for(gateway.ends.get(), 10)

    assert isinstance(raised, asyncio.CancelledError)
    assert seen == [(_CLOSE, b"\x03\xf4")]
    end = gateway.tunnels[0].end
    assert end is not None
    assert end.reason is WebSocketEnd.SHUTDOWN
    assert not _copy_tasks()


@pytest.mark.e2e
@pytest.mark.parametrize("ws", _SERVERS)
async def test_server_shutdown_closes_both_sides_with_1012(ws: str) -> None:
    """When uvicorn stops, the upstream is closed as well."""
    seen: list[tuple[int, bytes]] = []

    async def script(peer: FramePeer) -> None:
        seen.append(await peer.read())

    async with frames_from(script) as origin:
        async with _gateway(origin.address, ws=ws) as gateway:
            client = await _connect(gateway)
            await until(lambda: len(gateway.tunnels) == 1)
        assert await _ended(client) == (1012, "")
        end = await gateway.end()

    assert seen == [(_CLOSE, b"\x03\xf4")]
    assert end.reason is WebSocketEnd.SHUTDOWN


@pytest.mark.e2e
async def test_slow_client_stops_the_upstream() -> None:
    """A client that does not read stops an endless upstream after a bounded amount."""
    sent = 0

    async def script(peer: FramePeer) -> None:
        nonlocal sent
        while True:
            peer.send(_BINARY, b"x" * 10_000)
            await peer.writer.drain()
            sent += 10_000

    async with _scripted(script) as gateway, _raw_client(gateway) as raw:
        await _stalled(lambda: sent)
        before = sent
        assert before < 50_000_000
        taken = 0
        while taken < before:
            taken += len(await asyncio.get_running_loop().sock_recv(raw, 2**16))
        await until(lambda: sent > before)


@pytest.mark.e2e
async def test_slow_upstream_stops_the_client() -> None:
    """An upstream that does not read stops an endless client, and then gets it all."""
    go = asyncio.Event()
    total = 0

    async def script(peer: FramePeer) -> None:
        nonlocal total
        await go.wait()
        while (received := await peer.read())[0] == _BINARY:
            total += len(received[1])

    async with _scripted(script) as gateway, _connect(gateway) as client:
        sent = 0

        async def send() -> None:
            nonlocal sent
            for _ in range(3000):
                await client.send(b"x" * 20_000)
                sent += 20_000

        sending = asyncio.create_task(send())
        await _stalled(lambda: sent)
        assert sent < 60_000_000
        go.set()
        await asyncio.wait_for(sending, 20)
        await client.close()
        await gateway.end(10)

    assert total == 60_000_000


async def _stalled(progress: Callable[[], int]) -> None:
    """Wait until a counter that has begun to grow stops."""
    await until(lambda: progress() > 0)
    still, before = 0, -1
    while still < 20:
        await asyncio.sleep(0.01)
        still = still + 1 if progress() == before else 0
        before = progress()


# What no real server does on demand: a client in the shape of two functions.


class _Client:
    """The client's side of ASGI, with given messages to receive, and recorded messages sent."""

    def __init__(self, *messages: Message) -> None:
        self.inbox: asyncio.Queue[Message | BaseException] = asyncio.Queue()
        for message in messages:
            self.inbox.put_nowait(message)
        self.got: list[Message] = []
        self.on_send: Callable[[Message], Awaitable[None]] | None = None

    async def receive(self) -> Message:
        message = await self.inbox.get()
        if isinstance(message, BaseException):
            raise message
        return message

    async def send(self, message: Message) -> None:
        if self.on_send is not None:
            await self.on_send(message)
        self.got.append(message)


@contextlib.asynccontextmanager
async def _by_hand(client: _Client, script: Script) -> AsyncIterator[Tunnel]:
    async with frames_from(script) as origin:
        upstream, _ = await dial(*origin.address)
        yield Tunnel(client.receive, client.send, upstream)
        assert not _copy_tasks()


async def test_both_forms_of_a_received_message_are_read() -> None:
    """Servers may give one key, or both with one of them ``None``."""
    seen: list[tuple[int, bytes]] = []

    async def script(peer: FramePeer) -> None:
        while not seen or seen[-1][0] != _CLOSE:
            seen.append(await peer.read())

    client = _Client(
        {"type": "websocket.receive", "text": "a", "bytes": None},
        {"type": "websocket.receive", "text": None, "bytes": b"b"},
        {"type": "websocket.receive", "text": "", "bytes": None},
        {"type": "websocket.receive", "bytes": b""},
        {"type": "websocket.disconnect", "code": 4000, "reason": None},
    )
    async with _by_hand(client, script) as tunnel:
        end = await tunnel.run()

    assert seen == [(1, b"a"), (2, b"b"), (1, b""), (2, b""), (8, b"\x0f\xa0")]
    assert (end.code, end.upward_messages) == (4000, 4)


async def _floods(peer: FramePeer) -> None:
    """Run an upstream that sends without end."""
    while True:
        peer.send(_TEXT, b"x" * 1000)
        await peer.writer.drain()


async def test_close_code_is_read_after_a_failed_send() -> None:
    """``receive`` still has the code, after the last messages."""
    seen: list[tuple[int, bytes]] = []

    async def script(peer: FramePeer) -> None:
        peer.send(_TEXT, b"into the void")
        seen.extend([await peer.read(), await peer.read()])

    client = _Client()

    async def left(message: Message) -> None:
        client.inbox.put_nowait({"type": "websocket.receive", "text": "last"})
        client.inbox.put_nowait({"type": "websocket.disconnect", "code": 1001, "reason": ""})
        raise OSError

    client.on_send = left
    async with _by_hand(client, script) as tunnel:
        end = await tunnel.run()

    assert seen == [(_TEXT, b"last"), (_CLOSE, b"\x03\xe9")]
    assert (end.reason, end.code) == (WebSocketEnd.CLIENT_CLOSED, 1001)


async def test_silent_receive_after_a_failed_send_ends_the_tunnel() -> None:
    """Within about a second."""

    async def left(message: Message) -> None:
        raise RuntimeError("closed")

    client = _Client()
    client.on_send = left
    async with _by_hand(client, _floods) as tunnel:
        end = await asyncio.wait_for(tunnel.run(), 10)

    assert end.reason is WebSocketEnd.CLIENT_VANISHED
    assert client.got == []


async def test_close_before_run_ends_at_once() -> None:
    """A drain may come between the handshake and the first message."""
    client = _Client()
    async with _by_hand(client, _until_left) as tunnel:
        tunnel.close()
        end = await tunnel.run()

    assert client.got == [{"type": "websocket.close", "code": 1001, "reason": ""}]
    assert end.reason is WebSocketEnd.DRAINED


async def test_cancellation_of_a_drain_keeps_its_code() -> None:
    """The first end is kept; the task is cancelled nevertheless."""
    client = _Client()
    async with _by_hand(client, _until_left) as tunnel:
        running = asyncio.create_task(tunnel.run())
        await asyncio.sleep(0)
        tunnel.close(4000)
        running.cancel()
        await asyncio.wait({running})

    assert running.cancelled()
    assert client.got == [{"type": "websocket.close", "code": 4000, "reason": ""}]


async def test_close_does_not_wait_for_a_slow_client() -> None:
    """A client that is too slow for its last message does not delay a drain."""
    held = asyncio.Event()

    async def hold(message: Message) -> None:
        held.set()
        await asyncio.Event().wait()

    async def script(peer: FramePeer) -> None:
        peer.send(_CLOSE, b"\x03\xe8")
        await _until_left(peer)

    client = _Client()
    client.on_send = hold
    async with _by_hand(client, script) as tunnel:
        running = asyncio.create_task(tunnel.run())
        await held.wait()
        tunnel.close()
        tunnel.close()
        end = await asyncio.wait_for(running, 10)
        tunnel.close()

    assert end.reason is WebSocketEnd.UPSTREAM_CLOSED


async def test_cancellation_does_not_wait_for_stuck_peers() -> None:
    """A stuck client and a silent upstream get a second."""
    sending = asyncio.Event()

    async def hold(message: Message) -> None:
        sending.set()
        await asyncio.Event().wait()

    client = _Client()
    client.on_send = hold
    async with _by_hand(client, _floods) as tunnel:
        running = asyncio.create_task(tunnel.run())
        await sending.wait()
        running.cancel()
        done, _ = await asyncio.wait({running}, timeout=10)

    assert running in done
    assert running.cancelled()


async def test_second_cancellation_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not wait for the end that the first one began."""
    monkeypatch.setattr(tunnel_module, "_END_SECONDS", 60.0)
    closing = asyncio.Event()

    async def hold(message: Message) -> None:
        closing.set()
        await asyncio.Event().wait()

    client = _Client()
    client.on_send = hold
    async with _by_hand(client, _until_left) as tunnel:
        running = asyncio.create_task(tunnel.run())
        await asyncio.sleep(0)
        running.cancel()
        await closing.wait()
        running.cancel()
        done, _ = await asyncio.wait({running}, timeout=10)

    assert running in done
    assert running.cancelled()


@pytest.mark.parametrize("error", [KeyError("receive"), TimeoutError()])
async def test_error_of_receive_is_raised_and_leaves_nothing(error: Exception) -> None:
    """An exception of a middleware reaches the server."""
    client = _Client()
    client.inbox.put_nowait(error)
    async with _by_hand(client, _until_left) as tunnel:
        with pytest.raises(type(error)):
            await tunnel.run()

    assert tunnel.end is None


async def test_error_of_send_is_raised_and_leaves_nothing() -> None:
    """The same in the other task."""

    async def broken(message: Message) -> None:
        raise KeyError("send")

    client = _Client()
    client.on_send = broken
    async with _by_hand(client, _floods) as tunnel:
        with pytest.raises(KeyError):
            await tunnel.run()

    assert tunnel.end is None
