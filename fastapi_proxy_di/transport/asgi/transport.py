"""Transport to an in-process app: a task for each exchange, without sockets.

The app gets a new scope, as from a server whose only client is the gateway: of the proxied
request it sees only what is sent, such as path and headers.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final
from urllib.parse import unquote, unquote_to_bytes

from fastapi_proxy_di.errors import UpstreamConnectError
from fastapi_proxy_di.settings import LimitSettings, TimeoutSettings
from fastapi_proxy_di.transport.asgi.exchange import AsgiExchange
from fastapi_proxy_di.transport.asgi.inner_app import AppStartFailed, InnerApp
from fastapi_proxy_di.transport.asgi.websocket import AsgiHandshake
from fastapi_proxy_di.transport.protocol import OutgoingRequest
from fastapi_proxy_di.transport.websocket.handshake import offered_subprotocols
from fastapi_proxy_di.wire.addresses import Address

_END_SECONDS: Final = 1.0
"""How long the calls of an app may take to end when the upstream closes, until cancelled."""

_CLIENT: Final = ("127.0.0.1", 0)
"""The client address in the app's scope: a loopback peer, whose forwarding headers most proxy
middlewares trust by default."""


class AsgiTransport:
    """A `Transport` to an app of this process.

    Args:
        inner: The app.
        address: The address of the destination, for its base path.
    """

    def __init__(self, inner: InnerApp, address: Address) -> None:
        self._inner = inner.use()
        self._root_path = unquote(address.base_path.decode("ascii"))
        self._server = (address.host, address.port)
        self._exchanges: dict[asyncio.Task[None], AsgiExchange] = {}
        self._closed = False
        self._closing: asyncio.Task[None] | None = None

    @property
    def connections(self) -> int:
        """Zero: an app of this process needs no connections."""
        return 0

    @property
    def idle(self) -> int:
        """Zero, as ``connections``."""
        return 0

    @property
    def dialling(self) -> bool:
        """False: there is nothing to connect to."""
        return False

    def reuse(self, request: OutgoingRequest, body: bytes, *, more: bool) -> AsgiExchange | None:
        if not self._inner.started or self._closed:
            return None
        return self._begin(request, body, more)

    async def start(self, request: OutgoingRequest, body: bytes, *, more: bool) -> AsgiExchange:
        await self.probe()
        return self._begin(request, body, more)

    async def probe(self) -> None:
        """Start the app, unless it has started already."""
        if self._closed:
            raise UpstreamConnectError("the upstream is shut down")
        try:
            await self._inner.start()
        except AppStartFailed as error:
            raise UpstreamConnectError(str(error)) from error

    def configure(
        self, limits: LimitSettings, timeouts: TimeoutSettings, *, title_case: bool
    ) -> None:
        """Do nothing: these settings are of connections."""

    def retire(self) -> None:
        """Do nothing: an app of this process has no connections."""

    async def aclose(self) -> None:
        """End the exchanges under way, and release the app.

        A caller that is cancelled leaves the shutdown of the app to the next one.
        """
        self._closed = True
        if self._closing is None:
            self._closing = self._inner.task(self._close, "close")
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        tasks = tuple(self._exchanges)
        for exchange in self._exchanges.values():
            exchange.fail(UpstreamConnectError("the upstream is shut down"))
            exchange.close()
        if tasks:
            await asyncio.wait(tasks, timeout=_END_SECONDS)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._inner.release()

    def _begin(self, request: OutgoingRequest, body: bytes, more: bool) -> AsgiExchange:
        scope = self._scope(request)
        exchange: AsgiExchange
        if request.upgrade:
            scope |= {
                "type": "websocket",
                "asgi": {"version": "3.0", "spec_version": "2.4"},
                "scheme": "ws",
                "subprotocols": list(offered_subprotocols(request.headers)),
                "extensions": {"websocket.http.response": {}},
            }
            keys = [value for name, value in request.headers if name == b"sec-websocket-key"]
            exchange = AsgiHandshake(scope, keys[0])
        else:
            scope |= {
                "type": "http",
                # As uvicorn's: Starlette then notices a disconnect while it streams.
                "asgi": {"version": "3.0", "spec_version": "2.3"},
                "scheme": "http",
                "method": request.method.decode("ascii"),
                "extensions": {"http.response.trailers": {}},
            }
            exchange = AsgiExchange(scope, body, more=more)
        task = self._inner.task(lambda: exchange.run(self._inner), "request")
        self._exchanges[task] = exchange
        task.add_done_callback(self._done)
        return exchange

    def _done(self, task: asyncio.Task[None]) -> None:
        del self._exchanges[task]

    def _scope(self, request: OutgoingRequest) -> dict[str, Any]:
        raw_path, _, query = request.target.partition(b"?")
        return {
            "http_version": "1.1",
            "path": unquote_to_bytes(raw_path).decode("utf-8", "replace"),
            "raw_path": raw_path,
            "query_string": query,
            "root_path": self._root_path,
            "headers": request.headers,
            "client": _CLIENT,
            "server": self._server,
            "state": self._inner.state.copy(),
        }
