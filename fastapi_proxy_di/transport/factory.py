"""Makes the transport to each destination, by the scheme of its address."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable
from copy import copy
from typing import Final, Self

from fastapi_proxy_di.settings import UpstreamSettings
from fastapi_proxy_di.transport.asgi.inner_app import InnerApp
from fastapi_proxy_di.transport.asgi.transport import AsgiTransport
from fastapi_proxy_di.transport.dialling.dialler import Dialler, Guard
from fastapi_proxy_di.transport.http1.transport import Http1Transport
from fastapi_proxy_di.transport.protocol import Transport
from fastapi_proxy_di.transport.tls import client_context, tls_state
from fastapi_proxy_di.wire.addresses import Address, parse_address

ANY: Final = parse_address("https://any.invalid")
"""Stands for the addresses of dynamic destinations, of which any may need TLS."""


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
        self._files = tls_state(settings.tls)
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
        factory = copy(self)
        factory.renew(settings, guard)
        factory.dial_failed = None
        _ = factory.make(ANY)  # certificates are read now, and not by the first request
        return factory

    def renewed(self, settings: UpstreamSettings, addresses: Iterable[Address]) -> Self:
        """Give a factory for changed settings, with the same in-process apps.

        It reads files and may take tens of milliseconds, so it should run in a thread.

        Args:
            settings: The changed settings.
            addresses: The addresses that transports are made to.

        Raises:
            ValueError: A certificate cannot be used; the text names the setting.
        """
        twin = copy(self)
        twin.renew(settings)
        if any(address.scheme == "https" for address in addresses):
            twin.make_contexts()
        return twin

    def renew(self, settings: UpstreamSettings, guard: Guard | None = None) -> None:
        """Make later transports by other settings, and with another guard."""
        self._guard = guard
        files = tls_state(settings.tls)
        if files != self._files:
            self._files, self._contexts = files, {}
        self._settings = settings

    def make_contexts(self) -> None:
        """Read the certificates now, instead of for the first transport that needs them."""
        for protocol in ("http/1.1", "h2") if self._settings.http_version == "2" else ("http/1.1",):
            self._context(protocol)

    def replaces(self, other: TransportFactory, address: Address) -> bool:
        """Whether the connections to ``address`` differ from those of another factory."""
        if address.app is not None:
            return False
        version = self._settings.http_version != other._settings.http_version
        return version or (address.scheme == "https" and self._files != other._files)

    def configure(self, transport: Transport) -> None:
        """Let a transport that another factory has made go by these settings."""
        settings = self._settings
        transport.configure(
            settings.limits, settings.timeouts, title_case=settings.header_case == "title"
        )

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
        # The name of the settings is that of the pool; an address that code gives is verified by
        # its own.
        server_name = self._settings.tls.server_name if self._guard is None else None
        context = self._context(protocol) if address.scheme == "https" else None
        timeouts = self._settings.timeouts
        return Dialler(address, context, server_name, timeouts, self._dial_failed, self._guard)

    def _context(self, protocol: str) -> ssl.SSLContext:
        context = self._contexts.get(protocol)
        if context is None:
            context = client_context(self._settings.tls, alpn=[protocol])
            self._contexts[protocol] = context
        return context

    def _dial_failed(self, url: str) -> None:
        if self.dial_failed is not None:
            self.dial_failed(url)
