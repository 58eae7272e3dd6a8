"""Makes the headers and trailers of a response that are forwarded to the client."""

from __future__ import annotations

from typing import Final

from fastapi_proxy_di.balancing.affinity import Binding
from fastapi_proxy_di.balancing.cookie_affinity import CookieBinding
from fastapi_proxy_di.balancing.only_destination import OnlyDestination
from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.forwarding.redirects import leads_somewhere, places_of, rewrite_redirects
from fastapi_proxy_di.forwarding.transforming import joined, transform_response
from fastapi_proxy_di.pools.pool import Pool
from fastapi_proxy_di.transforms.cookies import rewrite_domain
from fastapi_proxy_di.transforms.pipeline import Pipeline
from fastapi_proxy_di.transport.protocol import Headers
from fastapi_proxy_di.wire.headers import (
    FRAMING,
    HOP_BY_HOP,
    PROXY_AUTHENTICATION,
    HeaderKind,
    HeaderKinds,
    nominated,
)

__all__ = ["HostOnlyCookies", "ResponseHeaders", "end_to_end_headers", "end_to_end_trailers"]

# Looking a member up in its enum takes 0.15 µs on CPython 3.11.
_CONNECTION: Final = HeaderKind.CONNECTION
_TRAILER: Final = HeaderKind.TRAILER

_BODYLESS_STATUSES: Final = frozenset({204, 304})
_NO_TRAILERS: Final = HOP_BY_HOP | FRAMING | PROXY_AUTHENTICATION | {b"host", b"set-cookie"}
_PLAIN_CONNECTION: Final = frozenset({b"keep-alive", b"close", b"Keep-Alive", b"Close"})


class ResponseHeaders:
    """Makes the headers that clients get, of responses and of accepted handshakes.

    Args:
        table: The kinds of headers, which tell the headers that are forwarded.
        own: ``response_headers`` of the settings.
        transforms: The transforms of the upstream.
        binding: Keeps clients on their destination, ``None`` for no affinity.
        pool: The destinations, which redirects may name.
        rewrites_location: Whether redirects to the upstream are rewritten.
    """

    def __init__(
        self,
        table: HeaderKinds,
        own: Headers,
        transforms: Pipeline | None,
        binding: Binding | None,
        pool: Pool,
        *,
        rewrites_location: bool,
    ) -> None:
        self._table: Final = table
        self._own: Final = own
        self._transforms: Final = transforms
        self._binding: Final = binding
        self._pool: Final = pool
        self._rewrites_location: Final = rewrites_location

    def build(
        self, exchange: Exchange, status: int, received: Headers, *, pass_trailers: bool
    ) -> Headers:
        """Give the headers for the client.

        Args:
            exchange: The exchange of the response.
            status: The status of the response.
            received: The headers of the response, names in lower case.
            pass_trailers: Whether the server can send trailers.
        """
        headers = end_to_end_headers(received, status, self._table, pass_trailers=pass_trailers)
        if exchange.method == b"HEAD" and exchange.scope.get("method", "GET") != "HEAD":
            # The Content-Length is that of a body which the upstream does not send.
            headers = [pair for pair in headers if pair[0] != b"content-length"]
        if self._own:
            headers += self._own
        if exchange.observer is not None:
            exchange.observer.responded(exchange, status, headers)
        transforms = self._transforms
        if exchange.overrides is not None:
            transforms = joined(transforms, exchange.overrides.transforms)
        if transforms is not None:
            destinations = self._pool.destinations
            headers = transform_response(
                transforms, exchange, status, headers, self._own, destinations
            )
        if self._rewrites_location and leads_somewhere(received):
            places = places_of(exchange, self._pool.destinations)
            headers = rewrite_redirects(headers, received, places)
        if self._binding is not None and not _named(exchange, self._binding):
            headers = self._binding.remember(
                headers, exchange.scope, exchange.prefix, exchange.destination
            )
        return headers


def _named(exchange: Exchange, binding: Binding) -> bool:
    """Whether the app has named the destination, to which no cookie binds the client then."""
    return isinstance(exchange.key, OnlyDestination) and isinstance(binding, CookieBinding)


class HostOnlyCookies(ResponseHeaders):
    """Makes the headers of responses whose cookies go back to this host alone.

    Without ``Domain`` a browser sends a cookie to the host that set it, and to no other
    (RFC 6265 section 5.3), so that no destination sets cookies for its neighbours.
    """

    def build(
        self, exchange: Exchange, status: int, received: Headers, *, pass_trailers: bool
    ) -> Headers:
        """Give the headers for the client, as `ResponseHeaders` does."""
        received = [
            (name, rewrite_domain(value, None, None) if name == b"set-cookie" else value)
            for name, value in received
        ]
        return super().build(exchange, status, received, pass_trailers=pass_trailers)


def end_to_end_headers(
    headers: Headers, status: int, table: HeaderKinds, *, pass_trailers: bool
) -> Headers:
    """Give the headers of a response that are forwarded to the client.

    Args:
        headers: The received headers, names in lower case.
        status: The status of the response.
        table: The kinds of headers, which tell the headers that are forwarded.
        pass_trailers: Whether the server can send trailers, so that ``Trailer`` may stay.
    """
    kept: Headers = []
    connection: list[bytes] = []
    for pair in headers:
        kind = table[pair[0]]
        if not kind:
            kept.append(pair)
        elif kind is _CONNECTION:
            if pair[1] not in _PLAIN_CONNECTION:
                connection.append(pair[1])
        elif kind is _TRAILER and pass_trailers:
            kept.append(pair)
    if connection:
        names = nominated(connection) - {b"content-length"}
        kept = [pair for pair in kept if pair[0] not in names]
    if status in _BODYLESS_STATUSES:
        # RFC 9110 section 15.4.5 lets a 304 do without it, 8.6 forbids it on a 204, and
        # uvicorn takes it for a body that is missing.
        kept = [pair for pair in kept if pair[0] != b"content-length"]
    return kept


def end_to_end_trailers(trailers: Headers) -> Headers:
    """Give the trailers to forward, without framing and routing (RFC 9110 section 6.5.1)."""
    return [pair for pair in trailers if pair[0] not in _NO_TRAILERS]
