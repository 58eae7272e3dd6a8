"""Watching exchanges: disconnects and deadlines end them, and nothing is left."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fastapi_proxy_di.errors import (
    ClientDisconnected,
    Failure,
    RequestBodyTimeout,
    RequestBodyTooLarge,
    UpstreamTimeout,
)
from fastapi_proxy_di.forwarding.body import RequestBody
from fastapi_proxy_di.forwarding.deadlines import Deadlines
from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.forwarding.watcher import UNWATCHED_SECONDS, Watcher
from fastapi_proxy_di.transport.http1.exchange import Http1Exchange
from tests.forwarding.samples import NEVER, watched_exchange
from tests.support.gateways import until
from tests.support.stepped_loop import SteppedLoop
from tests.transport.http1.stand_in import StandIn, exchange_over
from tests.transport.loops import on_every_loop

LEFT = {"type": "http.disconnect"}


class Client:
    """A client that disconnects when the test says so; its server may fail instead."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        self.error: Exception | None = None

    async def receive(self) -> Any:
        await self.gone.wait()
        if self.error is not None:
            raise self.error
        return LEFT


def sent_now(peer: StandIn | None = None) -> Http1Exchange:
    """Make an attempt that was sent just now."""
    exchange = exchange_over(peer or StandIn())
    exchange.last_activity = asyncio.get_running_loop().time()
    return exchange


def at_once() -> Watcher:
    """Make a watcher that watches after a millisecond."""
    watcher = Watcher("billing", NEVER)
    watcher.unwatched_seconds = 0.001
    return watcher


def stepped(watcher: Watcher) -> SteppedLoop:
    """Give a watcher a clock that only the test moves."""
    loop = SteppedLoop()
    watcher._loop = loop  # type: ignore[assignment]
    return loop


async def ended(exchange: Exchange) -> None:
    """End the watching, and await the rest."""
    rest = exchange.watcher.end(exchange)
    if rest is not None:
        await rest


@pytest.mark.parametrize(
    ("deadlines", "seconds"),
    [
        (NEVER, UNWATCHED_SECONDS),
        (Deadlines(100, 5, 7), UNWATCHED_SECONDS),
        (Deadlines(100, 0.001, 7), 0.001),
        (Deadlines(None, None, 0.005), 0.005),
    ],
)
async def test_watcher_begins_before_any_deadline(deadlines: Deadlines, seconds: float) -> None:
    """Else a short deadline would be noticed late."""
    assert Watcher("billing", deadlines).unwatched_seconds == seconds


@on_every_loop
async def test_short_exchange_costs_no_task() -> None:
    """It ends before watching begins."""
    tasks = asyncio.all_tasks()
    watcher = Watcher("billing", NEVER)
    watcher.unwatched_seconds = 60
    exchange = watched_exchange(Client().receive, watcher=watcher)
    exchange.attach(sent_now())

    assert asyncio.all_tasks() == tasks
    assert list(watcher.unwatched) == [exchange]
    assert watcher.end(exchange) is None
    assert watcher.unwatched == {}


@on_every_loop
async def test_recent_exchanges_share_one_timer() -> None:
    """Each is watched when its own time has passed, oldest first."""
    watcher = Watcher("billing", NEVER)
    watcher.unwatched_seconds = 0.03
    loop = stepped(watcher)
    client = Client()
    first = watched_exchange(client.receive, watcher=watcher)
    loop.advance(0.015)
    second = watched_exchange(client.receive, watcher=watcher)
    loop.advance(0.014)
    assert list(watcher.unwatched) == [first, second]
    loop.advance(0.002)
    assert list(watcher.unwatched) == [second]
    loop.advance(0.012)
    assert list(watcher.unwatched) == [second]
    loop.advance(0.003)
    assert watcher.unwatched == {}
    await ended(first)
    await ended(second)


@on_every_loop
async def test_disconnect_ends_the_exchange() -> None:
    """A call that waits for the head raises."""
    client, peer = Client(), StandIn()
    exchange = watched_exchange(client.receive, watcher=at_once())
    sent = sent_now(peer)
    exchange.attach(sent)
    client.gone.set()
    with pytest.raises(ClientDisconnected):
        await sent.head()

    assert exchange.error is not None
    assert peer.end == "aborted"
    first = exchange.error
    exchange.interrupt(OSError("only the first counts"))
    assert exchange.error is first
    await ended(exchange)


