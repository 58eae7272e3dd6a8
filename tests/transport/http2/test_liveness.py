"""Connections that have gone silent: PING, no new streams, and the end of the connection."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from contextvars import Context, ContextVar
from typing import Any, cast

import pytest
from h2.events import PingReceived

from fastapi_proxy_di import Balancer
from fastapi_proxy_di.errors import (
    ClientDisconnected,
    Failure,
    ProxyError,
    UpstreamDisconnected,
    UpstreamTimeout,
)
from fastapi_proxy_di.transport.http2.liveness import Liveness
from tests.support.gateways import billing, until
from tests.transport.http2.peer import Peer, asks, respond_to_all, scripted, transport_to


class Clock:
    """The time and the timers of a loop, moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: dict[Clock.Timer, tuple[float, Callable[[], None]]] = {}

    class Timer:
        """A timer that can be cancelled."""

        def __init__(self, clock: Clock) -> None:
            self._clock = clock

        def cancel(self) -> None:
            """Remove the timer."""
            self._clock.timers.pop(self, None)

    def time(self) -> float:
        """Give the time."""
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None], *, context: Context) -> Timer:
        """Make a timer."""
        timer = Clock.Timer(self)
        self.timers[timer] = (self.now + delay, lambda: context.run(callback))
        return timer

    def move(self, to: float) -> None:
        """Run the timers that are due until ``to``."""
        while due := [(when, timer) for timer, (when, _) in self.timers.items() if when <= to]:
            when, timer = min(due, key=lambda pair: pair[0])
            self.now = when
            self.timers.pop(timer)[1]()
        self.now = to


class Watched:
    """A liveness of ten seconds on a clock, and what it did."""

    def __init__(self, seconds: float | None = 10.0) -> None:
        self.clock = Clock()
        self.calls: list[tuple[str, float]] = []
        self.liveness = Liveness(
            seconds,
            cast(asyncio.AbstractEventLoop, self.clock),
            ping=lambda: self.calls.append(("ping", self.clock.now)),
            silent=lambda: self.calls.append(("silent", self.clock.now)),
        )


def test_silence_with_streams_is_asked_about_and_ends() -> None:
    """A PING after the silence; the connection is given up after as long again."""
    watched = Watched()
    watched.liveness.began()
    watched.clock.move(4)
    watched.liveness.heard()
    watched.clock.move(100)

    assert watched.calls == [("ping", 14.0), ("silent", 24.0)]


def test_ping_has_no_context_of_a_request() -> None:
    """The request whose stream has begun the watch may end long before."""
    request: ContextVar[str] = ContextVar("request", default="none")
    seen: list[str] = []
    clock = Clock()
    liveness = Liveness(
        10.0,
        cast(asyncio.AbstractEventLoop, clock),
        ping=lambda: seen.append(request.get()),
        silent=lambda: seen.append(request.get()),
    )
    _ = request.set("first")
    liveness.began()
    clock.move(100)

    assert seen == ["none", "none"]


def test_response_to_a_ping_starts_anew() -> None:
    """Each silence gets its own PING, and a doubt meanwhile sends no second one."""
    watched = Watched()
    watched.liveness.began()
    watched.clock.move(12)
    watched.liveness.doubt()
    waiting = watched.liveness.waiting
    watched.liveness.heard()
    watched.liveness.acknowledged()
    watched.clock.move(22)

    assert (waiting, watched.calls) == (True, [("ping", 10.0), ("ping", 22.0)])


def test_silence_without_streams_means_nothing() -> None:
    """The timer ends by itself, and starts with the next stream; there is never a second one.

    The silence of an idle connection does not count: the next slow response gets its full time.
    """
    watched = Watched()
    watched.liveness.began()
    watched.liveness.heard()
    watched.liveness.idle()
    watched.liveness.began()
    watched.liveness.began()
    timers = len(watched.clock.timers)
    watched.liveness.heard()
    watched.liveness.idle()
    watched.clock.move(50)
    none = len(watched.clock.timers)
    watched.liveness.began()
    watched.clock.move(60)

    assert (timers, none, watched.calls) == (1, 0, [("ping", 60.0)])


