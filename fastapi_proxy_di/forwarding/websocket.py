"""The journey of one WebSocket: dial first, accept after, then copy both ways.

1. Build the handshake that leaves: the client's fields, our own key, its subprotocols.
2. Dispatch it as any request: pick, connect, send, wait for the head; again where allowed.
3. Refused: the refusal goes to the client as it is. Accepted: check the 101, accept.
4. Tie the two together (``tunnel``) until one of them ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from starlette.types import Message, Receive, Scope, Send

from fastapi_proxy_di.balancing.affinity import Binding
from fastapi_proxy_di.balancing.policy import PickRequest
from fastapi_proxy_di.errors import ClientDisconnected, ProxyError
from fastapi_proxy_di.forwarding.deadlines import Deadlines, Grace, Watch
from fastapi_proxy_di.forwarding.dispatch import Dispatcher
from fastapi_proxy_di.forwarding.outbound import OutboundBuilder, Overrides
from fastapi_proxy_di.forwarding.response import Answer, answer_fields
from fastapi_proxy_di.forwarding.transforming import joined, transform_answer
from fastapi_proxy_di.forwarding.tunnel import Tunnel, TunnelEnd, WebSocketEnd
from fastapi_proxy_di.observability.access_record import Records, Trace
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.transforms.pipeline import Pipeline
from fastapi_proxy_di.transport.protocol import (
    Headers,
    OpensWebSocket,
    OpenWebSocket,
    TransportExchange,
)
from fastapi_proxy_di.transport.websocket.connection import UpstreamWebSocket
from fastapi_proxy_di.wire.handshake import (
    Accepted,
    check_accept,
    new_key,
    subprotocols_to_offer,
    upgrade_headers,
)
from fastapi_proxy_di.wire.headers import HANDSHAKE_FIELDS, FieldTable

_logger = logging.getLogger("fastapi_proxy_di.websocket")

_DENIAL: Final = "websocket.http.response"


@dataclass(frozen=True, slots=True)
class WebSocketRules:
    """The settings as tunnels read them; see ``WebSocketSettings`` for their meaning."""

    open_timeout: float
    max_message_bytes: int | None
    ping_interval: float | None
    ping_timeout: float | None
    compression: bool
    response_headers: Headers


class WebSocketForwarder:
    """Tunnels WebSockets to one upstream.

    Attributes:
        ends: How many tunnels each reason has ended since the start.

    Args:
        name: The upstream's.
        builder: Makes the handshakes that leave.
        dispatcher: Sends them.
        fields: Which response fields cross.
        rules: The settings.
        binding: Keeps clients on their destination, ``None`` for no affinity.
        transforms: The upstream's.
        records: What is told about exchanges.
    """

    def __init__(
        self,
        *,
        name: str,
        builder: OutboundBuilder,
        dispatcher: Dispatcher,
        fields: FieldTable,
        rules: WebSocketRules,
        binding: Binding | None = None,
        transforms: Pipeline | None = None,
        records: Records | None = None,
    ) -> None:
        self._name = name
        self._builder = builder
        self._dispatcher = dispatcher
        self._fields = fields
        self._rules = rules
        self._binding = binding
        self._transforms = transforms
        self._records = records
        self._loop = asyncio.get_running_loop()
        self._tunnels: dict[Destination, set[Tunnel]] = {}
        self.ends: dict[WebSocketEnd, int] = dict.fromkeys(WebSocketEnd, 0)

    def forward(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        path: bytes,
        prefix: bytes,
        overrides: Overrides | None = None,
        *,
        subprotocols: Sequence[str] | None = None,
        open_timeout: float | None = None,
        key: PickRequest | None = None,
    ) -> Coroutine[Any, Any, TunnelEnd | None]:
        """Tunnel a client's WebSocket whose ``websocket.connect`` has been received.

        Args:
            scope: Of the client's handshake.
            receive: The server's.
            send: The server's.
            path: Raw path below the mount.
            prefix: Raw path of the mount.
            overrides: What the caller wants otherwise.
            subprotocols: Offered instead of the client's.
            open_timeout: Seconds for the handshake instead of ``websocket.open_timeout``.
            key: What the policy may see of the request.

        Returns:
            How it ended; ``None`` if it never opened.

        Raises:
            ProxyError: No destination answered the handshake; nothing was sent to the client.
            ValueError: ``overrides`` or ``subprotocols`` hold what may not be sent.
        """
        trace = None if self._records is None else self._records.begin(scope)
        tunnel = self._forward(
            scope, receive, send, path, prefix, overrides, subprotocols, open_timeout, key, trace
        )
        return tunnel if trace is None else trace.follow(tunnel)

    async def _forward(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        path: bytes,
        prefix: bytes,
        overrides: Overrides | None,
        subprotocols: Sequence[str] | None,
        open_timeout: float | None,
        key: PickRequest | None,
        trace: Trace | None,
    ) -> TunnelEnd | None:
        rules = self._rules
        if overrides is not None:
            _refuse_handshake_fields(overrides)
        outbound = self._builder.build(
            scope, path, prefix, overrides, drop=HANDSHAKE_FIELDS.__contains__
        )
        # Not from the headers: some servers (uvicorn's wsproto) take the offer out of them.
        offered = subprotocols_to_offer(scope.get("subprotocols") or (), subprotocols)
        nonce = new_key()
        if self._binding is not None:
            outbound.headers = self._binding.strip(outbound.headers)
        outbound.headers += upgrade_headers(nonce, offered, compression=rules.compression)
        outbound.upgrade = True
        outbound.trace = trace
        seconds = rules.open_timeout if open_timeout is None else open_timeout
        deadlines = Deadlines(activity=None, first_byte=seconds, total=seconds)
        watch = Watch(
            self._loop, deadlines, Grace(self._loop, deadlines.grace), receive, self._name
        )
        try:
            exchange, destination = await self._dispatcher.dispatch(outbound, None, watch, key)
        except ClientDisconnected:
            return None
        finally:
            # Watching ends here: from now on the tunnel reads what the client sends.
            rest = watch.close()
            if rest is not None:
                await rest
        crossing = partial(
            self._crossing, scope, path, prefix, overrides, destination, outbound.host
        )
        try:
            if exchange.status != 101:
                headers = crossing(exchange.headers, exchange.status)
                if trace is not None:
                    trace.answered(exchange.status, destination, headers)
                await self._refuse(scope, receive, send, exchange, headers)
                return None
            accepted = check_accept(
                exchange.status,
                exchange.headers,
                nonce,
                offered,
                compression=rules.compression,
            )
            # First: whoever takes the connection over, keeps it from being closed below.
            headers = crossing(accepted.headers, 101)
            upstream = self._open(exchange, accepted)
            if trace is not None:
                trace.answered(101, destination, headers)
            return await self._tunnel(
                send, receive, upstream, accepted, destination, headers, trace
            )
        except ProxyError as error:
            self._dispatcher.failed_late(destination, error)
            raise
        finally:
            exchange.close()
            self._dispatcher.release(destination)

    @property
    def open_tunnels(self) -> int:
        """How many tunnels are open."""
        return sum(map(len, self._tunnels.values()))

    def tunnels(self, destination: Destination) -> frozenset[Tunnel]:
        """The tunnels that are open to ``destination``."""
        return frozenset(self._tunnels.get(destination, ()))

    def _crossing(
        self,
        scope: Scope,
        path: bytes,
        prefix: bytes,
        overrides: Overrides | None,
        destination: Destination,
        host: bytes | None,
        headers: Headers,
        status: int,
    ) -> Headers:
        """The headers of the handshake's answer that go to the client."""
        own = self._rules.response_headers
        kept = answer_fields(headers, status, self._fields, pass_trailers=False) + own
        transforms = joined(self._transforms, None if overrides is None else overrides.transforms)
        if transforms is not None:
            kept = transform_answer(
                transforms,
                kept,
                status,
                scope=scope,
                path=path,
                prefix=prefix,
                destination=destination,
                host=host,
                own=own,
            )
        if self._binding is not None:
            kept += self._binding.remember(scope, prefix, destination)
        return kept

    def _open(self, exchange: TransportExchange, accepted: Accepted) -> OpenWebSocket:
        if isinstance(exchange, OpensWebSocket):
            return exchange.websocket(max_message_bytes=self._rules.max_message_bytes)
        transport, leftover = exchange.detach()
        return UpstreamWebSocket(
            transport,
            leftover,
            max_message_bytes=self._rules.max_message_bytes,
            deflate=accepted.deflate,
            ping_interval=self._rules.ping_interval,
            ping_timeout=self._rules.ping_timeout,
        )

    async def _tunnel(
        self,
        send: Send,
        receive: Receive,
        upstream: OpenWebSocket,
        accepted: Accepted,
        destination: Destination,
        headers: Headers,
        trace: Trace | None,
    ) -> TunnelEnd | None:
        tunnel = Tunnel(receive, send, upstream, name=self._name)
        tunnels = self._tunnels.setdefault(destination, set())
        tunnels.add(tunnel)
        try:
            await send(
                {
                    "type": "websocket.accept",
                    "subprotocol": accepted.subprotocol,
                    "headers": headers,
                }
            )
            await tunnel.run()
        finally:
            upstream.abort()
            tunnels.discard(tunnel)
            if not tunnels:
                self._tunnels.pop(destination, None)
            if trace is not None:
                trace.end = tunnel.end
            if tunnel.end is not None:
                self._ended(destination, tunnel.end)
        return tunnel.end

    def _ended(self, destination: Destination, end: TunnelEnd) -> None:
        self.ends[end.reason] += 1
        if end.error is not None:
            self._dispatcher.failed_late(destination, end.error)
        level = logging.DEBUG if end.error is None else logging.WARNING
        if _logger.isEnabledFor(level):
            _logger.log(
                level,
                "tunnel to %s ended: %s (%d)",
                destination.url,
                end.reason.value,
                end.code,
                extra={
                    "upstream": self._name,
                    "destination": destination.url,
                    "reason": end.reason.value,
                    "code": end.code,
                },
            )

    async def _refuse(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        exchange: TransportExchange,
        headers: Headers,
    ) -> None:
        """Hand the upstream's refusal to the client: status, headers and body."""
        if _DENIAL not in (scope.get("extensions") or ()):
            await send({"type": "websocket.close", "code": 1000})
            return

        async def deny(message: Message) -> None:
            await send({**message, "type": f"websocket.{message['type']}"})

        answer = Answer(
            exchange,
            exchange.status,
            headers,
            trailers=False,
            finish=lambda failure: None,
        )
        with contextlib.suppress(OSError):
            await answer(scope, receive, deny)


def _refuse_handshake_fields(overrides: Overrides) -> None:
    """Raise where the caller names a field that this hop's handshake makes itself."""
    for name, _ in (*(overrides.replaced or ()), *(overrides.additional or ())):
        if name in HANDSHAKE_FIELDS:
            raise ValueError(
                f"{name.decode()} is made for each handshake; use subprotocols= to offer some"
            )
