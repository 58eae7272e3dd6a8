"""Which connections are used again, in which order and for how long.

Long because each reason why a connection is not used again has its own script.
"""

from __future__ import annotations

import asyncio

import pytest

from fastapi_proxy_di.errors import ProxyError, UpstreamConnectError, UpstreamDisconnected
from fastapi_proxy_di.transport.http1.exchange import Http1Exchange
from fastapi_proxy_di.transport.http1.transport import Http1Transport
from tests.support.gateways import until
from tests.support.origins import Connection, ScriptedOrigin, always, response_bytes
from tests.support.stepped_loop import SteppedLoop
from tests.transport.http1.engine import body_of, engine, exchange_on, get, post
from tests.transport.loops import on_every_loop


async def numbered(connection: Connection) -> None:
    """Respond with the number of the connection."""
    while True:
        await connection.read_request()
        await connection.send(response_bytes(body=b"%d" % connection.number))


def stepped(transport: Http1Transport) -> SteppedLoop:
    """Give a transport a clock that only the test moves."""
    loop = SteppedLoop()
    transport._loop = loop  # type: ignore[assignment]
    return loop


async def open_idle(transport: Http1Transport, count: int) -> list[bytes]:
    """Leave ``count`` connections idle; give their numbers in order."""
    exchanges: list[Http1Exchange] = [
        await transport.start(get(), b"", more=False) for _ in range(count)
    ]
    return [await body_of(exchange) for exchange in exchanges]


@on_every_loop
async def test_connection_is_reused() -> None:
    """One connection serves any number of consecutive requests."""
    async with ScriptedOrigin() as origin, engine(origin) as transport:
        first = await exchange_on(transport, get())
        assert not first.reused
        await body_of(first)
        for _ in range(5):
            exchange = await exchange_on(transport, post(2), b"hi")
            assert exchange.reused
            assert await body_of(exchange) == b"ok"
            assert (transport.connections, transport.idle) == (1, 1)

    assert origin.connections == 1
    assert len(origin.requests) == 6


@on_every_loop
async def test_reuse_without_an_idle_connection_gives_none() -> None:
    """``reuse`` never dials."""
    async with ScriptedOrigin() as origin, engine(origin) as transport:
        assert transport.reuse(get(), b"", more=False) is None

    assert origin.connections == 0


@on_every_loop
async def test_last_in_serves_first() -> None:
    """The connection used last serves, so that unused ones are closed."""
    async with ScriptedOrigin(numbered) as origin, engine(origin) as transport:
        order = await open_idle(transport, 3)
        taken = [transport.reuse(get(), b"", more=False) for _ in range(3)]
        again = [await body_of(exchange) for exchange in taken if exchange]

    assert again == order[::-1]


@on_every_loop
async def test_surplus_of_idle_connections_closes_oldest_first() -> None:
    """The limit is for idle connections; those in use have no limit."""
    async with (
        ScriptedOrigin(numbered) as origin,
        engine(origin, idle_connections=2, idle_seconds=60.0) as transport,
    ):
        loop = stepped(transport)
        order = await open_idle(transport, 5)
        loop.advance(0.9)
        assert transport.idle == 5
        loop.advance(0.2)
        assert transport.idle == 2
        await until(lambda: transport.connections == 2)
        await until(lambda: origin.open_connections == 2)
        taken = [transport.reuse(get(), b"", more=False) for _ in range(3)]

        assert [await body_of(exchange) for exchange in taken if exchange] == order[:-3:-1]


@on_every_loop
async def test_surplus_that_is_used_stays() -> None:
    """Bursts of more requests than the limit dial once; between them all are idle."""
    async with (
        ScriptedOrigin(numbered) as origin,
        engine(origin, idle_connections=2, idle_seconds=60.0) as transport,
    ):
        loop = stepped(transport)
        await open_idle(transport, 5)
        for _ in range(15):
            assert transport.idle == 5
            taken = [transport.reuse(get(), b"", more=False) for _ in range(5)]
            loop.advance(0.05)
            for exchange in taken:
                assert exchange is not None
                await body_of(exchange)
            loop.advance(0.05)
        loop.advance(1.1)
        assert transport.idle == 2

    assert origin.connections == 5


@on_every_loop
async def test_surplus_is_closed_when_it_is_not_used() -> None:
    """Connections that a smaller load still uses are kept."""
    async with (
        ScriptedOrigin(numbered) as origin,
        engine(origin, idle_connections=1, idle_seconds=60.0) as transport,
    ):
        loop = stepped(transport)
        await open_idle(transport, 4)
        for _ in range(25):
            taken = [transport.reuse(get(), b"", more=False) for _ in range(2)]
            assert all(taken)
            loop.advance(0.1)
            for exchange in taken:
                assert exchange is not None
                await body_of(exchange)

        await until(lambda: transport.connections == 3)  # two in use, one idle
        loop.advance(1.1)
        assert transport.idle == 1

    assert origin.connections == 4


