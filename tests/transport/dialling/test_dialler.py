"""Dialling: connections, the errors of failed dials, and no socket left behind."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
import ssl
from pathlib import Path

import pytest

from fastapi_proxy_di.errors import (
    Failure,
    LocalResourcesExhausted,
    ProxyError,
    Side,
    UpstreamConnectError,
    UpstreamTimeout,
)
from fastapi_proxy_di.transport.dialling.dialler import connect_error
from fastapi_proxy_di.transport.dialling.resolver import resolver_of
from fastapi_proxy_di.transport.http1.connection import Http1Connection
from fastapi_proxy_di.transport.http1.exchange import Http1Exchange
from fastapi_proxy_di.transport.http1.transport import Http1Transport
from tests.support.gateways import until
from tests.support.name_servers import Names
from tests.support.origins import ScriptedOrigin
from tests.support.servers import blackhole, dead_port
from tests.transport.http1.engine import body_of, engine, exchange_on, get, transport_to
from tests.transport.loops import on_every_loop


class _Stopped(Exception):
    """The exception with which a test ends an exchange."""


async def dial_error(transport: Http1Transport) -> ProxyError:
    """Give the error of a dial that must fail; nothing of the dial may be left."""
    dial = asyncio.create_task(transport.start(get(), b"", more=False))
    await asyncio.wait([dial])
    await until(lambda: transport.connections == 0)
    await transport.aclose()
    error = dial.exception()
    assert isinstance(error, ProxyError)
    return error


@on_every_loop
async def test_refused_connection_is_a_connect_error() -> None:
    """Nothing listens on the port."""
    error = await dial_error(transport_to(f"http://127.0.0.1:{dead_port()}"))

    assert isinstance(error, UpstreamConnectError)
    assert error.failure is Failure.CONNECT
    assert isinstance(error.__cause__, ConnectionRefusedError)


@on_every_loop
async def test_unknown_host_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name does not exist: 502 ``resolve``, no timeout."""
    names = Names(monkeypatch)
    names.fail("unknown.test", socket.EAI_NONAME)

    error = await dial_error(transport_to("http://unknown.test"))

    assert isinstance(error, UpstreamConnectError)
    assert error.failure is Failure.RESOLVE
    assert (error.status, error.failure.unsent) == (502, True)
    assert str(error) == "cannot resolve the host of http://unknown.test: no such name"


@on_every_loop
async def test_look_up_that_hangs_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether ``timeouts.resolve`` or ``timeouts.connect`` ends it."""
    names = Names(monkeypatch)
    names.hang("dead.test")
    for timeouts in ({"connect": 0.05}, {"connect": 30, "resolve": 0.05}):
        error = await dial_error(transport_to("http://dead.test", timeouts=timeouts))

        assert isinstance(error, UpstreamTimeout)
        assert error.failure is Failure.CONNECT_TIMEOUT
        assert "the look-up of its name took too long" in str(error)
    names.release()
    await until(lambda: resolver_of(asyncio.get_running_loop()).abandoned == 0)


@on_every_loop
async def test_live_address_behind_a_silent_one_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name has two addresses, and nothing responds at the first one."""
    names = Names(monkeypatch)
    names.resolve("dual.test", "::1", "127.0.0.1")
    async with ScriptedOrigin() as origin:
        with blackhole("::1", origin.port):
            transport = transport_to(f"http://dual.test:{origin.port}")
            assert await body_of(await transport.start(get(), b"", more=False)) == b"ok"
            await transport.aclose()


