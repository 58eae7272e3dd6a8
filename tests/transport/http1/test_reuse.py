"""Which connections serve again, in which order, for how long, and which never do."""

from __future__ import annotations

import asyncio

import pytest

from fastapi_proxy_di.errors import UpstreamConnectError, UpstreamDisconnected
from fastapi_proxy_di.transport.http1.exchange import Http1Exchange
from fastapi_proxy_di.transport.http1.transport import Http1Transport
from tests.support.gateways import until
from tests.support.origins import Connection, ScriptedOrigin, always, response_bytes
from tests.support.stepped_loop import SteppedLoop
from tests.transport.http1.engine import body_of, engine, exchange_on, get, post
from tests.transport.loops import on_every_loop


async def numbered(connection: Connection) -> None:
    """Answer with the number of the connection."""
    while True:
        await connection.read_request()
        await connection.send(response_bytes(body=b"%d" % connection.number))


def stepped(transport: Http1Transport) -> SteppedLoop:
    """Give a transport a clock that only the test moves."""
    loop = SteppedLoop()
    transport._loop = loop  # type: ignore[assignment]
    return loop


async def open_idle(transport: Http1Transport, count: int) -> list[bytes]:
    """Leave ``count`` connections idle, in the order of the numbers given back."""
    exchanges: list[Http1Exchange] = [
        await transport.start(get(), b"", more=False) for _ in range(count)
    ]
    return [await body_of(exchange) for exchange in exchanges]


@on_every_loop
async def test_connection_serves_again() -> None:
    """One connection for any number of requests that follow each other."""
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
async def test_none_at_hand_gives_none() -> None:
    """``reuse`` never dials."""
    async with ScriptedOrigin() as origin, engine(origin) as transport:
        assert transport.reuse(get(), b"", more=False) is None

    assert origin.connections == 0


@on_every_loop
async def test_last_in_serves_first() -> None:
    """The warmest connection serves, so the surplus can age out."""
    async with ScriptedOrigin(numbered) as origin, engine(origin) as transport:
        order = await open_idle(transport, 3)
        taken = [transport.reuse(get(), b"", more=False) for _ in range(3)]
        again = [await body_of(exchange) for exchange in taken if exchange]

    assert again == order[::-1]


@on_every_loop
async def test_surplus_of_idle_connections_closes_oldest_first() -> None:
    """The limit is for idle ones; those in use are never capped."""
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
async def test_surplus_that_is_of_use_stays() -> None:
    """Waves of more requests than may be idle dial once; between them all are idle."""
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
async def test_surplus_is_closed_as_it_falls_out_of_use() -> None:
    """Those that a smaller load still needs are not taken for surplus."""
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
async def test_no_idle_connections_are_kept_when_none_are_wanted() -> None:
    """``idle_connections`` of 0 closes each after its exchange."""
    async with ScriptedOrigin() as origin, engine(origin, idle_connections=0) as transport:
        await body_of(await exchange_on(transport, get()))
        await origin.all_left()

        assert transport.idle == 0


@on_every_loop
async def test_idle_connections_expire() -> None:
    """By one timer, oldest first; what came later stays its time."""
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
async def test_request_takes_none_that_is_too_old_for_it() -> None:
    """``reuse_within`` is the request's own; the connection stays for others."""
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
async def test_connection_that_saw_eof_is_never_taken() -> None:
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
async def test_connection_that_was_reset_is_never_taken() -> None:
    """The same for a RST."""
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
    """They would be the answer to whoever comes next: a smuggled one."""
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
async def test_answer_behind_an_answer_is_never_served() -> None:
    """Pipelined by the destination in one segment; only the first is an answer."""
    script = always(response_bytes(body=b"ok") + response_bytes(body=b"evil"))
    async with ScriptedOrigin(script) as origin, engine(origin) as transport:
        for _ in range(3):
            assert await body_of(await exchange_on(transport, get())) == b"ok"

    assert origin.connections == 3


@on_every_loop
async def test_answer_to_head_leaves_the_next_answer_alone() -> None:
    """Its Content-Length is of a body that does not come."""

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
async def test_connection_that_ends_with_its_answer_is_closed(reply: bytes) -> None:
    """From our side too, though the destination holds it open."""
    async with ScriptedOrigin(always(reply)) as origin, engine(origin) as transport:
        assert await body_of(await exchange_on(transport, get())) == b"ok"
        await origin.all_left()

        assert (transport.connections, transport.idle) == (0, 0)


@on_every_loop
async def test_answer_left_unread_ends_the_connection() -> None:
    """What has not been read cannot be skipped; at the end of the body it can be kept."""

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
async def test_early_answer_to_an_unfinished_request_ends_the_connection() -> None:
    """The rest of the body is still owed, so no request may follow on it."""

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
    """The destination answered before it had read the request."""

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
    """Connect and close again."""
    async with ScriptedOrigin() as origin, engine(origin) as transport:
        await transport.probe()
        await origin.all_left()

        assert (transport.connections, transport.idle) == (0, 0)
    assert origin.connections == 1


@on_every_loop
async def test_aclose_leaves_no_connection() -> None:
    """Idle ones close, those in use break, and none is made or kept afterwards."""
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
async def test_greeting_before_any_request_is_no_connection_for_us() -> None:
    """A server that speaks first (SSH, SMTP) speaks no HTTP."""

    async def script(connection: Connection) -> None:
        await connection.send(b"220 mail\r\n")
        await connection.peer_left()

    async with ScriptedOrigin(script) as origin, engine(origin) as transport:
        exchange = await transport.start(get(), b"", more=False)
        with pytest.raises(Exception, match=r"malformed|closed"):
            await exchange.head()
        exchange.close()
        await origin.all_left()

        assert transport.idle == 0


@on_every_loop
async def test_idle_connection_that_is_closing_is_skipped() -> None:
    """Its socket failed in this very turn of the loop."""
    async with ScriptedOrigin() as origin, engine(origin) as transport:
        await body_of(await exchange_on(transport, get()))
        (connection,) = transport._idle
        assert connection._transport is not None
        connection._transport.abort()

        assert transport.reuse(get(), b"", more=False) is None
        await until(lambda: transport.connections == 0)


@on_every_loop
async def test_switched_connection_is_given_away() -> None:
    """It is ours no longer: not counted, not closed at the end, nor kept."""
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
