"""What the policy ``hash`` keeps together: a key of the request, looked up when asked."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import parse_qsl

from starlette.types import Scope

from fastapi_proxy_di.wire.headers import Headers

KeyReader = Callable[[Scope], bytes | None]


class RequestKey:
    """A `PickRequest` over one scope.

    Attributes:
        scope: The client's.

    Args:
        scope: The client's.
        read: Finds the key in it.
        given: A key that the caller chose instead.
    """

    __slots__ = ("_given", "_read", "scope")

    def __init__(self, scope: Scope, read: KeyReader, given: bytes | None = None) -> None:
        self.scope: Scope = scope
        self._read = read
        self._given = given

    def key(self) -> bytes | None:
        """Give the key; ``None`` if the request has none."""
        return self._given if self._given is not None else self._read(self.scope)


def key_reader(spec: str) -> KeyReader:
    """Turn the setting ``hash_key`` into a look-up. Once, at start.

    Args:
        spec: ``client``, ``path``, ``header:<name>``, ``cookie:<name>``, ``query:<name>``.
    """
    kind, _, name = spec.partition(":")
    if kind == "header":
        wanted = name.lower().encode("latin-1")
        return lambda scope: _field(scope, wanted)
    if kind == "cookie":
        cookie = name.encode("latin-1")
        return lambda scope: _cookie(scope, cookie)
    if kind == "query":
        return lambda scope: _query(scope, name)
    if kind == "path":
        return _path
    return _client


def _client(scope: Scope) -> bytes | None:
    client = scope.get("client")
    return client[0].encode("utf-8") if client else None


def _path(scope: Scope) -> bytes | None:
    raw: bytes | None = scope.get("raw_path")
    return raw if raw is not None else scope["path"].encode("utf-8")


def _field(scope: Scope, wanted: bytes) -> bytes | None:
    for name, value in scope["headers"]:
        if name == wanted:
            found: bytes = value
            return found
    return None


def _cookie(scope: Scope, wanted: bytes) -> bytes | None:
    # Not http.cookies: it gives up on the whole header when one cookie is odd. HTTP/2 may
    # split the header into several (RFC 9113 section 8.2.3).
    headers: Headers = scope["headers"]
    for field, value in headers:
        if field == b"cookie":
            for pair in value.split(b";"):
                name, _, content = pair.partition(b"=")
                if name.strip() == wanted:
                    return content.strip().strip(b'"')
    return None


def _query(scope: Scope, name: str) -> bytes | None:
    for found, value in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True):
        if found == name:
            return str(value).encode("utf-8")
    return None
