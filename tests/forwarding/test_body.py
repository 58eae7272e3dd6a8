"""The request body: when it is read, what is kept, limits, and sending."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from fastapi_proxy_di.errors import (
    ClientDisconnected,
    RequestBodyTimeout,
    RequestBodyTooLarge,
    UpstreamDisconnected,
)
from fastapi_proxy_di.forwarding.body import RequestBody, client_left
from fastapi_proxy_di.transport.http1.exchange import Http1Exchange
from fastapi_proxy_di.transport.protocol import TransportExchange
from tests.transport.http1.stand_in import StandIn, exchange_over

LEFT = {"type": "http.disconnect"}


def piece(body: bytes, *, more: bool = True) -> dict[str, Any]:
    """One message of a body."""
    return {"type": "http.request", "body": body, "more_body": more}


class Client:
    """A ``receive`` that gives the messages of the test, and counts its calls."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self.asked = 0
        self._queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.put(*messages)

    def put(self, *messages: dict[str, Any]) -> None:
        for message in messages:
            self._queue.put_nowait(message)

    async def receive(self) -> Any:
        self.asked += 1
        return await self._queue.get()


def body_from(client: Client, **options: Any) -> RequestBody:
    """Make the body of a client."""
    given: dict[str, Any] = {
        "length": None,
        "limit": None,
        "retain": 100,
        "expects_continue": False,
    }
    return RequestBody(client.receive, **{**given, **options})


def chunked_exchange(peer: StandIn) -> Http1Exchange:
    """Make an exchange that takes a chunked body."""
    exchange = exchange_over(peer)
    exchange.expect_body(chunked=True, length=0)
    return exchange


