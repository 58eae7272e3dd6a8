"""``Max-Forwards``: how many hops a TRACE or OPTIONS may still go (RFC 9110 section 7.6.2)."""

from __future__ import annotations

from typing import Final

from starlette.types import Scope

from fastapi_proxy_di.forwarding.response import LocalResponse

_COUNTED: Final = frozenset({"TRACE", "OPTIONS"})
_DIGITS: Final = 18
_SHOWN: Final = frozenset({b"host", b"max-forwards", b"via"})
"""Headers that a response to TRACE may reflect, none of which is a secret (section 9.3.8)."""


class LastHop(Exception):
    """Raised for a request with Max-Forwards 0, to which the gateway itself responds."""


def one_less(scope: Scope, pair: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    """Return the Max-Forwards header to send on, one less for TRACE and OPTIONS.

    Args:
        scope: The ASGI scope of the client's request.
        pair: The header as received.

    Raises:
        LastHop: The value is 0.
    """
    value = pair[1]
    if scope.get("method") not in _COUNTED or not value.isdigit() or len(value) > _DIGITS:
        return pair
    if int(value) == 0:
        raise LastHop
    return pair[0], b"%d" % (int(value) - 1)


def final_response(scope: Scope) -> LocalResponse:
    """Return the gateway's response: to TRACE with the received request, to OPTIONS empty."""
    if scope["method"] == "OPTIONS":
        return LocalResponse(200, [(b"content-length", b"0")])
    target: bytes = scope.get("raw_path") or b"/"
    if scope["query_string"]:
        target += b"?" + scope["query_string"]
    lines = [b"TRACE %b HTTP/%b" % (target, scope["http_version"].encode("ascii"))]
    lines += [b"%b: %b" % pair for pair in scope["headers"] if pair[0] in _SHOWN]
    body = b"\r\n".join(lines) + b"\r\n\r\n"
    return LocalResponse(
        200,
        [(b"content-type", b"message/http"), (b"content-length", b"%d" % len(body))],
        body,
    )
