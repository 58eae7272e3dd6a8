"""Maps our errors to httpx's exceptions, for code that calls upstreams with httpx."""

from __future__ import annotations

from typing import Final

import httpx

from fastapi_proxy_di.errors import Failure, ProxyError

_EXCEPTIONS: Final[dict[Failure, type[httpx.TransportError]]] = {
    Failure.NO_AVAILABLE_DESTINATION: httpx.ConnectError,
    Failure.LIMIT_EXCEEDED: httpx.PoolTimeout,
    Failure.LOCAL_RESOURCES: httpx.ConnectError,
    Failure.CONNECT: httpx.ConnectError,
    Failure.CONNECT_TIMEOUT: httpx.ConnectTimeout,
    Failure.TLS: httpx.ConnectError,
    Failure.REQUEST_WRITE: httpx.WriteError,
    Failure.NOT_PROCESSED: httpx.RemoteProtocolError,
    Failure.RESPONSE_HEAD: httpx.RemoteProtocolError,
    Failure.RESPONSE_MALFORMED: httpx.RemoteProtocolError,
    Failure.RESPONSE_BODY: httpx.RemoteProtocolError,
    Failure.FIRST_BYTE_TIMEOUT: httpx.ReadTimeout,
    Failure.ACTIVITY_TIMEOUT: httpx.ReadTimeout,
    Failure.TOTAL_TIMEOUT: httpx.ReadTimeout,
    Failure.REQUEST_INVALID: httpx.LocalProtocolError,
    Failure.REQUEST_BODY_TOO_LARGE: httpx.LocalProtocolError,
    # The caller has read nothing of the response for the whole activity timeout.
    Failure.CLIENT_DISCONNECTED: httpx.ReadTimeout,
}

_both: Final[dict[tuple[type, type], type[httpx.TransportError]]] = {}


def httpx_error(
    error: ProxyError, request: httpx.Request, theirs: type[httpx.TransportError] | None = None
) -> httpx.TransportError:
    """Give the exception that callers of httpx, SDKs among them, expect for ``error``.

    The exception is one of httpx and one of this package at once: ``except httpx.ConnectError``
    and ``except UpstreamConnectError`` both catch it. If an endpoint does not catch it, the
    client gets the same status as for a proxied request.

    Args:
        error: The error of the exchange.
        request: The request of httpx.
        theirs: Type of httpx's exception, if not the one of the failure.
    """
    theirs, ours = theirs or _EXCEPTIONS[error.failure], type(error)
    both = _both.get((theirs, ours))
    if both is None:
        names = {"__module__": __name__, "__doc__": f"`{ours.__name__}`, as httpx names it."}
        both = _both[theirs, ours] = type(theirs.__name__, (theirs, ours), names)
    made = both(str(error), request=request)
    vars(made).update(vars(error))
    return made