async def turns(count: int = 5) -> None:
    """Let other tasks run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_client_left_drops_messages_until_the_disconnect() -> None:
    """For HTTP and WebSocket alike."""
    for kind in ("http.disconnect", "websocket.disconnect"):
        await client_left(Client(piece(b"x"), piece(b"y"), {"type": kind}).receive)


@pytest.mark.parametrize(
    ("message", "length", "first", "ended"),
    [
        (piece(b"hello", more=False), 5, b"hello", True),
        (piece(b"hello"), 5, b"hello", True),
        (piece(b"hel"), 5, b"hel", False),
        (piece(b""), 5, b"", False),
        ({"type": "http.request"}, None, b"", True),
    ],
)
async def test_prefetch_reads_the_first_piece(
    message: dict[str, Any], length: int | None, first: bytes, ended: bool
) -> None:
    """The body has ended if that is its whole length."""
    body = body_from(Client(message), length=length)
    await body.prefetch(None)

    assert (body.first, body.ended) == (first, ended)


async def test_prefetch_raises_without_a_client() -> None:
    """The client has disconnected, or is silent."""
    with pytest.raises(ClientDisconnected):
        await body_from(Client(LEFT)).prefetch(None)
    with pytest.raises(RequestBodyTimeout):
        await body_from(Client()).prefetch(0.001)


async def test_limit_is_checked_before_and_while_reading() -> None:
    """A declared length over the limit is refused unread."""
    client = Client(piece(b"12345"), piece(b"6"))
    with pytest.raises(RequestBodyTooLarge):
        body_from(client, length=6, limit=5)
    assert client.asked == 0

    body = body_from(client, limit=5)
    await body.prefetch(None)
    with pytest.raises(RequestBodyTooLarge):
        await body.pump()


async def test_pump_sends_the_rest_and_waits_for_the_disconnect() -> None:
    """It returns when the client has disconnected, and only then."""
    client, peer = Client(piece(b"he")), StandIn()
    body = body_from(client)
    await body.prefetch(None)
    exchange = chunked_exchange(peer)
    await body.attach(exchange, 2, None)
    pumping = asyncio.ensure_future(body.pump())
    await turns()
    assert body.awaits_client
    client.put(piece(b"llo"), piece(b"", more=False))
    await turns()

    assert b"".join(peer.written) == b"3\r\nllo\r\n0\r\n\r\n"
    assert body.ended
    assert not body.awaits_client
    assert not pumping.done()
    client.put(LEFT)
    await pumping


async def test_pump_ends_at_a_disconnect_within_the_body() -> None:
    """The body is not ended by that."""
    client, peer = Client(piece(b"he"), LEFT), StandIn()
    body = body_from(client)
    await body.attach(chunked_exchange(peer), 0, None)
    await body.pump()

    assert not body.ended
    assert b"".join(peer.written) == b"2\r\nhe\r\n"


async def test_pump_reads_ahead_during_the_dial() -> None:
    """The bytes read ahead are sent first, in order."""
    client, peer = Client(piece(b"a"), piece(b"b" * 70000), piece(b"c", more=False)), StandIn()
    body = body_from(client)
    await body.prefetch(None)
    sent = len(body.first)
    pumping = asyncio.ensure_future(body.pump())
    await turns()
    # Enough for now: the third piece waits on the client's side.
    assert client.asked == 2

    await body.attach(chunked_exchange(peer), sent, None)
    await turns()
    assert client.asked == 4
    assert b"".join(peer.written) == b"".join(
        (
            b"10000\r\n" + b"b" * 65536 + b"\r\n",
            b"1170\r\n" + b"b" * 4464 + b"\r\n",
            b"1\r\nc\r\n0\r\n\r\n",
        )
    )
    client.put(LEFT)
    await pumping


async def test_body_that_ended_during_the_dial_is_finished_at_once() -> None:
    """The pump has nothing left to send."""
    client, peer = Client(piece(b"a"), piece(b"b", more=False), LEFT), StandIn()
    body = body_from(client)
    await body.prefetch(None)
    await body.pump()
    await body.attach(chunked_exchange(peer), 1, None)

    assert b"".join(peer.written) == b"1\r\nb\r\n0\r\n\r\n"


@pytest.mark.parametrize(("response", "read"), [(b"100 Continue", True), (b"401 No", False)])
async def test_body_is_read_only_after_100(response: bytes, read: bool) -> None:
    """``receive`` makes the server send 100 Continue, so it is not called earlier."""
    client, peer = Client(piece(b"hi", more=False), LEFT), StandIn()
    body = body_from(client, expects_continue=True)
    pumping = asyncio.ensure_future(body.pump())
    await turns()
    exchange = chunked_exchange(peer)
    await body.attach(exchange, 0, 5.0)
    await turns()
    assert client.asked == 0

    exchange.feed(memoryview(b"HTTP/1.1 " + response + b"\r\n\r\n"), 0.0)
    await turns()
    # Nor is it while a refusal is on its way out, which would get a 100 in front of it.
    assert (client.asked > 0) is read
    await pumping
    assert (peer.written != []) is read


async def test_body_is_read_after_a_wait_without_100() -> None:
    """An upstream may not support 100 Continue (RFC 9110 section 10.1.1)."""
    client, peer = Client(piece(b"hi", more=False), LEFT), StandIn()
    body = body_from(client, expects_continue=True)
    await body.attach(chunked_exchange(peer), 0, 0.001)
    await body.pump()

    assert b"".join(peer.written) == b"2\r\nhi\r\n0\r\n\r\n"


async def test_stopped_body_is_not_read() -> None:
    """The response has arrived; the pump still waits for the disconnect."""
    client, peer = Client(), StandIn()
    body = body_from(client)
    await body.attach(chunked_exchange(peer), 0, None)
    body.stop()
    client.put(piece(b"x"), LEFT)
    await body.pump()

    assert peer.written == []


async def test_broken_exchange_stops_the_pump_quietly() -> None:
    """The reader of the exchange raises the error, not the pump."""
    client, peer = Client(piece(b"x"), piece(b"y"), LEFT), StandIn()
    body = body_from(client)
    exchange = chunked_exchange(peer)
    await body.attach(exchange, 0, None)
    exchange.ended(ConnectionResetError())
    await body.pump()

    assert len(peer.written) <= 1


class TestReplayable:
    """Whether a further attempt can send the body again."""

    async def test_is_true_before_any_write(self) -> None:
        """No bytes of the body were taken."""
        body = body_from(Client(piece(b"x" * 200)))
        await body.prefetch(None)

        assert body.replayable(written=False)
        assert body.first == b"x" * 200

    @pytest.mark.parametrize(("retain", "replayable"), [(5, True), (4, False)])
    async def test_is_true_for_a_kept_whole_body(self, retain: int, replayable: bool) -> None:
        """Up to ``retain`` bytes."""
        client = Client(piece(b"he"), piece(b"llo", more=False), LEFT)
        body = body_from(client, retain=retain)
        await body.prefetch(None)
        await body.attach(chunked_exchange(StandIn()), 2, None)
        await body.pump()

        assert body.replayable(written=True) is replayable
        assert body.first == (b"hello" if replayable else b"he")

    async def test_is_false_for_a_partly_sent_body(self) -> None:
        """The sent bytes are lost with their exchange."""
        body = body_from(Client(piece(b"he")))
        await body.prefetch(None)

        assert not body.replayable(written=True)

    @pytest.mark.parametrize(("retain", "replayable"), [(5, True), (4, False)])
    async def test_is_the_same_for_a_given_body(self, retain: int, replayable: bool) -> None:
        """A caller gave the whole body."""
        body = RequestBody.whole(Client().receive, b"hello", None, retain)

        assert (body.first, body.ended, body.length) == (b"hello", True, 5)
        assert body.replayable(written=True) is replayable

    async def test_limit_applies_to_a_given_body(self) -> None:
        """The body was read before."""
        with pytest.raises(RequestBodyTooLarge):
            RequestBody.whole(Client().receive, b"hello", 4, 100)


class Stalled:
    """An exchange whose destination reads nothing until ``reads`` is set.

    Attributes:
        taken: What was offered, in order.
    """

    status = 0

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.finished = False
        self.reads = asyncio.Event()
        self.error: Exception | None = None

    def offer(self, data: bytes) -> bool:
        self.taken.append(data)
        return self.reads.is_set()

    async def drain(self) -> None:
        await self.reads.wait()
        if self.error is not None:
            raise self.error

    async def write(self, data: bytes) -> None:
        self.offer(data)

    def finish(self) -> None:
        self.finished = True


async def stalled_upload(client: Client) -> tuple[Stalled, RequestBody, asyncio.Task[None]]:
    """Start an upload that waits for its destination."""
    stalled, body = Stalled(), body_from(client)
    await body.attach(cast(TransportExchange, stalled), 0, None)
    pumping = asyncio.create_task(body.pump())
    await turns(10)
    return stalled, body, pumping


async def test_disconnect_is_seen_while_the_destination_reads_nothing() -> None:
    """The pump reads ahead, because only reading shows a disconnect."""
    client = Client(piece(b"a"), piece(b"b"), LEFT)
    stalled, _, pumping = await stalled_upload(client)

    await pumping
    assert stalled.taken == [b"a"]


async def test_bytes_read_ahead_are_sent_in_order() -> None:
    """Once the destination reads again, followed by the end of the body."""
    client = Client(piece(b"a"), piece(b"b"), piece(b"c", more=False))
    stalled, _, pumping = await stalled_upload(client)
    stalled.reads.set()
    await turns(10)

    assert stalled.taken == [b"a", b"b", b"c"]
    assert stalled.finished
    client.put(LEFT)
    await pumping


async def test_reading_ahead_is_bounded() -> None:
    """Bytes that a destination does not read stay at the client."""
    client = Client(*(piece(b"x" * 40000) for _ in range(9)))
    stalled, _, pumping = await stalled_upload(client)

    assert len(stalled.taken) == 1
    assert client.asked == 2
    pumping.cancel()
    await asyncio.wait((pumping,))


async def test_cancelled_stalled_upload_leaves_no_task() -> None:
    """Neither the task that drains nor the one that reads ahead."""
    client = Client(piece(b"a"))
    _, _, pumping = await stalled_upload(client)
    pumping.cancel()
    await turns(10)

    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_destination_that_breaks_while_it_stalls_ends_the_upload_quietly() -> None:
    """The reader of the exchange raises the error; later bytes of the client are dropped."""
    client = Client(piece(b"a"))
    stalled, _, pumping = await stalled_upload(client)
    stalled.error = UpstreamDisconnected("gone")
    stalled.reads.set()
    await turns(10)
    client.put(piece(b"b"), LEFT)

    await pumping
    assert stalled.taken == [b"a"]


async def test_failure_at_the_moment_of_the_disconnect_is_retrieved() -> None:
    """The exception of the drain is retrieved, so asyncio logs none."""
    client = Client(piece(b"a"))
    stalled, _, pumping = await stalled_upload(client)
    stalled.error = UpstreamDisconnected("gone")
    client.put(LEFT)
    stalled.reads.set()

    await pumping


async def test_large_body_given_whole_stops_at_an_early_response() -> None:
    """After a final response that is no success the rest is not sent."""
    body = RequestBody.whole(Client().receive, b"x" * 200_000, None, 0)
    stalled = Stalled()
    stalled.status = 413
    assert body.at_hand == b"x" * 65536
    await body.attach(cast(TransportExchange, stalled), len(body.at_hand), None)

    assert stalled.taken == []
    assert not stalled.finished