@on_every_loop
async def test_refused_address_beside_a_silent_one_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The dial runs into its timeout, but one address has refused it."""
    names = Names(monkeypatch)
    names.resolve("dual.test", "127.0.0.1", "::1")
    with blackhole() as port:
        error = await dial_error(
            transport_to(f"http://dual.test:{port}", timeouts={"connect": 0.6})
        )

    assert error.failure is Failure.CONNECT
    assert isinstance(error, UpstreamConnectError)


@on_every_loop
async def test_connect_timeout_ends_a_dial() -> None:
    """A host never responds to the SYN."""
    with blackhole() as port:
        error = await dial_error(
            transport_to(f"http://127.0.0.1:{port}", timeouts={"connect": 0.05})
        )

    assert isinstance(error, UpstreamTimeout)
    assert error.failure is Failure.CONNECT_TIMEOUT
    assert error.status == 504


@on_every_loop
async def test_unix_socket_is_dialled(tmp_path: Path) -> None:
    """The same exchange over a path, and a missing socket."""
    path = str(tmp_path / "origin.sock")
    async with ScriptedOrigin(unix_path=path) as origin, engine(origin) as transport:
        assert await body_of(await exchange_on(transport, get())) == b"ok"
        assert (await exchange_on(transport, get())).reused

    missing = transport_to("http+unix://" + str(tmp_path / "none").replace("/", "%2F"))
    assert isinstance(await dial_error(missing), UpstreamConnectError)


@on_every_loop
async def test_no_descriptor_left_is_our_own_fault() -> None:
    """EMFILE gives 503 and counts against no destination."""
    async with ScriptedOrigin() as origin:
        transport = transport_to(origin.url)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = os.open(os.devnull, os.O_RDONLY)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            with pytest.raises(LocalResourcesExhausted) as caught:
                await transport.start(get(), b"", more=False)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert await body_of(await transport.start(get(), b"", more=False)) == b"ok"
        await transport.aclose()

    assert caught.value.failure.side is Side.PROXY
    assert caught.value.status == 503


@pytest.mark.parametrize(
    ("raised", "kind", "failure"),
    [
        (OSError(errno.EMFILE, "x"), LocalResourcesExhausted, Failure.LOCAL_RESOURCES),
        (OSError(errno.ENFILE, "x"), LocalResourcesExhausted, Failure.LOCAL_RESOURCES),
        (OSError(errno.EADDRNOTAVAIL, "x"), LocalResourcesExhausted, Failure.LOCAL_RESOURCES),
        (OSError(errno.ENOBUFS, "x"), LocalResourcesExhausted, Failure.LOCAL_RESOURCES),
        (OSError(errno.ENOMEM, "x"), LocalResourcesExhausted, Failure.LOCAL_RESOURCES),
        (OSError(errno.EHOSTUNREACH, "x"), UpstreamConnectError, Failure.CONNECT),
        (OSError(errno.ECONNRESET, "x"), UpstreamConnectError, Failure.CONNECT),
        (OSError("Multiple exceptions: ..."), UpstreamConnectError, Failure.CONNECT),
        (TimeoutError(errno.ETIMEDOUT, "x"), UpstreamTimeout, Failure.CONNECT_TIMEOUT),
        (socket.gaierror(socket.EAI_NONAME, "x"), UpstreamConnectError, Failure.RESOLVE),
        (socket.gaierror(socket.EAI_AGAIN, "x"), UpstreamConnectError, Failure.RESOLVE),
        (ssl.SSLError(1, "bad"), UpstreamConnectError, Failure.TLS),
        (UpstreamTimeout("x"), UpstreamTimeout, Failure.ACTIVITY_TIMEOUT),
    ],
)
def test_connect_error_tells_faults_apart(
    raised: Exception, kind: type[ProxyError], failure: Failure
) -> None:
    """Each exception of a dial is mapped to an error."""
    error = connect_error(raised, "http://x")

    assert type(error) is kind
    assert error.failure is failure


@on_every_loop
async def test_cancelled_dial_leaves_no_socket() -> None:
    """At whatever moment it is cancelled."""
    async with ScriptedOrigin() as origin, engine(origin) as transport:
        for turns in range(12):
            dial = asyncio.ensure_future(transport.start(get(), b"", more=False))
            for _ in range(turns):
                await asyncio.sleep(0)
            dial.cancel()
            result = (await asyncio.gather(dial, return_exceptions=True))[0]
            if isinstance(result, Http1Exchange):
                result.fail(_Stopped())
        await until(lambda: transport.connections == 0)
        await origin.all_left()


@on_every_loop
async def test_dial_under_way_at_aclose_keeps_nothing() -> None:
    """The dial ends with an error as soon as it connects."""
    async with ScriptedOrigin() as origin, engine(origin) as transport:
        dial = asyncio.ensure_future(transport.start(get(), b"", more=False))
        await asyncio.sleep(0)
        await transport.aclose()
        with pytest.raises(UpstreamConnectError, match="shut down"):
            await dial
        await until(lambda: transport.connections == 0)
        await origin.all_left()


@on_every_loop
@pytest.mark.parametrize("stage", ["look-up", "connect"])
async def test_aclose_ends_a_dial_that_waits(monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    """The dial has half a minute left, and ends at once."""
    names = Names(monkeypatch)
    names.resolve("slow.test", "127.0.0.1")
    if stage == "look-up":
        names.hang("slow.test")
    with blackhole() as port:
        transport = transport_to(f"http://slow.test:{port}", timeouts={"connect": 60})
        dial = asyncio.create_task(transport.start(get(), b"", more=False))
        await until(lambda: names.looked_up["slow.test"] == 1)
        await transport.aclose()
        with pytest.raises(UpstreamConnectError, match="shut down"):
            async with asyncio.timeout(20):
                await dial
    if stage == "look-up":
        names.release()
    resolver = resolver_of(asyncio.get_running_loop())
    await until(lambda: resolver.running + resolver.abandoned == 0)


@on_every_loop
async def test_connection_closed_at_once_is_a_connect_error() -> None:
    """Nothing was written, so the request may go to another destination."""
    made = Http1Connection.connection_made

    def made_and_lost(self: Http1Connection, transport: asyncio.BaseTransport) -> None:
        made(self, transport)
        self.abort()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Http1Connection, "connection_made", made_and_lost)
        async with ScriptedOrigin() as origin, engine(origin) as transport:
            with pytest.raises(UpstreamConnectError, match="as soon as it was open"):
                await transport.start(get(), b"", more=False)
            assert transport.connections == 0
            await origin.all_left()
