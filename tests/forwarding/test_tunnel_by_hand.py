"""Tunnels whose client is two functions, for cases that no real server produces on demand."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from starlette.types import Message

from fastapi_proxy_di.forwarding import tunnel as tunnel_module
from fastapi_proxy_di.forwarding.tunnel import Tunnel, WebSocketEnd
from tests.forwarding.tunnels import (
    CLOSE,
    TEXT,
    Script,
    copying_tasks,
    until_left,
)
from tests.support.websocket_dial import dial
from tests.support.websocket_origin import FramePeer, frames_from


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
        assert not copying_tasks()


async def test_both_forms_of_a_received_message_are_read() -> None:
    """Servers may give one key, or both with one of them ``None``."""
    seen: list[tuple[int, bytes]] = []

    async def script(peer: FramePeer) -> None:
        while not seen or seen[-1][0] != CLOSE:
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
        peer.send(TEXT, b"x" * 1000)
        await peer.writer.drain()


async def test_close_code_is_read_after_a_failed_send() -> None:
    """``receive`` still has the code, after the last messages."""
    seen: list[tuple[int, bytes]] = []

    async def script(peer: FramePeer) -> None:
        peer.send(TEXT, b"into the void")
        seen.extend([await peer.read(), await peer.read()])

    client = _Client()

    async def left(message: Message) -> None:
        client.inbox.put_nowait({"type": "websocket.receive", "text": "last"})
        client.inbox.put_nowait({"type": "websocket.disconnect", "code": 1001, "reason": ""})
        raise OSError

    client.on_send = left
    async with _by_hand(client, script) as tunnel:
        end = await tunnel.run()

    assert seen == [(TEXT, b"last"), (CLOSE, b"\x03\xe9")]
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
    async with _by_hand(client, until_left) as tunnel:
        tunnel.close()
        end = await tunnel.run()

    assert client.got == [{"type": "websocket.close", "code": 1001, "reason": ""}]
    assert end.reason is WebSocketEnd.DRAINED


async def test_cancellation_of_a_drain_keeps_its_code() -> None:
    """The first end is kept; the task is cancelled nevertheless."""
    client = _Client()
    async with _by_hand(client, until_left) as tunnel:
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
        peer.send(CLOSE, b"\x03\xe8")
        await until_left(peer)

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
    async with _by_hand(client, until_left) as tunnel:
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
    async with _by_hand(client, until_left) as tunnel:
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
