"""Who ends an exchange early: the client, the clock; and that nothing of it is left."""

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
from fastapi_proxy_di.forwarding.deadlines import GRACE_SECONDS, Deadlines, Grace, Watch
from fastapi_proxy_di.transport.http1.exchange import Http1Exchange
from tests.support.gateways import until
from tests.transport.http1.stand_in import StandIn, exchange_over
from tests.transport.loops import on_every_loop

NEVER = Deadlines(None, None, None)
LEFT = {"type": "http.disconnect"}


class Client:
    """A client that stays until it leaves, or whose server fails."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        self.error: Exception | None = None

    async def receive(self) -> Any:
        await self.gone.wait()
        if self.error is not None:
            raise self.error
        return LEFT


def watch_of(client: Client, deadlines: Deadlines = NEVER, *, grace: Grace | None = None) -> Watch:
    """A watch in the running loop."""
    loop = asyncio.get_running_loop()
    return Watch(loop, deadlines, grace or Grace(loop, deadlines.grace), client.receive, "billing")


def exchange_now(peer: StandIn | None = None) -> Http1Exchange:
    """An exchange that began just now."""
    exchange = exchange_over(peer or StandIn())
    exchange.last_activity = asyncio.get_running_loop().time()
    return exchange


async def closed(watch: Watch) -> None:
    """Close it and await what remains."""
    rest = watch.close()
    if rest is not None:
        await rest


@pytest.mark.parametrize(
    ("deadlines", "grace"),
    [
        (NEVER, GRACE_SECONDS),
        (Deadlines(100, 5, 7), GRACE_SECONDS),
        (Deadlines(100, 0.001, 7), 0.001),
        (Deadlines(None, None, 0.005), 0.005),
    ],
)
def test_grace_is_shorter_than_any_deadline(deadlines: Deadlines, grace: float) -> None:
    """Else a short deadline would come late."""
    assert deadlines.grace == grace


@on_every_loop
async def test_short_exchange_costs_no_task() -> None:
    """It is over before watching begins."""
    loop = asyncio.get_running_loop()
    tasks = asyncio.all_tasks()
    grace = Grace(loop, 60)
    watch = watch_of(Client(), grace=grace)
    watch.attach(exchange_now())

    assert asyncio.all_tasks() == tasks
    assert list(grace.young) == [watch]
    assert watch.close() is None
    assert grace.young == {}


@on_every_loop
async def test_young_exchanges_share_one_timer() -> None:
    """Each is watched when its own time is over, oldest first."""
    loop = asyncio.get_running_loop()
    grace = Grace(loop, 0.03)
    client = Client()
    first = watch_of(client, grace=grace)
    ended = loop.create_future()
    loop.call_later(0.015, ended.set_result, None)
    await ended
    second = watch_of(client, grace=grace)
    await until(lambda: first not in grace.young)
    assert second in grace.young
    await until(lambda: second not in grace.young)
    assert loop.time() >= second.started + 0.03 - 0.002
    await closed(first)
    await closed(second)


@on_every_loop
async def test_departure_ends_the_exchange() -> None:
    """Whoever waits for its head is told."""
    client, peer = Client(), StandIn()
    watch = watch_of(client, grace=Grace(asyncio.get_running_loop(), 0.001))
    exchange = exchange_now(peer)
    watch.attach(exchange)
    client.gone.set()
    with pytest.raises(ClientDisconnected):
        await exchange.head()

    assert watch.interrupted
    assert peer.end == "aborted"
    first = watch.error
    watch.interrupt(OSError("only the first counts"))
    assert watch.error is first
    await closed(watch)


@on_every_loop
async def test_departure_ends_what_precedes_the_exchange() -> None:
    """A dial, a place in a queue, a pause; and nothing further is begun."""
    client = Client()
    watch = watch_of(client, grace=Grace(asyncio.get_running_loop(), 0.001))
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
        await watch.run(dial(), "dial")
    assert cancelled
    with pytest.raises(ClientDisconnected):
        await watch.run(dial(), "dial")
    late = StandIn()
    exchange = exchange_now(late)
    watch.attach(exchange)
    assert late.end == "aborted"
    await closed(watch)


@on_every_loop
async def test_failing_receive_ends_the_exchange_with_its_error() -> None:
    """Whatever the server raises."""
    client = Client()
    client.error = OSError("server")
    client.gone.set()
    watch = watch_of(client, grace=Grace(asyncio.get_running_loop(), 0.001))
    exchange = exchange_now()
    watch.attach(exchange)
    with pytest.raises(OSError, match="server"):
        await exchange.head()
    await closed(watch)


@on_every_loop
async def test_body_over_its_limit_ends_the_exchange() -> None:
    """It is read by the watch's one reader."""

    async def receive() -> Any:
        return {"type": "http.request", "body": b"x" * 10, "more_body": True}

    loop = asyncio.get_running_loop()
    watch = Watch(loop, NEVER, Grace(loop, 60), receive, "billing")
    watch.body = RequestBody(receive, length=None, limit=5, retain=0, expects_continue=False)
    exchange = exchange_now()
    watch.attach(exchange)
    watch.watch_client()
    watch.watch_client()
    with pytest.raises(RequestBodyTooLarge):
        await exchange.head()
    await closed(watch)


