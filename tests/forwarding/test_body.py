"""The request body on its way up: what is read when, kept, limited and sent."""

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
    """A ``receive`` that gives what the test puts in, and counts how often it was asked."""

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
    """A body of that client."""
    given: dict[str, Any] = {
        "length": None,
        "limit": None,
        "retain": 100,
        "expects_continue": False,
    }
    return RequestBody(client.receive, **{**given, **options})


def chunked_exchange(peer: StandIn) -> Http1Exchange:
    """An exchange that takes a chunked body."""
    exchange = exchange_over(peer)
    exchange.expect_body(chunked=True, length=0)
    return exchange


async def turns(count: int = 5) -> None:
    """Let others run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_client_left_drops_what_still_comes() -> None:
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
async def test_prefetch_takes_the_first_piece(
    message: dict[str, Any], length: int | None, first: bytes, ended: bool
) -> None:
    """It is all of it when the length says so."""
    body = body_from(Client(message), length=length)
    await body.prefetch(None)

    assert (body.first, body.ended) == (first, ended)


async def test_prefetch_ends_with_the_client() -> None:
    """Gone, or silent."""
    with pytest.raises(ClientDisconnected):
        await body_from(Client(LEFT)).prefetch(None)
    with pytest.raises(RequestBodyTimeout):
        await body_from(Client()).prefetch(0.001)


async def test_limit_holds_before_and_while_reading() -> None:
    """A declared length is refused unread."""
    client = Client(piece(b"12345"), piece(b"6"))
    with pytest.raises(RequestBodyTooLarge):
        body_from(client, length=6, limit=5)
    assert client.asked == 0

    body = body_from(client, limit=5)
    await body.prefetch(None)
    with pytest.raises(RequestBodyTooLarge):
        await body.pump()


async def test_pump_carries_the_rest_and_waits_for_the_client() -> None:
    """It returns when the client has left, and only then."""
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


async def test_pump_ends_when_the_client_leaves_amid_its_body() -> None:
    """The body is not ended by that."""
    client, peer = Client(piece(b"he"), LEFT), StandIn()
    body = body_from(client)
    await body.attach(chunked_exchange(peer), 0, None)
    await body.pump()

    assert not body.ended
    assert b"".join(peer.written) == b"2\r\nhe\r\n"


async def test_pump_reads_a_little_ahead_of_its_exchange() -> None:
    """While a dial takes its time; what it read goes first, in order."""
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
    """Nothing is left to pump."""
    client, peer = Client(piece(b"a"), piece(b"b", more=False), LEFT), StandIn()
    body = body_from(client)
    await body.prefetch(None)
    await body.pump()
    await body.attach(chunked_exchange(peer), 1, None)

    assert b"".join(peer.written) == b"1\r\nb\r\n0\r\n\r\n"


@pytest.mark.parametrize(("response", "read"), [(b"100 Continue", True), (b"401 No", False)])
async def test_expecting_client_is_asked_only_when_wanted(response: bytes, read: bool) -> None:
    """``receive`` makes the server send 100, so it is not called before the upstream's."""
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


async def test_expecting_client_is_asked_after_a_while() -> None:
    """An upstream that knows no 100 (RFC 9110 section 10.1.1)."""
    client, peer = Client(piece(b"hi", more=False), LEFT), StandIn()
    body = body_from(client, expects_continue=True)
    await body.attach(chunked_exchange(peer), 0, 0.001)
    await body.pump()

    assert b"".join(peer.written) == b"2\r\nhi\r\n0\r\n\r\n"


async def test_stopped_body_is_read_no_further() -> None:
    """The response has come; the client's departure is still watched for."""
    client, peer = Client(), StandIn()
    body = body_from(client)
    await body.attach(chunked_exchange(peer), 0, None)
    body.stop()
    client.put(piece(b"x"), LEFT)
    await body.pump()

    assert peer.written == []


async def test_broken_exchange_stops_the_pump_quietly() -> None:
    """The reader of the exchange reports the error, not the pump."""
    client, peer = Client(piece(b"x"), piece(b"y"), LEFT), StandIn()
    body = body_from(client)
    exchange = chunked_exchange(peer)
    await body.attach(exchange, 0, None)
    exchange.ended(ConnectionResetError())
    await body.pump()

    assert len(peer.written) <= 1


