"""Makes the transport to each destination, by the scheme of its address."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Final

from fastapi_proxy_di.settings import UpstreamSettings
from fastapi_proxy_di.transport.asgi.inner_app import InnerApp
from fastapi_proxy_di.transport.asgi.transport import AsgiTransport
from fastapi_proxy_di.transport.dialling.dialler import Dialler, Guard
from fastapi_proxy_di.transport.http1.transport import Http1Transport
from fastapi_proxy_di.transport.protocol import Transport
from fastapi_proxy_di.transport.tls import client_context
from fastapi_proxy_di.wire.addresses import Address, parse_address

_ANY: Final = parse_address("https://any.invalid")


class TransportFactory:
    """Makes the transports of one upstream.

    Attributes:
        dial_failed: Called with the URL of an address each time a dial to it has failed.

    Args:
        settings: The settings of the upstream.
        guard: Judges each IP address before a dial, ``None`` allows all.
    """

    def __init__(self, settings: UpstreamSettings, guard: Guard | None = None) -> None:
        self.dial_failed: Callable[[str], None] | None = None
        self._settings = settings
        self._guard = guard
        # One TLS context for each protocol, because making one reads the machine's certificates.
        self._contexts: dict[str, ssl.SSLContext] = {}
        # Two destinations may be one app at two base paths, with one lifespan.
        self._apps: dict[str, InnerApp] = {}

    def make(self, address: Address) -> Transport:
        """Give a new transport to ``address``.

        Raises:
            ValueError: The settings do not fit the address.
        """
        if address.app is not None:
            app = self._apps.get(address.app)
            if app is None or app.closed:
                app = self._apps[address.app] = InnerApp(address.app, upstream=self._settings.name)
            return AsgiTransport(app, address)
        limits = self._settings.limits
        http1 = Http1Transport(
            self._dialler(address, "http/1.1"),
            limits,
            title_case=self._settings.header_case == "title",
        )
        if self._settings.http_version != "2":
            return http1
        try:
            # Imported late, because h2 is an extra.
            from fastapi_proxy_di.transport.http2.transport import Http2Transport  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise ValueError(
                "http_version: 2 needs the extra http2; run pip install 'fastapi-proxy-di[http2]'"
            ) from error
        ping = self._settings.timeouts.ping
        return Http2Transport(self._dialler(address, "h2"), limits, ping, http1)

    def guarded(self, settings: UpstreamSettings, guard: Guard) -> TransportFactory:
        """Give a factory whose transports dial only addresses that ``guard`` allows.

        Args:
            settings: The settings of the upstream.
            guard: Judges each IP address before a dial.

        Raises:
            ValueError: The settings fit no address.
        """
        factory = TransportFactory(settings, guard)
        _ = factory.make(_ANY)  # certificates are read now, and not by the first request
        return factory

    async def start(self) -> None:
        """Run the start of the lifespan of each in-process app, one after the other.

        Raises:
            AppStartFailed: One of them failed.
        """
        for app in self._apps.values():
            await app.start()

    def _dialler(self, address: Address, protocol: str) -> Dialler:
        """Return the dialler for connections to ``address``.

        Args:
            address: Where to connect.
            protocol: The protocol that TLS connections offer by ALPN.
        """
        tls = self._settings.tls
        context: ssl.SSLContext | None = None
        if address.scheme == "https":
            context = self._contexts.get(protocol)
            if context is None:
                context = self._contexts[protocol] = client_context(tls, alpn=[protocol])
        timeouts = self._settings.timeouts
        return Dialler(address, context, tls, timeouts, self._dial_failed, self._guard)

    def _dial_failed(self, url: str) -> None:
        if self.dial_failed is not None:
            self.dial_failed(url)