@on_every_loop
async def test_idle_connections_of_zero_keeps_none() -> None:
    """Each connection is closed after its exchange."""
    async with ScriptedOrigin() as origin, engine(origin, idle_connections=0) as transport:
        await body_of(await exchange_on(transport, get()))
        await origin.all_left()

        assert transport.idle == 0


@on_every_loop
async def test_idle_connections_expire() -> None:
    """By one timer, oldest first; later connections stay for their time."""
    async with ScriptedOrigin(numbered) as origin, engine(origin, idle_seconds=0.1) as transport:
        loop = stepped(transport)
        early = await transport.start(get(), b"", more=False)
        late = await transport.start(get(), b"", more=False)
        await body_of(early)
        loop.advance(0.06)
        await body_of(late)
        assert transport.idle == 2
        loop.advance(0.05)
        assert transport.idle == 1
        loop.advance(0.04)
        assert transport.idle == 1
        loop.advance(0.02)
        assert transport.idle == 0
        await origin.all_left()


@on_every_loop
async def test_request_takes_no_connection_that_is_too_old_for_it() -> None:
    """``reuse_within`` is the request's own; other requests may use the connection."""
    async with ScriptedOrigin() as origin, engine(origin) as transport:
        loop = stepped(transport)
        await body_of(await exchange_on(transport, get()))
        loop.advance(0.02)

        assert transport.reuse(get(reuse_within=0.01), b"", more=False) is None
        assert transport.idle == 1
        exchange = transport.reuse(get(reuse_within=5.0), b"", more=False)
        assert exchange is not None
        assert await body_of(exchange) == b"ok"


@on_every_loop
async def test_connection_that_saw_eof_is_never_reused() -> None:
    """The destination closed it between requests."""
    may_close = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(response_bytes(body=b"%d" % connection.number))
        await may_close.wait()

    async with ScriptedOrigin(script) as origin, engine(origin) as transport:
        await body_of(await exchange_on(transport, get()))
        may_close.set()
        await until(lambda: transport.idle == 0)

        exchange = await exchange_on(transport, get())
        assert not exchange.reused
        assert await body_of(exchange) == b"2"


@on_every_loop
async def test_connection_that_was_reset_is_never_reused() -> None:
    """The destination sent a RST between requests."""
    may_reset = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(response_bytes(body=b"ok"))
        await may_reset.wait()
        connection.reset()

    async with ScriptedOrigin(script) as origin, engine(origin) as transport:
        await body_of(await exchange_on(transport, get()))
        may_reset.set()
        await until(lambda: transport.connections == 0)

        assert transport.reuse(get(), b"", more=False) is None


@on_every_loop
async def test_bytes_on_an_idle_connection_end_it() -> None:
    """The bytes would be taken for the response to the next request (smuggling)."""
    may_send = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(response_bytes(body=b"ok"))
        await may_send.wait()
        await connection.send(response_bytes(body=b"evil"))
        await connection.peer_left()

    async with ScriptedOrigin(script) as origin, engine(origin) as transport:
        await body_of(await exchange_on(transport, get()))
        may_send.set()
        await until(lambda: transport.idle == 0)
        await origin.all_left()

        assert transport.connections == 0


@on_every_loop
async def test_second_response_in_a_segment_is_never_served() -> None:
    """Only the first one is the response to a request."""
    script = always(response_bytes(body=b"ok") + response_bytes(body=b"evil"))
    async with ScriptedOrigin(script) as origin, engine(origin) as transport:
        for _ in range(3):
            assert await body_of(await exchange_on(transport, get())) == b"ok"

    assert origin.connections == 3


@on_every_loop
async def test_response_to_head_leaves_the_next_response_alone() -> None:
    """The Content-Length is that of a body which is not sent."""

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
        await connection.read_request()
        await connection.send(response_bytes(body=b"world"))
        await connection.peer_left()

    async with ScriptedOrigin(script) as origin, engine(origin) as transport:
        assert await body_of(await exchange_on(transport, get(method=b"HEAD"))) == b""
        exchange = await exchange_on(transport, get())
        assert exchange.reused
        assert await body_of(exchange) == b"world"


@pytest.mark.parametrize(
    "reply",
    [
        response_bytes(body=b"ok", headers=[(b"Connection", b"close")]),
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        response_bytes(body=b"ok") + b"x",
    ],
)
@on_every_loop
async def test_connection_that_ends_with_its_response_is_closed(reply: bytes) -> None:
    """By us too, even if the destination keeps it open."""
    async with ScriptedOrigin(always(reply)) as origin, engine(origin) as transport:
        assert await body_of(await exchange_on(transport, get())) == b"ok"
        await origin.all_left()

        assert (transport.connections, transport.idle) == (0, 0)


