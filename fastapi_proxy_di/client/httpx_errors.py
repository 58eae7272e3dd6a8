"""Maps our errors to the exceptions of httpx or httpx2, for code that calls upstreams with them."""

from __future__ import annotations

from types import ModuleType
from typing import Final

import httpx

from fastapi_proxy_di.errors import Failure, ProxyError

__all__ = ["HttpxErrors"]

_NAMES: Final[dict[Failure, str]] = {
    Failure.NO_AVAILABLE_DESTINATION: "ConnectError",
    Failure.LIMIT_EXCEEDED: "PoolTimeout",
    Failure.UPSTREAM_CLOSED: "ConnectError",
    Failure.LOCAL_RESOURCES: "ConnectError",
    Failure.RESOLVE: "ConnectError",
    Failure.REFUSED_ADDRESS: "ConnectError",
    Failure.CONNECT: "ConnectError",
    Failure.CONNECT_TIMEOUT: "ConnectTimeout",
    Failure.TLS: "ConnectError",
    Failure.REQUEST_WRITE: "WriteError",
    Failure.NOT_PROCESSED: "RemoteProtocolError",
    Failure.RESPONSE_HEAD: "RemoteProtocolError",
    Failure.RESPONSE_MALFORMED: "RemoteProtocolError",
    Failure.RESPONSE_BODY: "RemoteProtocolError",
    Failure.FIRST_BYTE_TIMEOUT: "ReadTimeout",
    Failure.FIRST_EVENT: "RemoteProtocolError",
    Failure.FIRST_EVENT_TIMEOUT: "ReadTimeout",
    Failure.STREAM_IDLE: "ReadTimeout",
    Failure.ACTIVITY_TIMEOUT: "ReadTimeout",
    Failure.TOTAL_TIMEOUT: "ReadTimeout",
    Failure.REQUEST_INVALID: "LocalProtocolError",
    Failure.REQUEST_BODY_TOO_LARGE: "LocalProtocolError",
    # The caller has read nothing of the response for the whole activity timeout.
    Failure.CLIENT_DISCONNECTED: "ReadTimeout",
}


class HttpxErrors:
    """Makes exceptions of httpx or httpx2, which name them alike.

    Args:
        library: The module httpx or httpx2.

    Attributes:
        base: The base class of the exceptions.
        unsupported: The exception for a URL that the client does not reach.
    """

    def __init__(self, library: ModuleType) -> None:
        self.base: type[httpx.TransportError] = library.TransportError
        self.unsupported: type[httpx.UnsupportedProtocol] = library.UnsupportedProtocol
        self._library: Final = library
        self._both: Final[dict[tuple[str, type], type[httpx.TransportError]]] = {}

    def make(
        self, error: ProxyError, request: httpx.Request, name: str | None = None
    ) -> httpx.TransportError:
        """Give the exception that callers of the library, SDKs among them, expect for ``error``.

        The exception is one of the library and one of this package at once: ``except
        httpx.ConnectError`` and ``except UpstreamConnectError`` both catch it. If an endpoint does
        not catch it, the client gets the same status as for a proxied request.

        Args:
            error: The error of the exchange.
            request: The request of the library.
            name: Name of the library's exception, if not the one of the failure.
        """
        name, ours = name or _NAMES[error.failure], type(error)
        both = self._both.get((name, ours))
        if both is None:
            doc = f"`{ours.__name__}`, as {self._library.__name__} names it."
            bases = (getattr(self._library, name), ours)
            both = type(name, bases, {"__module__": __name__, "__doc__": doc})
            self._both[name, ours] = both
        made = both(str(error), request=request)
        vars(made).update(vars(error))
        return made