@on_every_loop
async def test_run_gives_the_result_and_passes_errors_on() -> None:
    """As if it had been awaited."""
    watch = watch_of(Client())

    async def fine() -> int:
        return 5

    async def bad() -> int:
        raise KeyError("x")

    assert await watch.run(fine(), "x") == 5
    with pytest.raises(KeyError):
        await watch.run(bad(), "x")
    await closed(watch)


@on_every_loop
async def test_cancelled_run_stays_cancelled() -> None:
    """The server's cancellation is no departure, also when both come together."""
    for interrupted in (False, True):
        watch = watch_of(Client())
        running = asyncio.ensure_future(watch.run(asyncio.Event().wait(), "dial"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if interrupted:
            watch.error = ClientDisconnected()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await closed(watch)


@pytest.mark.parametrize("result", ["exchange", "nothing", "error"])
@on_every_loop
async def test_dial_that_succeeds_as_it_is_cancelled_leaks_nothing(result: str) -> None:
    """The connection it made is closed."""
    peer = StandIn()
    exchange = exchange_now(peer)
    made: asyncio.Future[Http1Exchange | None] = asyncio.get_running_loop().create_future()

    async def dial() -> Http1Exchange | None:
        return await made

    watch = watch_of(Client())
    running = asyncio.ensure_future(watch.run(dial(), "dial"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    if result == "error":
        made.set_exception(KeyError("x"))
    else:
        made.set_result(exchange if result == "exchange" else None)
    await asyncio.sleep(0)  # the dial has ended, whoever waits for it has not run yet
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert (peer.end == "aborted") is (result == "exchange")
    await closed(watch)


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
    """Only ``total`` ends the request: another destination may still answer."""
    watch = watch_of(Client(), deadlines)
    exchange = exchange_now()
    watch.attach(exchange)
    with pytest.raises(UpstreamTimeout) as caught:
        await exchange.head()

    assert caught.value.failure is failure
    assert watch.interrupted is (failure is Failure.TOTAL_TIMEOUT)
    watch.detach()
    await closed(watch)


@on_every_loop
async def test_next_attempt_has_deadlines_of_its_own() -> None:
    """The first byte is waited for from its own beginning."""
    watch = watch_of(Client(), Deadlines(None, 0.02, None))
    for _ in range(2):
        exchange = exchange_now()
        watch.attach(exchange)
        with pytest.raises(UpstreamTimeout):
            await exchange.head()
        watch.detach()
    await closed(watch)


@on_every_loop
async def test_activity_moves_the_deadline() -> None:
    """Any byte either way; the answer's first byte ends ``first_byte``."""
    loop = asyncio.get_running_loop()
    watch = watch_of(Client(), Deadlines(0.05, 0.03, None))
    exchange = exchange_now()
    watch.attach(exchange)
    exchange.feed(memoryview(b"HTTP/1.1 200 OK\r\n"), loop.time())
    for _ in range(10):
        await asyncio.sleep(0.01)
        exchange.last_activity = loop.time()
    with pytest.raises(UpstreamTimeout) as caught:
        await exchange.head()

    assert caught.value.failure is Failure.ACTIVITY_TIMEOUT
    assert loop.time() - watch.started >= 0.13
    await closed(watch)


@on_every_loop
async def test_total_ends_a_dial() -> None:
    """Nothing else does: dials and queues have timeouts of their own."""
    watch = watch_of(Client(), Deadlines(0.001, 0.001, 0.03))
    with pytest.raises(UpstreamTimeout) as caught:
        await watch.run(asyncio.Event().wait(), "dial")

    assert caught.value.failure is Failure.TOTAL_TIMEOUT
    await closed(watch)


@on_every_loop
async def test_reader_that_takes_nothing_is_the_clients_fault() -> None:
    """The destination is not blamed for a client that stalls."""
    peer = StandIn()
    peer.read_paused = True
    watch = watch_of(Client(), Deadlines(0.01, None, None))
    exchange = exchange_now(peer)
    watch.attach(exchange)
    with pytest.raises(ClientDisconnected, match="took nothing"):
        await exchange.head()
    await closed(watch)


@on_every_loop
async def test_stalled_upload_is_the_clients_fault() -> None:
    """408, and no further attempt."""
    client = Client()
    loop = asyncio.get_running_loop()
    deadlines = Deadlines(0.03, None, None)
    watch = Watch(loop, deadlines, Grace(loop, deadlines.grace), client.receive, "billing")
    watch.body = RequestBody(
        client.receive, length=None, limit=None, retain=0, expects_continue=False
    )
    exchange = exchange_now()
    exchange.expect_body(chunked=True, length=0)
    watch.attach(exchange)
    watch.watch_client()
    with pytest.raises(RequestBodyTimeout):
        await exchange.head()

    assert watch.interrupted
    await closed(watch)


@on_every_loop
async def test_close_awaits_the_reader() -> None:
    """Also one that has ended, or that never ran."""
    client = Client()
    watch = watch_of(client, Deadlines(9, 9, 9), grace=Grace(asyncio.get_running_loop(), 0.001))
    watch.attach(exchange_now())
    watch.watch_client()
    rest = watch.close()
    assert rest is not None
    await rest

    left = watch_of(client)
    client.gone.set()
    left.watch_client()
    await until(lambda: left.interrupted)
    assert left.close() is None