@on_every_loop
async def test_response_left_unread_ends_the_connection() -> None:
    """An unread body cannot be skipped; at its end the connection is kept."""

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhel")
        await connection.peer_left()

    async with ScriptedOrigin(script) as origin, engine(origin) as transport:
        exchange = await exchange_on(transport, get())
        await exchange.head()
        exchange.close()
        exchange.close()
        await origin.all_left()

        assert transport.idle == 0


@on_every_loop
async def test_early_response_to_an_unfinished_request_ends_the_connection() -> None:
    """The rest of the body was not sent, so no request may follow."""

    async def script(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(response_bytes(413, b"no"))
        await connection.peer_left()

    async with ScriptedOrigin(script) as origin, engine(origin) as transport:
        exchange = await exchange_on(transport, post(10), b"hello", more=True)
        assert await body_of(exchange) == b"no"
        await origin.all_left()

        assert transport.idle == 0


@on_every_loop
async def test_connection_with_unsent_bytes_is_not_kept() -> None:
    """The destination responded before it had read the request."""

    async def script(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(response_bytes(413, b"no"))
        await asyncio.Event().wait()

    async with ScriptedOrigin(script) as origin, engine(origin) as transport:
        size = 8 << 20
        exchange = await exchange_on(transport, post(size), b"x" * size)
        assert await body_of(exchange) == b"no"

        assert transport.idle == 0


@on_every_loop
async def test_probe_leaves_no_connection() -> None:
    """``probe`` opens a connection and closes it."""
    async with ScriptedOrigin() as origin, engine(origin) as transport:
        await transport.probe()
        await origin.all_left()

        assert (transport.connections, transport.idle) == (0, 0)
    assert origin.connections == 1


@on_every_loop
async def test_aclose_leaves_no_connection() -> None:
    """Idle connections are closed, those in use broken off, and none is made afterwards."""
    never = asyncio.Event()

    async def script(connection: Connection) -> None:
        received = await connection.read_request()
        if received.target == b"/":
            await connection.send(response_bytes(body=b"ok"))
        await never.wait()

    async with ScriptedOrigin(script) as origin, engine(origin) as transport:
        waiting = [await transport.start(get(b"/wait"), b"", more=False) for _ in range(3)]
        done = await transport.start(get(), b"", more=False)
        await done.head()
        await body_of(await exchange_on(transport, get()))
        heads = [asyncio.ensure_future(exchange.head()) for exchange in waiting]
        await asyncio.sleep(0)
        assert transport.connections == 5

        await transport.aclose()

        assert (transport.connections, transport.idle) == (0, 0)
        results = await asyncio.gather(*heads, return_exceptions=True)
        assert all(isinstance(result, Exception) for result in results)
        await done.read()
        done.close()
        assert (transport.connections, transport.idle) == (0, 0)
        with pytest.raises(UpstreamConnectError, match="shut down"):
            await transport.start(get(), b"", more=False)
        await transport.aclose()


@on_every_loop
async def test_greeting_of_a_server_makes_the_connection_unusable() -> None:
    """A server that sends first (SSH, SMTP) does not speak HTTP."""

    async def script(connection: Connection) -> None:
        await connection.send(b"220 mail\r\n")
        await connection.peer_left()

    async with ScriptedOrigin(script) as origin, engine(origin) as transport:
        # The greeting arrives before the request is sent, or is taken for its response.
        with pytest.raises(ProxyError, match=r"malformed|closed"):
            await body_of(await exchange_on(transport, get()))
        await origin.all_left()

        assert transport.idle == 0


@on_every_loop
async def test_idle_connection_that_is_closing_is_skipped() -> None:
    """Its socket failed in this turn of the loop."""
    async with ScriptedOrigin() as origin, engine(origin) as transport:
        await body_of(await exchange_on(transport, get()))
        (connection,) = transport._idle
        assert connection._transport is not None
        connection._transport.abort()

        assert transport.reuse(get(), b"", more=False) is None
        await until(lambda: transport.connections == 0)


@on_every_loop
async def test_detached_connection_is_no_longer_ours() -> None:
    """It is not counted, not kept, and not closed at the end."""
    switch = b"HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nhello"

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(switch)
        await connection.peer_left()

    async with ScriptedOrigin(script) as origin, engine(origin) as transport:
        exchange = await exchange_on(transport, get(upgrade=True))
        await exchange.head()
        (connection,) = transport._all
        given, leftover = exchange.detach()
        exchange.close()

        assert leftover == b"hello"
        assert transport.connections == 0
        with pytest.raises(UpstreamDisconnected):
            connection.detach()
        await transport.aclose()
        assert not given.is_closing()
        given.abort()
        await origin.all_left()
