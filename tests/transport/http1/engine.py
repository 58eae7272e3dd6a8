"""Requests, transports and exchanges for tests of the HTTP/1.1 engine."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from fastapi_proxy_di.settings import LimitSettings, TimeoutSettings
from fastapi_proxy_di.transport.dialling.dialler import Dialler
from fastapi_proxy_di.transport.http1.exchange import Http1Exchange
from fastapi_proxy_di.transport.http1.transport import Http1Transport
from fastapi_proxy_di.transport.protocol import Headers, OutgoingRequest
from fastapi_proxy_di.wire.addresses import parse_address
from tests.support.origins import ScriptedOrigin

__all__ = ["body_of", "engine", "exchange_on", "get", "post", "transport_to"]


def get(
    target: bytes = b"/",
    *,
    method: bytes = b"GET",
    headers: Sequence[tuple[bytes, bytes]] = (),
    reuse_within: float = 60.0,
    upgrade: bool = False,
) -> OutgoingRequest:
    """A request without a body."""
    return OutgoingRequest(
        method, target, [(b"host", b"origin"), *headers], reuse_within, upgrade=upgrade
    )


def post(
    length: int | None, *, method: bytes = b"POST", reuse_within: float = 60.0
) -> OutgoingRequest:
    """A request with a body of ``length`` bytes; ``None``: chunked."""
    framing = (
        (b"transfer-encoding", b"chunked")
        if length is None
        else (b"content-length", b"%d" % length)
    )
    headers: Headers = [(b"host", b"origin"), framing]
    return OutgoingRequest(
        method, b"/", headers, reuse_within, content_length=length, chunked=length is None
    )


def transport_to(
    url: str,
    *,
    ssl_context: ssl.SSLContext | None = None,
    server_name: str | None = None,
    timeouts: Mapping[str, float] = MappingProxyType({}),
    **limits: Any,
) -> Http1Transport:
    """A transport to ``url`` in the running loop, with the defaults of the settings."""
    dialler = Dialler(
        parse_address(url),
        ssl_context,
        server_name,
        TimeoutSettings(**timeouts),
    )
    return Http1Transport(dialler, LimitSettings(**limits))


@contextlib.asynccontextmanager
async def engine(origin: ScriptedOrigin, **options: Any) -> AsyncIterator[Http1Transport]:
    """Run a transport to a scripted origin; at the end no connection may be left."""
    transport = transport_to(origin.url, **options)
    try:
        yield transport
    finally:
        await transport.aclose()
        assert transport.connections == 0
        assert transport.idle == 0


async def exchange_on(
    transport: Http1Transport, request: OutgoingRequest, body: bytes = b"", *, more: bool = False
) -> Http1Exchange:
    """Send a request as the forwarder does: on an idle connection, or on a new one."""
    exchange = transport.reuse(request, body, more=more)
    return exchange or await transport.start(request, body, more=more)


async def body_of(exchange: Http1Exchange) -> bytes:
    """Read the whole body, and close the exchange."""
    await exchange.head()
    pieces = []
    while piece := await exchange.read():
        pieces.append(piece)
    exchange.close()
    return b"".join(pieces)
