"""The body of a Starlette ``Request`` that may have been read before it is forwarded."""

from __future__ import annotations

from starlette.requests import Request

from fastapi_proxy_di.errors import RequestBodyConsumed

__all__ = ["take_body"]


def take_body(request: Request) -> bytes | None:
    """The body if it has been read; else mark it as taken, so that no later reader waits for it.

    Starlette keeps both facts in private attributes of the ``Request`` that dependencies
    and endpoint share; its own ``BaseHTTPMiddleware`` reads them as well.
    """
    cached: bytes | None = getattr(request, "_body", None)
    if cached is not None:
        return cached
    bears_body = any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        for name, value in request.scope["headers"]
    )
    if getattr(request, "_stream_consumed", False):
        if bears_body:
            raise RequestBodyConsumed(
                "the request body was read as a stream or form before it was forwarded; read "
                "it with `await request.body()` instead, or give override_body"
            )
        return b""
    if bears_body:
        request._stream_consumed = True  # noqa: SLF001
    elif request.scope.get("http_version", "1.1") in ("1.0", "1.1"):
        request._body = b""  # noqa: SLF001
    return None