class TestReplayable:
    """Whether a further attempt can send the body again."""

    async def test_before_anything_was_written(self) -> None:
        """Always: nothing was taken from it."""
        body = body_from(Client(piece(b"x" * 200)))
        await body.prefetch(None)

        assert body.replayable(written=False)
        assert body.first == b"x" * 200

    @pytest.mark.parametrize(("retain", "replayable"), [(5, True), (4, False)])
    async def test_whole_and_kept(self, retain: int, replayable: bool) -> None:
        """Up to ``retain`` bytes."""
        client = Client(piece(b"he"), piece(b"llo", more=False), LEFT)
        body = body_from(client, retain=retain)
        await body.prefetch(None)
        await body.attach(chunked_exchange(StandIn()), 2, None)
        await body.pump()

        assert body.replayable(written=True) is replayable
        assert body.first == (b"hello" if replayable else b"he")

    async def test_not_while_some_is_still_to_come(self) -> None:
        """What was sent is gone with its exchange."""
        body = body_from(Client(piece(b"he")))
        await body.prefetch(None)

        assert not body.replayable(written=True)

    @pytest.mark.parametrize(("retain", "replayable"), [(5, True), (4, False)])
    async def test_given_whole(self, retain: int, replayable: bool) -> None:
        """The same rule for a body that a caller gave."""
        body = RequestBody.whole(Client().receive, b"hello", None, retain)

        assert (body.first, body.ended, body.length) == (b"hello", True, 5)
        assert body.replayable(written=True) is replayable

    async def test_given_whole_has_the_limit_too(self) -> None:
        """The limit holds for a body that was read before, too."""
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
    """An upload that waits for its destination."""
    stalled, body = Stalled(), body_from(client)
    await body.attach(cast(TransportExchange, stalled), 0, None)
    pumping = asyncio.create_task(body.pump())
    await turns(10)
    return stalled, body, pumping


async def test_departure_is_seen_while_the_destination_reads_nothing() -> None:
    """The pump reads ahead, for only reading tells."""
    client = Client(piece(b"a"), piece(b"b"), LEFT)
    stalled, _, pumping = await stalled_upload(client)

    await pumping
    assert stalled.taken == [b"a"]


async def test_what_was_read_ahead_follows_in_order() -> None:
    """Once the destination reads again, and the end with it."""
    client = Client(piece(b"a"), piece(b"b"), piece(b"c", more=False))
    stalled, _, pumping = await stalled_upload(client)
    stalled.reads.set()
    await turns(10)

    assert stalled.taken == [b"a", b"b", b"c"]
    assert stalled.finished
    client.put(LEFT)
    await pumping


async def test_reading_ahead_is_bounded() -> None:
    """What a destination does not take stays on the client's side."""
    client = Client(*(piece(b"x" * 40000) for _ in range(9)))
    stalled, _, pumping = await stalled_upload(client)

    assert len(stalled.taken) == 1
    assert client.asked == 2
    pumping.cancel()
    await asyncio.wait((pumping,))


async def test_stalled_upload_that_is_given_up_leaves_no_task() -> None:
    """Neither the one that drains nor the one that reads ahead."""
    client = Client(piece(b"a"))
    _, _, pumping = await stalled_upload(client)
    pumping.cancel()
    await turns(10)

    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_destination_that_breaks_while_it_stalls_ends_the_upload_quietly() -> None:
    """The exchange's own reader tells why; what the client still sends is dropped."""
    client = Client(piece(b"a"))
    stalled, _, pumping = await stalled_upload(client)
    stalled.error = UpstreamDisconnected("gone")
    stalled.reads.set()
    await turns(10)
    client.put(piece(b"b"), LEFT)

    await pumping
    assert stalled.taken == [b"a"]


async def test_failure_at_the_moment_of_departure_is_retrieved() -> None:
    """Both ends go at once: the drain's exception is retrieved, so asyncio logs none."""
    client = Client(piece(b"a"))
    stalled, _, pumping = await stalled_upload(client)
    stalled.error = UpstreamDisconnected("gone")
    client.put(LEFT)
    stalled.reads.set()

    await pumping


async def test_large_body_given_whole_stops_at_an_early_response() -> None:
    """A final response that is not a success wants no more of it."""
    body = RequestBody.whole(Client().receive, b"x" * 200_000, None, 0)
    stalled = Stalled()
    stalled.status = 413
    assert body.at_hand == b"x" * 65536
    await body.attach(cast(TransportExchange, stalled), len(body.at_hand), None)

    assert stalled.taken == []
    assert not stalled.finished