@on_every_loop
async def test_disconnect_ends_the_wait_before_an_attempt() -> None:
    """A dial, a place in the queue, a pause; and no attempt follows."""
    client = Client()
    exchange = watched_exchange(client.receive, watcher=at_once())
    client.gone.set()
    cancelled = False

    async def dial() -> None:
        nonlocal cancelled
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled = True
            raise

    with pytest.raises(ClientDisconnected):
        await exchange.watcher.run(exchange, dial(), "dial")
    assert cancelled
    with pytest.raises(ClientDisconnected):
        await exchange.watcher.run(exchange, dial(), "dial")
    late = StandIn()
    exchange.attach(sent_now(late))
    assert late.end == "aborted"
    await ended(exchange)


@on_every_loop
async def test_failing_receive_ends_the_exchange_with_its_error() -> None:
    """Whatever exception the server raises."""
    client = Client()
    client.error = OSError("server")
    client.gone.set()
    exchange = watched_exchange(client.receive, watcher=at_once())
    sent = sent_now()
    exchange.attach(sent)
    with pytest.raises(OSError, match="server"):
        await sent.head()
    await ended(exchange)


@on_every_loop
async def test_body_over_its_limit_ends_the_exchange() -> None:
    """The client's task reads the body."""

    async def receive() -> Any:
        return {"type": "http.request", "body": b"x" * 10, "more_body": True}

    exchange = watched_exchange(receive)
    exchange.body = RequestBody(receive, length=None, limit=5, retain=0, expects_continue=False)
    sent = sent_now()
    exchange.attach(sent)
    exchange.watcher.watch_client(exchange)
    exchange.watcher.watch_client(exchange)
    with pytest.raises(RequestBodyTooLarge):
        await sent.head()
    await ended(exchange)


@on_every_loop
async def test_run_gives_the_result_and_passes_errors_on() -> None:
    """As if the coroutine had been awaited."""
    exchange = watched_exchange(Client().receive)

    async def fine() -> int:
        return 5

    async def bad() -> int:
        raise KeyError("x")

    assert await exchange.watcher.run(exchange, fine(), "x") == 5
    with pytest.raises(KeyError):
        await exchange.watcher.run(exchange, bad(), "x")
    await ended(exchange)


@on_every_loop
async def test_cancelled_run_stays_cancelled() -> None:
    """The server's cancellation is no disconnect, even if both come together."""
    for interrupted in (False, True):
        exchange = watched_exchange(Client().receive)
        running = asyncio.ensure_future(
            exchange.watcher.run(exchange, asyncio.Event().wait(), "dial")
        )
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if interrupted:
            exchange.error = ClientDisconnected()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await ended(exchange)


