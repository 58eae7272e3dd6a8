"""From an address to the transport that reaches it. Once per destination, at start."""

from __future__ import annotations

import ssl

from fastapi_proxy_di.settings import UpstreamSettings
from fastapi_proxy_di.transport.asgi.inner_app import InnerApp
from fastapi_proxy_di.transport.asgi.transport import AsgiTransport
from fastapi_proxy_di.transport.http1.transport import READ_BUFFER_BYTES, Http1Transport
from fastapi_proxy_di.transport.protocol import Transport
from fastapi_proxy_di.transport.tls import client_context
from fastapi_proxy_di.wire.urls import Address


class TransportFactory:
    """Makes the transports of one upstream.

    Args:
        settings: The upstream's.
    """

    def __init__(self, settings: UpstreamSettings) -> None:
        self._settings = settings
        self._context: ssl.SSLContext | None = None
        self._http2_context: ssl.SSLContext | None = None
        self._buffer = memoryview(bytearray(READ_BUFFER_BYTES))
        # Two destinations may be one app at two base paths: it has one lifespan.
        self._apps: dict[str, InnerApp] = {}

    def make(self, address: Address) -> Transport:
        """Give a new transport to ``address``.

        Raises:
            ValueError: The settings do not fit it.
        """
        if address.app is not None:
            app = self._apps.get(address.app)
            if app is None or app.closed:
                app = self._apps[address.app] = InnerApp(address.app)
            return AsgiTransport(app, address)
        if self._settings.http_version == "2":
            return self._http2(address)
        return self._http1(address)

    def _http1(self, address: Address) -> Transport:
        settings = self._settings
        context: ssl.SSLContext | None = None
        if address.scheme == "https":
            if self._context is None:
                self._context = client_context(settings.tls, alpn=["http/1.1"])
            context = self._context
        return Http1Transport(
            address,
            ssl_context=context,
            server_name=settings.tls.server_name or address.server_name,
            connect_timeout=settings.timeouts.connect,
            idle_connections=settings.limits.idle_connections,
            idle_seconds=settings.limits.idle_seconds,
            header_limit=settings.limits.max_response_header_bytes,
            buffer=self._buffer,
        )

    def _http2(self, address: Address) -> Transport:
        try:
            from fastapi_proxy_di.transport.http2.transport import Http2Transport  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise ValueError(
                "http_version: 2 needs the extra http2; run pip install 'fastapi-proxy-di[http2]'"
            ) from error
        settings = self._settings
        context: ssl.SSLContext | None = None
        if address.scheme == "https":
            if self._http2_context is None:
                self._http2_context = client_context(settings.tls, alpn=["h2"])
            context = self._http2_context
        return Http2Transport(
            address,
            ssl_context=context,
            server_name=settings.tls.server_name or address.server_name,
            connect_timeout=settings.timeouts.connect,
            idle_seconds=settings.limits.idle_seconds,
            header_limit=settings.limits.max_response_header_bytes,
            http1=self._http1(address),
        )

    async def start(self) -> None:
        """Run the start of the lifespan of each in-process app, one after the other.

        Raises:
            AppStartFailed: One of them failed.
        """
        for app in self._apps.values():
            await app.start()
