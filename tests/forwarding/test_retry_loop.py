"""Attempts on real sockets: destinations, retries, counts.

Long because each rule of attempts has its own scripted destinations.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.types import Receive

from fastapi_proxy_di.balancing.peak_ewma import PeakEwma
from fastapi_proxy_di.errors import (
    ClientDisconnected,
    Failure,
    LimitExceeded,
    NoAvailableDestination,
    ProxyError,
    UpstreamConnectError,
    UpstreamDisconnected,
    UpstreamProtocolError,
)
from fastapi_proxy_di.forwarding.body import RequestBody
from fastapi_proxy_di.forwarding.deadlines import Deadlines
from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.forwarding.outcomes import retry_after_seconds
from fastapi_proxy_di.transport.protocol import Headers
from fastapi_proxy_di.upstream.composition import compose
from fastapi_proxy_di.upstream.running import RunningUpstream
from tests.forwarding.samples import watched_exchange
from tests.support.gateways import billing, until
from tests.support.origins import Connection, ScriptedOrigin, always, response_bytes
from tests.support.servers import dead_port
from tests.transport.loops import on_every_loop


class Sender:
    """Sends requests as exchanges of one upstream."""

    def __init__(self, upstream: RunningUpstream) -> None:
        self.upstream = upstream

    async def send(
        self,
        method: bytes = b"GET",
        *,
        body: bytes | None = None,
        repeatable: bool | None = None,
        exchange: Exchange | None = None,
    ) -> tuple[int, bytes, str]:
        """Give status, body and destination of one exchange."""
        exchange = exchange or self.exchange()
        exchange.method = method
        exchange.repeatable = method in {b"GET", b"HEAD"} if repeatable is None else repeatable
        if body is not None:
            exchange.headers = [(b"content-length", b"%d" % len(body))]
            exchange.length, exchange.has_body = len(body), True
            exchange.body = RequestBody.whole(_stays, body, None, 65536)
        journey = self.upstream.rules.journey
        try:
            await journey.send(exchange)
            response, pieces = exchange.response, []
            while piece := await response.read():
                pieces.append(piece)
            return response.status, b"".join(pieces), exchange.destination.url
        finally:
            rest = journey.end(exchange, None)
            if rest is not None:
                await rest

    def exchange(self, receive: Receive | None = None) -> Exchange:
        """Make an exchange whose client stays connected."""
        return watched_exchange(receive or _stays, Deadlines(5, None, None))


async def _stays() -> Any:
    await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def sender(*urls: str, **settings: Any) -> AsyncIterator[Sender]:
    """Run one upstream; at the end nothing may be in flight."""
    upstream = compose(billing(*urls, **{"policy": "first", **settings}))
    try:
        yield Sender(upstream)
        assert [one.in_flight for one in upstream.pool.destinations] == [0] * len(urls)
        if upstream.admission is not None:
            assert upstream.admission.in_flight == 0
    finally:
        await upstream.aclose()


async def closes(connection: Connection) -> None:
    """Read a request, and close without a response."""
    await connection.read_request()


def once_then_close(then: bytes = b"") -> Any:
    """Respond to the first request of a connection, and close on the next."""

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(response_bytes(body=b"%d" % connection.number))
        await connection.read_request()
        if then:
            await connection.send(then)

    return script


@on_every_loop
async def test_response_counts_as_success_and_in_flight() -> None:
    """In flight from the pick until the end."""
    async with ScriptedOrigin() as origin, sender(origin.url) as one:
        assert await one.send() == (200, b"ok", origin.url)
        assert await one.send(b"POST", body=b"hello") == (200, b"ok", origin.url)
        (destination,) = one.upstream.pool.destinations

        assert destination.successes == 2
        assert origin.connections == 1


@pytest.mark.parametrize("method", [b"GET", b"POST"])
@on_every_loop
async def test_refused_dial_goes_elsewhere(method: bytes) -> None:
    """With any method and body, because no byte was sent."""
    dead = f"http://127.0.0.1:{dead_port()}"
    async with ScriptedOrigin() as origin, sender(dead, origin.url) as one:
        body = b"hello" if method == b"POST" else None
        assert await one.send(method, body=body) == (200, b"ok", origin.url)
        assert one.upstream.pool.destinations[0].failures == 1

    assert origin.request.body == (body or b"")


@on_every_loop
async def test_dials_end_after_three_further_destinations() -> None:
    """Not counted as attempts, but limited; the error lists every attempt."""
    dead = [f"http://127.0.0.1:{dead_port()}" for _ in range(6)]
    async with sender(*dead) as one:
        with pytest.raises(UpstreamConnectError) as caught:
            await one.send(b"POST")

    assert len({attempt.destination for attempt in caught.value.attempts}) == 4
    assert caught.value.upstream == "billing"
    assert caught.value.destination == caught.value.attempts[-1].destination


@on_every_loop
async def test_refused_dials_spread_over_the_other_destinations() -> None:
    """With round robin each destination gets its share of the refused requests."""
    dead = f"http://127.0.0.1:{dead_port()}"
    async with (
        ScriptedOrigin() as first,
        ScriptedOrigin() as second,
        sender(
            dead, first.url, second.url, policy="round_robin", ejection={"enabled": False}
        ) as one,
    ):
        served = [(await one.send())[2] for _ in range(12)]

    assert served.count(first.url) == served.count(second.url) == 6


@on_every_loop
async def test_only_destination_is_dialled_once() -> None:
    """A second dial would also fail."""
    async with sender(f"http://127.0.0.1:{dead_port()}") as one:
        with pytest.raises(UpstreamConnectError) as caught:
            await one.send()

    assert len(caught.value.attempts) == 1


@on_every_loop
async def test_stale_connection_is_replaced_for_repeatable_requests() -> None:
    """Uncounted, on a new connection to the same destination, without a failure."""
    async with (
        ScriptedOrigin(once_then_close()) as origin,
        sender(origin.url, retries={"attempts": 0}) as one,
    ):
        assert (await one.send())[1] == b"1"
        assert (await one.send())[1] == b"2"
        assert one.upstream.pool.destinations[0].failures == 0


@on_every_loop
async def test_stale_connection_ends_other_requests() -> None:
    """RFC 9110 section 9.2.2: a POST may have been done."""
    async with ScriptedOrigin(once_then_close()) as origin, sender(origin.url) as one:
        await one.send()
        with pytest.raises(UpstreamDisconnected):
            await one.send(b"POST", body=b"x")

    assert origin.connections == 1


@on_every_loop
async def test_stale_connection_resends_a_body_with_a_key() -> None:
    """The whole body is sent again."""
    async with ScriptedOrigin(once_then_close()) as origin, sender(origin.url) as one:
        await one.send()
        assert (await one.send(b"POST", body=b"hello", repeatable=True))[1] == b"2"

    assert [received.body for received in origin.requests] == [b"", b"hello", b"hello"]


@on_every_loop
async def test_disconnect_of_the_destination_is_retried_elsewhere() -> None:
    """GET once more, POST never."""
    async with (
        ScriptedOrigin(closes) as bad,
        ScriptedOrigin() as good,
        sender(bad.url, good.url, retries={"backoff": "1ms"}) as one,
    ):
        assert (await one.send())[2] == good.url
        with pytest.raises(UpstreamDisconnected):
            await one.send(b"POST", body=b"x")

    assert bad.connections == 2


@on_every_loop
async def test_only_destination_is_tried_again() -> None:
    """Another destination if there is one, else the same."""

    async def script(connection: Connection) -> None:
        await connection.read_request()
        if connection.number > 1:
            await connection.send(response_bytes(body=b"ok"))

    async with ScriptedOrigin(script) as origin, sender(origin.url) as one:
        assert (await one.send())[1] == b"ok"


@on_every_loop
async def test_attempt_with_a_response_is_never_repeated() -> None:
    """Once a byte of the response has arrived, no retry follows."""
    async with (
        ScriptedOrigin(always(b"HTTP/9.9 200 OK\r\n\r\n")) as bad,
        ScriptedOrigin() as good,
        sender(bad.url, good.url) as one,
    ):
        with pytest.raises(UpstreamProtocolError):
            await one.send()
        assert one.upstream.pool.destinations[0].failures == 1

    assert good.connections == 0


@on_every_loop
async def test_listed_status_is_tried_elsewhere() -> None:
    """The last response is used, whatever its status; the first connection is not reused."""
    async with (
        ScriptedOrigin(always(response_bytes(503, b"no"))) as bad,
        ScriptedOrigin() as good,
        sender(bad.url, good.url, retries={"statuses": "503", "backoff": "1ms"}) as one,
    ):
        assert await one.send() == (200, b"ok", good.url)
        assert await one.send(b"POST") == (503, b"no", bad.url)
        one.upstream.pool.drain(one.upstream.pool.destinations[1])
        assert await one.send() == (503, b"no", bad.url)


@on_every_loop
async def test_listed_status_counts_against_its_destination() -> None:
    """``ejection.statuses`` are failures; others are not."""
    script = always(response_bytes(500, b"no"))
    async with (
        ScriptedOrigin(script) as origin,
        sender(origin.url, ejection={"statuses": "500"}, policy="peak_ewma") as one,
    ):
        assert (await one.send())[0] == 500
        assert one.upstream.pool.destinations[0].failures == 1
        policy = one.upstream.rules.policy
        assert isinstance(policy, PeakEwma)
        assert policy.cost(one.upstream.pool.destinations[0]) == pytest.approx(5.0)


@on_every_loop
async def test_policy_that_learns_observes_each_attempt() -> None:
    """Success or failure, with the time to the first byte."""
    seen: list[tuple[str, bool]] = []
    async with (
        ScriptedOrigin() as origin,
        sender(origin.url, policy="peak_ewma", retries={"attempts": 0}) as one,
    ):
        outcomes = one.upstream.rules.journey.outcomes
        outcomes._observe = lambda destination, seconds, failed, now: seen.append(
            (destination.url, failed)
        )
        await one.send()
        outcomes.observe(one.upstream.pool.destinations[0], 0.1, failed=True)
    async with (
        ScriptedOrigin(closes) as origin2,
        sender(origin2.url, policy="peak_ewma", retries={"attempts": 0}) as one,
    ):
        one.upstream.rules.journey.outcomes._observe = lambda destination, seconds, failed, now: (
            seen.append((destination.url, failed))
        )
        with pytest.raises(UpstreamDisconnected):
            await one.send()

    assert seen == [(origin.url, False), (origin.url, True), (origin2.url, True)]


@on_every_loop
async def test_nothing_available_and_everything_full_are_503() -> None:
    """With exceptions of different types."""
    async with ScriptedOrigin() as origin, sender(origin.url) as one:
        one.upstream.pool.drain(one.upstream.pool.destinations[0])
        with pytest.raises(NoAvailableDestination) as none:
            await one.send()
        assert not isinstance(none.value, LimitExceeded)
        one.upstream.pool.undrain(one.upstream.pool.destinations[0])
        (destination,) = one.upstream.pool.destinations
        destination.in_flight_limit = 0
        with pytest.raises(LimitExceeded) as full:
            await one.send()
        destination.in_flight_limit = 10
        destination.window_limit = 0
        with pytest.raises(LimitExceeded) as window:
            await one.send()
        assert none.value.retry_after >= 1
        assert full.value.retry_after >= 1
        assert window.value.retry_after >= 1


@on_every_loop
async def test_in_flight_counts_return_to_zero() -> None:
    """After successes, failures and disconnects."""
    async with (
        ScriptedOrigin() as origin,
        sender(origin.url, limits={"max_in_flight": 1}) as one,
    ):
        await one.send()
        interrupted = one.exchange()
        interrupted.error = ClientDisconnected()
        with pytest.raises(ClientDisconnected):
            await one.send(exchange=interrupted)
        await one.send()


@on_every_loop
async def test_disconnect_before_the_head_counts_no_failure() -> None:
    """The exchange ends, and no further attempt is made."""
    never = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.peer_left()
        never.set()

    async with ScriptedOrigin(script) as origin, sender(origin.url) as one:
        exchange = one.exchange()
        sending = asyncio.ensure_future(one.send(exchange=exchange))
        await until(lambda: origin.requests)
        exchange.interrupt(ClientDisconnected())
        with pytest.raises(ClientDisconnected):
            await sending
        await never.wait()
        assert one.upstream.pool.destinations[0].failures == 0

        cancelled = asyncio.ensure_future(one.send())
        await until(lambda: len(origin.requests) == 2)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        await origin.all_left()


@on_every_loop
async def test_late_failure_is_counted_by_its_side() -> None:
    """A failure after the head counts, a disconnect of the client does not."""
    async with ScriptedOrigin() as origin, sender(origin.url) as one:
        outcomes = one.upstream.rules.journey.outcomes
        (destination,) = one.upstream.pool.destinations
        error = UpstreamDisconnected("x", failure=Failure.RESPONSE_BODY)
        outcomes.failed_late(destination, 200, error)
        outcomes.failed_late(destination, 200, ClientDisconnected())

        assert (destination.failures, destination.completed) == (1, 1)
        assert (error.upstream, error.destination) == ("billing", destination.url)
        assert [attempt.failure for attempt in error.attempts] == [Failure.RESPONSE_BODY]
        late: ProxyError = UpstreamDisconnected("x", attempts=error.attempts * 2)
        outcomes.failed_late(destination, 200, late)
        assert len(late.attempts) == 2


@on_every_loop
async def test_retry_after_ejects_a_destination() -> None:
    """If the settings respect it; a date is not read."""
    limited = always(response_bytes(429, b"", [(b"Retry-After", b"5")]))
    dated = always(response_bytes(503, b"", [(b"Retry-After", b"Fri, 31 Dec 1999 23:59:59 GMT")]))
    async with (
        ScriptedOrigin(limited) as one_origin,
        ScriptedOrigin(dated) as other,
        sender(one_origin.url, other.url, ejection={"respect_retry_after": True}) as one,
    ):
        assert (await one.send())[0] == 429
        first, second = one.upstream.pool.destinations
        assert first.ejected_until is not None
        assert (await one.send())[0] == 503
        assert second.ejected_until is None


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([], None),
        ([(b"retry-after", b" 7 ")], 7.0),
        ([(b"retry-after", b"7.5")], None),
        ([(b"retry-after", b"-7")], None),
        ([(b"x", b"1"), (b"retry-after", b"x"), (b"retry-after", b"2")], 2.0),
    ],
)
def test_retry_after_is_read_as_seconds(headers: Headers, seconds: float | None) -> None:
    """RFC 9110 section 10.2.3, the delay form."""
    assert retry_after_seconds(headers) == seconds


@on_every_loop
async def test_policy_that_does_not_learn_observes_nothing() -> None:
    """It has no ``observe``."""
    async with ScriptedOrigin() as origin, sender(origin.url) as one:
        one.upstream.rules.journey.outcomes.observe(
            one.upstream.pool.destinations[0], 0.1, failed=False
        )


@on_every_loop
async def test_body_is_streamed_after_its_head() -> None:
    """The first piece is sent with the head, the rest as the client sends it."""
    pieces = [b"lo ", b"world"]

    async def receive() -> Any:
        if pieces:
            body = pieces.pop(0)
            return {"type": "http.request", "body": body, "more_body": bool(pieces)}
        return await _stays()

    async with ScriptedOrigin() as origin, sender(origin.url) as one:
        exchange = one.exchange(receive)
        body = RequestBody(receive, length=11, limit=None, retain=100, expects_continue=False)
        body.first = b"hel"
        exchange.method, exchange.body, exchange.length = b"POST", body, 11
        exchange.headers = [(b"content-length", b"11")]
        await one.upstream.rules.journey.send(exchange)
        assert await exchange.response.read() == b"ok"
        rest = one.upstream.rules.journey.end(exchange, None)
        assert rest is not None
        await rest

    assert origin.request.body == b"hello world"


@on_every_loop
async def test_pause_before_a_retry_may_be_none() -> None:
    """``backoff`` of 0."""
    async with (
        ScriptedOrigin(closes) as bad,
        ScriptedOrigin() as good,
        sender(bad.url, good.url, retries={"backoff": 0}) as one,
    ):
        assert (await one.send())[2] == good.url


@on_every_loop
async def test_policy_that_tracks_knows_what_is_under_way() -> None:
    """From the sending to the head of the response, or to the end of the attempt without one."""
    release = asyncio.Event()

    async def holds(connection: Connection) -> None:
        await connection.read_request()
        await release.wait()
        if connection.number == 1:
            await connection.send(response_bytes(body=b"ok"))

    async with (
        ScriptedOrigin(holds) as origin,
        sender(origin.url, policy="peak_ewma", retries={"attempts": 0}) as one,
    ):
        policy = one.upstream.rules.policy
        assert isinstance(policy, PeakEwma)
        task = asyncio.ensure_future(one.send())
        await until(lambda: origin.requests)
        other = asyncio.ensure_future(one.send())
        await until(lambda: len(origin.requests) == 2)
        (mean,) = policy._means.values()
        under_way = len(mean.under_way)
        release.set()
        await task
        with pytest.raises(UpstreamDisconnected):
            await other

        assert (under_way, len(mean.under_way)) == (2, 0)