@pytest.mark.parametrize("result", ["exchange", "nothing", "error"])
@on_every_loop
async def test_dial_that_succeeds_as_it_is_cancelled_leaks_nothing(result: str) -> None:
    """The connection is closed."""
    peer = StandIn()
    sent = sent_now(peer)
    made: asyncio.Future[Http1Exchange | None] = asyncio.get_running_loop().create_future()

    async def dial() -> Http1Exchange | None:
        return await made

    exchange = watched_exchange(Client().receive)
    running = asyncio.ensure_future(exchange.watcher.run(exchange, dial(), "dial"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    if result == "error":
        made.set_exception(KeyError("x"))
    else:
        made.set_result(sent if result == "exchange" else None)
    await asyncio.sleep(0)  # the dial has ended, its waiter has not run yet
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert (peer.end == "aborted") is (result == "exchange")
    assert exchange.request_sent is (result == "exchange")  # a dial sends the head as well
    await ended(exchange)


@pytest.mark.parametrize(
    ("deadlines", "failure"),
    [
        (Deadlines(0.02, None, None), Failure.ACTIVITY_TIMEOUT),
        (Deadlines(9, 0.02, None), Failure.FIRST_BYTE_TIMEOUT),
        (Deadlines(9, 9, 0.02), Failure.TOTAL_TIMEOUT),
        (Deadlines(0.02, 9, 9), Failure.ACTIVITY_TIMEOUT),
        (Deadlines(None, 0.02, 9), Failure.FIRST_BYTE_TIMEOUT),
    ],
)
@on_every_loop
async def test_nearest_deadline_ends_the_attempt(deadlines: Deadlines, failure: Failure) -> None:
    """Only ``total`` ends the request: another destination may still respond."""
    exchange = watched_exchange(Client().receive, deadlines)
    sent = sent_now()
    exchange.attach(sent)
    with pytest.raises(UpstreamTimeout) as caught:
        await sent.head()

    assert caught.value.failure is failure
    assert str(caught.value).endswith("timeout of 0.02 s ran out")
    assert (exchange.error is not None) is (failure is Failure.TOTAL_TIMEOUT)
    exchange.end_attempt()
    await ended(exchange)


@on_every_loop
async def test_next_attempt_has_deadlines_of_its_own() -> None:
    """The time to the first byte starts with each attempt."""
    exchange = watched_exchange(Client().receive, Deadlines(None, 0.02, None))
    for _ in range(2):
        sent = sent_now()
        exchange.attach(sent)
        with pytest.raises(UpstreamTimeout):
            await sent.head()
        exchange.end_attempt()
    await ended(exchange)


@on_every_loop
async def test_activity_moves_the_deadline() -> None:
    """Any byte either way; the response's first byte ends ``first_byte``."""
    watcher = Watcher("billing", Deadlines(0.05, 0.03, None))
    loop = stepped(watcher)
    exchange = watched_exchange(Client().receive, watcher=watcher)
    sent = sent_now()
    sent.last_activity = loop.time()
    exchange.attach(sent)
    sent.feed(memoryview(b"HTTP/1.1 200 OK\r\n"), loop.time())
    for _ in range(10):
        loop.advance(0.01)
        sent.last_activity = loop.time()
    loop.advance(0.049)
    assert not exchange.attempt_timed_out
    loop.advance(0.002)
    assert exchange.attempt_timed_out
    with pytest.raises(UpstreamTimeout) as caught:
        await sent.head()

    assert caught.value.failure is Failure.ACTIVITY_TIMEOUT
    await ended(exchange)


@on_every_loop
async def test_total_ends_a_dial() -> None:
    """Other deadlines do not: dials and queues have timeouts of their own."""
    exchange = watched_exchange(Client().receive, Deadlines(0.001, 0.001, 0.03))
    with pytest.raises(UpstreamTimeout) as caught:
        await exchange.watcher.run(exchange, asyncio.Event().wait(), "dial")

    assert caught.value.failure is Failure.TOTAL_TIMEOUT
    await ended(exchange)


@on_every_loop
async def test_client_that_reads_nothing_is_at_fault() -> None:
    """No failure of the destination is counted."""
    peer = StandIn()
    peer.read_paused = True
    exchange = watched_exchange(Client().receive, Deadlines(0.01, None, None))
    sent = sent_now(peer)
    exchange.attach(sent)
    with pytest.raises(ClientDisconnected, match="took nothing"):
        await sent.head()
    await ended(exchange)


@on_every_loop
async def test_stalled_upload_is_the_clients_fault() -> None:
    """408, and no further attempt."""
    client = Client()
    exchange = watched_exchange(client.receive, Deadlines(0.03, None, None))
    exchange.body = RequestBody(
        client.receive, length=None, limit=None, retain=0, expects_continue=False
    )
    sent = sent_now()
    sent.expect_body(chunked=True, length=0)
    exchange.attach(sent)
    exchange.watcher.watch_client(exchange)
    with pytest.raises(RequestBodyTimeout):
        await sent.head()

    assert exchange.error is not None
    await ended(exchange)


@on_every_loop
async def test_end_awaits_the_clients_task() -> None:
    """Also one that has ended, or that never ran."""
    client = Client()
    exchange = watched_exchange(
        client.receive,
        Deadlines(9, 9, 9),
    )
    exchange.attach(sent_now())
    exchange.watcher.watch_client(exchange)
    rest = exchange.watcher.end(exchange)
    assert rest is not None
    await rest

    left = watched_exchange(client.receive)
    client.gone.set()
    left.watcher.watch_client(left)
    await until(lambda: left.error is not None)
    assert left.watcher.end(left) is None
