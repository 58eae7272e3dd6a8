"""Forwards WebSockets: dials the destination, then accepts the client, then copies both ways.

1. Build the handshake to send: the client's headers and subprotocols, and a new key.
2. Send the handshake like any request (``journey``): pick, connect, send, wait for the head.
3. If it is refused, send the refusal to the client. If not, check the 101 and accept.
4. Copy messages (``tunnel``) until one side ends.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from typing import Final, NamedTuple

from starlette.responses import Response
from starlette.types import Message

from fastapi_proxy_di.balancing.affinity import Binding
from fastapi_proxy_di.errors import ClientDisconnected, ProxyError
from fastapi_proxy_di.forwarding.deadlines import Deadlines
from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.forwarding.journey import Journey
from fastapi_proxy_di.forwarding.open_tunnels import OpenTunnels
from fastapi_proxy_di.forwarding.overrides import Overrides
from fastapi_proxy_di.forwarding.request import RequestBuilder
from fastapi_proxy_di.forwarding.response import TransferBroken, UpstreamResponse
from fastapi_proxy_di.forwarding.response_headers import ResponseHeaders
from fastapi_proxy_di.forwarding.transforming import Answered
from fastapi_proxy_di.forwarding.tunnel import Tunnel, TunnelEnd
from fastapi_proxy_di.forwarding.watcher import Watcher
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.settings import UpstreamSettings
from fastapi_proxy_di.transport.protocol import (
    Headers,
    OpensWebSocket,
    OpenWebSocket,
    TransportExchange,
)
from fastapi_proxy_di.transport.websocket.connection import UpstreamWebSocket
from fastapi_proxy_di.transport.websocket.handshake import (
    Accepted,
    check_accept,
    new_key,
    subprotocols_to_offer,
    upgrade_headers,
)
from fastapi_proxy_di.wire.headers import HANDSHAKE_HEADERS

_logger = logging.getLogger("fastapi_proxy_di.websocket")

_DENIAL: Final = "websocket.http.response"


class WebSocketForwarder:
    """Tunnels WebSockets to one upstream.

    Args:
        settings: The settings of the upstream.
        journey: The journey of its exchanges.
        builder: Builds the handshakes to send.
        response_headers: Builds the response headers that clients get.
        tunnels: The open tunnels of the upstream.
        binding: Keeps clients on their destination, ``None`` for no affinity.
    """

    def __init__(
        self,
        settings: UpstreamSettings,
        journey: Journey,
        builder: RequestBuilder,
        response_headers: ResponseHeaders,
        tunnels: OpenTunnels,
        binding: Binding | None = None,
    ) -> None:
        self._name: Final = settings.name
        self._settings: Final = settings.websocket
        self._journey: Final = journey
        self._builder: Final = builder
        self._response_headers: Final = response_headers
        self._binding: Final = binding
        self._tunnels: Final = tunnels

    async def forward(
        self,
        exchange: Exchange,
        *,
        subprotocols: Sequence[str] | None = None,
        open_timeout: float | None = None,
    ) -> TunnelEnd | None:
        """Tunnel a client's WebSocket whose ``websocket.connect`` has been received.

        Args:
            exchange: The exchange of the client's handshake.
            subprotocols: The subprotocols to offer instead of the client's.
            open_timeout: Seconds for the handshake instead of ``websocket.open_timeout``.

        Returns:
            The end of the tunnel; ``None`` if the handshake was refused.

        Raises:
            ProxyError: No destination responded to the handshake; nothing was sent to the client.
            ValueError: The overrides or ``subprotocols`` contain values that may not be sent.
        """
        seconds = self._settings.open_timeout if open_timeout is None else open_timeout
        watcher = Watcher(self._name, Deadlines(activity=None, first_byte=seconds, total=seconds))
        exchange.begin(watcher, self._journey.observers)
        failure: BaseException | None = None
        try:
            try:
                offered = self._build(exchange, subprotocols)
            except Answered as answered:
                await self._deny(exchange, answered.response)
                return None
            watcher.start(exchange)
            try:
                await self._journey.send(exchange)
                if exchange.response.status != 101:
                    failure = await self._refuse(exchange)
                    return None
            finally:
                # From now on the tunnel reads the client's messages.
                rest = watcher.end(exchange)
                if rest is not None:
                    await rest
            return await self._accept(exchange, offered)
        except ClientDisconnected as error:
            failure = error
            if exchange.in_flight:
                raise
            return None
        except BaseException as error:
            failure = error
            raise
        finally:
            _ = self._journey.end(exchange, failure)

    def _build(self, exchange: Exchange, subprotocols: Sequence[str] | None) -> _Offer:
        if exchange.overrides is not None:
            _refuse_handshake_headers(exchange.overrides)
        self._builder.build(exchange, drop=HANDSHAKE_HEADERS.__contains__)
        # Not from the headers: some servers (uvicorn's wsproto) remove the offer from them.
        offered = subprotocols_to_offer(exchange.scope.get("subprotocols") or (), subprotocols)
        nonce = new_key()
        if self._binding is not None:
            exchange.headers = self._binding.strip(exchange.headers)
        exchange.headers += upgrade_headers(nonce, offered, compression=self._settings.compression)
        exchange.upgrade = True
        return _Offer(nonce, offered)

    async def _accept(self, exchange: Exchange, offer: _Offer) -> TunnelEnd | None:
        response = exchange.response
        accepted = check_accept(
            response.status,
            response.headers,
            offer.nonce,
            offer.subprotocols,
            compression=self._settings.compression,
        )
        # First, because the end of the exchange does not close a connection that is taken over.
        headers = self._headers(exchange, 101, accepted.headers)
        upstream = self._open(response, accepted)
        return await self._tunnel(exchange, upstream, accepted, headers)

    def _headers(self, exchange: Exchange, status: int, received: Headers) -> Headers:
        return self._response_headers.build(exchange, status, received, pass_trailers=False)

    def _open(self, response: TransportExchange, accepted: Accepted) -> OpenWebSocket:
        if isinstance(response, OpensWebSocket):
            return response.websocket(max_message_bytes=self._settings.max_message_bytes)
        transport, leftover = response.detach()
        return UpstreamWebSocket(
            transport,
            leftover,
            max_message_bytes=self._settings.max_message_bytes,
            extensions=accepted.extensions,
            ping_interval=self._settings.ping_interval,
            ping_timeout=self._settings.ping_timeout,
        )

    async def _tunnel(
        self, exchange: Exchange, upstream: OpenWebSocket, accepted: Accepted, headers: Headers
    ) -> TunnelEnd | None:
        assert exchange.receive is not None
        assert exchange.send is not None
        tunnel = Tunnel(exchange.receive, exchange.send, upstream, name=self._name)
        self._tunnels.add(exchange.destination, tunnel)
        try:
            await exchange.send(
                {
                    "type": "websocket.accept",
                    "subprotocol": accepted.subprotocol,
                    "headers": headers,
                }
            )
            await tunnel.run()
        finally:
            upstream.abort()
            self._tunnels.remove(exchange.destination, tunnel)
            exchange.tunnel_end = tunnel.end
            if tunnel.end is not None:
                self._ended(exchange.destination, tunnel.end)
        return tunnel.end

    def _ended(self, destination: Destination, end: TunnelEnd) -> None:
        self._tunnels.ends[end.reason] += 1
        url, reason, error = destination.url, end.reason.value, end.error
        if error is not None:
            self._journey.outcomes.failed_late(destination, 101, error)
            self._journey.failures.tunnel_ended(url, error, reason, end.code)
            return
        destination.completed += 1
        if _logger.isEnabledFor(logging.DEBUG):
            _logger.debug(
                "%s: the tunnel to %s ended: %s (%d)",
                self._name,
                url,
                reason,
                end.code,
                extra={
                    "upstream": self._name,
                    "destination": url,
                    "reason": reason,
                    "code": end.code,
                },
            )

    async def _deny(self, exchange: Exchange, response: Response) -> None:
        """Refuse the handshake with a response of a request transform."""
        assert exchange.receive is not None
        assert exchange.send is not None
        if exchange.observer is not None:
            exchange.observer.responded(exchange, response.status_code, response.raw_headers)
        if _DENIAL in (exchange.scope.get("extensions") or ()):
            await response(exchange.scope, exchange.receive, exchange.send)
        else:
            await exchange.send({"type": "websocket.close", "code": 1000})

    async def _refuse(self, exchange: Exchange) -> ProxyError | None:
        """Send the upstream's refusal to the client: status, headers and body.

        Returns:
            The failure that broke off the refusal, which is in the log; ``None`` if it is complete.
            The server gets no exception, so that it logs no traceback.
        """
        refusal, send = exchange.response, exchange.send
        headers = self._headers(exchange, refusal.status, refusal.headers)
        assert exchange.receive is not None
        assert send is not None
        if _DENIAL not in (exchange.scope.get("extensions") or ()):
            await send({"type": "websocket.close", "code": 1000})
            return None

        async def deny(message: Message) -> None:
            await send({**message, "type": f"websocket.{message['type']}"})

        broken_by: ProxyError | None = None

        def ended(_: Exchange, failure: BaseException | None) -> None:
            # ``forward`` ends the exchange.
            nonlocal broken_by
            if isinstance(failure, ProxyError):
                broken_by = failure
                failures, url = self._journey.failures, exchange.destination.url
                failures.broke_off(url, failure, exchange.attempts)

        response = UpstreamResponse(exchange, headers, trailers=False, end=ended)
        with contextlib.suppress(OSError, TransferBroken):
            await response(exchange.scope, exchange.receive, deny)
        return broken_by


class _Offer(NamedTuple):
    """The nonce and subprotocols of a handshake request, to check its response against."""

    nonce: bytes
    subprotocols: Sequence[str]


def _refuse_handshake_headers(overrides: Overrides) -> None:
    """Raise if the overrides name a header that the handshake sets itself."""
    for name, _ in (*(overrides.replaced or ()), *(overrides.additional or ())):
        if name in HANDSHAKE_HEADERS:
            raise ValueError(
                f"{name.decode()} is made for each handshake; use subprotocols= to offer some"
            )
