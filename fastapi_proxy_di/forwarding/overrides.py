"""Validates the arguments of ``forward`` that replace parts of the client's request."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from starlette.types import Scope

from fastapi_proxy_di.forwarding.taps import TapFunction, Tapping, tapping_of
from fastapi_proxy_di.transforms.pipeline import Pipeline
from fastapi_proxy_di.transport.protocol import Headers
from fastapi_proxy_di.wire.headers import SET_BY_PROXY, TOKEN, HeaderArgument, checked_headers
from fastapi_proxy_di.wire.host import is_host
from fastapi_proxy_di.wire.request_id import HEADER, REQUEST_ID

__all__ = ["Overrides", "keep_request_id", "overrides_of"]


@dataclass(slots=True, eq=False)
class Overrides:
    """The validated arguments of ``forward`` that replace parts of the client's request.

    Attributes:
        method: The method to send instead of the client's.
        additional: Headers that are set by name, after everything else.
        replaced: Headers to send instead of all the client's.
        body: The body to send instead of the client's.
        content_type: The content type of ``body``, unless the headers have one.
        host: The Host to send instead of the destination's authority.
        forward_query: Whether the client's query is sent.
        timeout: Seconds for the whole exchange, instead of ``timeouts.total``.
        transforms: The transforms of the mount, which run after the upstream's.
        path_given: Whether code gave the path of the exchange, which is sent as it is.
        destination: The destination or the address to send to, not yet judged.
        only: Address of the destination of the pool to send to.
        tap: Makes the tap of the response.
    """

    method: bytes | None = None
    additional: Headers | None = None
    replaced: Headers | None = None
    body: bytes | None = None
    content_type: bytes | None = None
    host: bytes | None = None
    forward_query: bool = True
    timeout: float | None = None
    transforms: Pipeline | None = None
    path_given: bool = False
    destination: str | None = None
    only: str | None = None
    tap: Tapping | None = None


def overrides_of(
    *,
    method: str | None = None,
    forward_query: bool = True,
    additional: HeaderArgument | None = None,
    replaced: HeaderArgument | None = None,
    body: Any = None,
    host: str | None = None,
    timeout: float | None = None,
    path_given: bool = False,
    destination: str | None = None,
    tap: TapFunction | None = None,
) -> Overrides | None:
    """Validate the arguments of ``forward``; ``None`` if all have their defaults.

    Args:
        method: The method to send instead of the client's.
        forward_query: Whether the client's query is sent.
        additional: Headers to set by name.
        replaced: Headers to send instead of all the client's.
        body: The body to send instead of the client's: bytes, str, or data for JSON.
        host: The Host to send instead of the destination's authority.
        timeout: Seconds for the whole exchange.
        path_given: Whether the path is given too.
        destination: The destination or the address to send to.
        tap: Reads the response.

    Raises:
        ValueError: An argument is malformed or not allowed.
    """
    given = (method, additional, replaced, body, host, timeout, destination, tap)
    if forward_query and not path_given and all(argument is None for argument in given):
        return None
    content, content_type = (None, None) if body is None else _content(body)
    if method is not None and not TOKEN.match(method.encode("latin-1", "replace")):
        raise ValueError(f"method: {method!r} is not a token")
    if method is not None and method.upper() == "CONNECT":
        raise ValueError("method: CONNECT asks for a tunnel, which is not forwarded")
    if host is not None and not is_host(host.encode("latin-1", "replace")):
        raise ValueError(f"override_host: {host!r} is not a host")
    return Overrides(
        method=None if method is None else method.upper().encode("ascii"),
        additional=checked_headers(additional, refuse=SET_BY_PROXY, what="additional_headers")
        or None,
        replaced=(
            None
            if replaced is None
            else checked_headers(replaced, refuse=SET_BY_PROXY, what="override_headers")
        ),
        body=content,
        content_type=content_type,
        host=None if host is None else host.encode("ascii"),
        forward_query=forward_query,
        timeout=timeout,
        path_given=path_given,
        destination=destination,
        tap=tapping_of(tap),
    )


def keep_request_id(overrides: Overrides | None, scope: Scope) -> None:
    """Add the id of the request to headers that replace all the client's, unless they have one.

    Args:
        overrides: The arguments of ``forward``.
        scope: The ASGI scope of the client's request.
    """
    if overrides is None or overrides.replaced is None:
        return
    request_id = scope.get(REQUEST_ID)
    if request_id is not None and all(name != HEADER for name, _ in overrides.replaced):
        overrides.replaced.append((HEADER, request_id.encode("ascii")))


def _content(body: Any) -> tuple[bytes, bytes]:
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body), b"application/octet-stream"
    if isinstance(body, str):
        return body.encode("utf-8"), b"text/plain; charset=utf-8"
    try:
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"override_body: {error}; give bytes, str or what JSON can encode"
        ) from error
    return text.encode("utf-8"), b"application/json"
