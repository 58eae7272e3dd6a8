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
from fastapi_proxy_di.transport.http1.connection import Http1Connection
from fastapi_proxy_di.transport.http1.exchange import Http1Exchange
from fastapi_proxy_di.transport.http1.transport import Http1Transport
from tests.support.gateways import until
from tests.support.origins import ScriptedOrigin
from tests.support.servers import blackhole, dead_port
from tests.transport.http1.engine import body_of, engine, exchange_on, get, transport_to
from tests.transport.loops import on_every_loop


class _Stopped(Exception):
    """The exception with which a test ends an exchange."""


async def dial_error(transport: Http1Transport) -> ProxyError:
    """Give the error of a dial that must fail; nothing of the dial may be left."""
    try:
        with pytest.raises(ProxyError) as caught:
            await transport.start(get(), b"", more=False)
        await until(lambda: transport.connections == 0)
        return caught.value
    finally:
        await transport.aclose()


@on_every_loop
async def test_refused_connection_is_a_connect_error() -> None:
    """Nothing listens on the port."""
    error = await dial_error(transport_to(f"http://127.0.0.1:{dead_port()}"))

    assert isinstance(error, UpstreamConnectError)
    assert error.failure is Failure.CONNECT
    assert isinstance(error.__cause__, ConnectionRefusedError)


@on_every_loop
async def test_unknown_host_is_a_connect_error() -> None:
    """The name resolves to nothing (RFC 6761 section 6.4)."""
    error = await dial_error(transport_to("http://nonexistent.invalid"))

    assert isinstance(error, UpstreamConnectError)
    assert "cannot resolve" in str(error)


@on_every_loop
async def test_connect_timeout_ends_a_dial() -> None:
    """A host never responds to the SYN."""
    with blackhole() as port:
        error = await dial_error(transport_to(f"http://127.0.0.1:{port}", connect_timeout=0.05))

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
        (socket.gaierror(socket.EAI_NONAME, "x"), UpstreamConnectError, Failure.CONNECT),
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