def test_silence_goes_on_over_streams_that_end_without_a_byte() -> None:
    """Clients leave, one after another: the silence counts from the first one's request."""
    watched = Watched()
    for begin in (0, 4, 8):
        watched.clock.move(begin)
        watched.liveness.began()
        watched.clock.move(begin + 3)
        watched.liveness.idle()
    watched.clock.move(50)

    assert watched.calls == [("ping", 10.0), ("silent", 20.0)]


def test_silence_goes_on_over_streams_beside_an_older_one() -> None:
    """Neither a stream that begins beside others nor the last one's end starts it anew."""
    watched = Watched()
    watched.liveness.began()
    watched.clock.move(2)
    watched.liveness.heard()
    watched.clock.move(5)
    watched.liveness.began()
    watched.clock.move(7)
    watched.liveness.idle()
    watched.liveness.began()
    watched.clock.move(12)

    assert watched.calls == [("ping", 12.0)]


def test_stream_that_ended_without_a_byte_costs_one_ping() -> None:
    """After the response to the PING, silence without streams means nothing again."""
    watched = Watched()
    watched.liveness.began()
    watched.clock.move(3)
    watched.liveness.idle()
    watched.clock.move(11)
    watched.liveness.doubt()
    watched.liveness.heard()
    watched.liveness.acknowledged()
    watched.clock.move(50)
    none = len(watched.clock.timers)
    watched.liveness.began()
    watched.clock.move(59)

    assert (none, watched.calls) == (0, [("ping", 10.0)])


def test_short_streams_on_a_live_connection_send_no_ping() -> None:
    """Nor does a client that leaves, if bytes have arrived since its request."""
    watched = Watched()
    for begin in range(100):
        watched.clock.move(begin)
        watched.liveness.began()
        watched.liveness.heard()
        watched.liveness.idle()
    watched.clock.move(200)

    assert watched.calls == []


def test_timeout_of_a_stream_is_asked_about_at_once() -> None:
    """Without streams too; ``stop`` ends the watch."""
    watched = Watched()
    watched.liveness.doubt()
    watched.liveness.stop()
    watched.clock.move(50)

    assert watched.calls == [("ping", 0.0)]


def test_no_ping_without_the_setting() -> None:
    """``none`` switches PING off."""
    watched = Watched(None)
    watched.liveness.began()
    watched.liveness.doubt()
    watched.clock.move(50)

    assert (watched.calls, watched.liveness.waiting) == ([], False)


async def test_silent_connection_costs_one_request_not_nine() -> None:
    """After one timeout no further request goes to the connection until it responds."""

    async def script(peer: Peer) -> None:
        if len(peers) > 1:
            await respond_to_all(peer)
        stream, _ = await peer.request()
        peer.respond(stream)
        peer.send(stream, b"ok", end=True)
        await asyncio.Event().wait()  # reads nothing, so that no PING is seen either

    async with (
        scripted(script) as (url, peers),
        Balancer.from_settings(
            billing(url, http_version="2", timeouts={"first_byte": 0.2, "ping": 60})
        ) as balancer,
    ):
        await balancer.client.post("/x")
        results: list[Any] = []
        for _ in range(9):
            try:
                results.append((await balancer.client.post("/x")).status_code)
            except ProxyError as error:
                results.append(error.failure)

    assert results == [Failure.FIRST_BYTE_TIMEOUT] + [200] * 8
    assert len(peers) == 2


@pytest.mark.parametrize("patience", [(0.2,), (0.2, 0.13)], ids=["one by one", "overlapping"])
async def test_clients_that_leave_early_do_not_hide_a_silent_connection(
    patience: tuple[float, ...],
) -> None:
    """Each waits for less than ``timeouts.ping``; soon they get another connection."""

    async def script(peer: Peer) -> None:
        if len(peers) > 1:
            await respond_to_all(peer)
        stream, _ = await peer.request()
        peer.respond(stream)
        peer.send(stream, b"ok", end=True)
        await asyncio.Event().wait()  # reads nothing, so that no PING is seen either

    async def client(seconds: float) -> int:
        """Ask until there is a response; give the number of requests without one."""
        lost = 0
        while True:
            try:
                async with asyncio.timeout(seconds):
                    await balancer.client.get("/x")
            except TimeoutError:
                lost += 1
            else:
                return lost

    async with (
        scripted(script) as (url, peers),
        Balancer.from_settings(billing(url, http_version="2", timeouts={"ping": 0.3})) as balancer,
    ):
        await balancer.client.get("/x")
        async with asyncio.timeout(5):
            lost = await asyncio.gather(*(client(seconds) for seconds in patience))

    assert min(lost) >= 1
    assert len(peers) == 2


async def test_clients_that_leave_early_do_not_end_a_slow_connection() -> None:
    """The destination responds to the PING, and to a request that waits for it, later."""
    pinged = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.next(PingReceived)
        pinged.set()
        await respond_to_all(peer)

    async with scripted(script) as (url, peers), transport_to(url, ping=0.3) as transport:
        exchange = await transport.start(asks(), b"", more=False)
        connection = next(iter(transport._connections))
        async with asyncio.timeout(10):
            while not pinged.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(pinged.wait(), 0.2)
                exchange.fail(ClientDisconnected())
                await until(lambda: connection.has_room)
                again = transport.reuse(asks(), b"", more=False)
                assert again is not None
                exchange = again
        await exchange.head()
        piece = await exchange.read()
        exchange.close()

    assert (piece, len(peers)) == (b"ok", 1)


async def test_connection_is_used_again_once_it_responds_to_the_ping() -> None:
    """A slow response does not end a connection that is alive."""
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await go_on.wait()
        await peer.next(PingReceived)
        await respond_to_all(peer)

    async with scripted(script) as (url, peers), transport_to(url, ping=60.0) as transport:
        slow = await transport.start(asks(), b"", more=False)
        slow.fail(UpstreamTimeout("too slow"))
        meanwhile = transport.reuse(asks(), b"", more=False)
        go_on.set()
        connection = next(iter(transport._connections))
        await until(lambda: connection.has_room)
        again = transport.reuse(asks(), b"", more=False)
        assert again is not None
        await again.head()
        piece = await again.read()
        again.close()

    assert (meanwhile, piece, len(peers)) == (None, b"ok", 1)


@pytest.mark.parametrize("responded", [False, True])
async def test_streams_of_a_silent_connection_fail(responded: bool) -> None:
    """Each as what it is: before its head or within its body."""

    async def script(peer: Peer) -> None:
        stream, _ = await peer.request()
        if responded:
            peer.respond(stream)
        await asyncio.Event().wait()

    async with scripted(script) as (url, _), transport_to(url, ping=0.1) as transport:
        exchange = await transport.start(asks(), b"", more=False)
        if responded:
            await exchange.head()
        with pytest.raises(UpstreamDisconnected, match="PING") as raised:
            await (exchange.read() if responded else exchange.head())
        await until(lambda: not transport.connections)

    failure = Failure.RESPONSE_BODY if responded else Failure.RESPONSE_HEAD
    assert raised.value.failure is failure


async def test_timeout_on_a_closing_connection_sends_no_ping() -> None:
    """The connection takes no new streams anyway."""

    async def script(peer: Peer) -> None:
        await peer.request()
        stream, _ = await peer.request()
        peer.h2.close_connection(last_stream_id=stream)
        peer.flush()
        await peer.left()

    async with scripted(script) as (url, _), transport_to(url, ping=60.0) as transport:
        one = await transport.start(asks(), b"", more=False)
        two = transport.reuse(asks(), b"", more=False)
        assert two is not None
        connection = next(iter(transport._connections))
        await until(lambda: not transport._connections)
        one.fail(UpstreamTimeout("too slow"))
        waiting = connection._liveness.waiting
        two.close()

    assert not waiting
