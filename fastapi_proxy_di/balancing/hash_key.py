"""Reads the key that the policy ``hash`` hashes from the ASGI scope of a request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.wire.cookies import cookie_values

__all__ = ["KeyReader", "RequestKey", "Scope", "key_reader", "no_key"]

Scope: TypeAlias = Mapping[str, Any]
"""An ASGI connection scope. It is only read here; all its entries may be missing."""

KeyReader: TypeAlias = Callable[[Scope], bytes | None]


class RequestKey:
    """A `PickRequest` that reads its key from the scope when a policy asks for it.

    Attributes:
        scope: The client's connection scope.
        given: A key to use instead of that of the scope, ``None`` for none.
        ejection_key: Digest of the key whose refusals cool it, ``None`` if it has none.
        cooled: The destinations that the last pick left out because the key cools there.

    Args:
        scope: The client's connection scope.
        read: Reads the key from the scope.
        given: A key to use instead, ``None`` for the key of the scope.
    """

    __slots__ = ("_read", "cooled", "ejection_key", "given", "scope")

    def __init__(self, scope: Scope, read: KeyReader, given: bytes | None = None) -> None:
        self.scope: Scope = scope
        self._read = read
        self.given: bytes | None = given
        self.ejection_key: bytes | None = None
        self.cooled: tuple[Destination, ...] = ()

    def key(self) -> bytes | None:
        """Give the key, ``None`` if the request has none."""
        return self.given if self.given is not None else self._read(self.scope)


def key_reader(spec: str) -> KeyReader:
    """Turn the setting ``hash_key`` into a function that reads the key. Once, at start.

    Args:
        spec: ``client``, ``path``, ``header:<name>``, ``cookie:<name>``, ``query:<name>``.
    """
    kind, _, name = spec.partition(":")
    if kind == "header":
        header = name.lower().encode("latin-1")
        return lambda scope: _header(scope, header)
    if kind == "cookie":
        cookie = name.encode("latin-1")
        return lambda scope: _cookie(scope, cookie)
    if kind == "query":
        return lambda scope: _query(scope, name)
    if kind == "path":
        return _path
    return _client


def no_key(scope: Scope) -> bytes | None:
    """Give no key: for requests whose key is not in the scope."""
    return None


def _client(scope: Scope) -> bytes | None:
    client: tuple[str, int] | None = scope.get("client")
    return client[0].encode("utf-8") if client else None


def _path(scope: Scope) -> bytes | None:
    raw: bytes | None = scope.get("raw_path")
    if raw is not None:
        return raw
    path: str | None = scope.get("path")
    return None if path is None else path.encode("utf-8")


def _header(scope: Scope, wanted: bytes) -> bytes | None:
    headers: Iterable[tuple[bytes, bytes]] = scope.get("headers", ())
    return next((value for name, value in headers if name == wanted), None)


def _cookie(scope: Scope, wanted: bytes) -> bytes | None:
    value = next(cookie_values(scope.get("headers", ()), wanted), None)
    return None if value is None else value.strip(b'"')


def _query(scope: Scope, wanted: str) -> bytes | None:
    raw: bytes = scope.get("query_string", b"")
    for name, value in parse_qsl(raw.decode("latin-1"), keep_blank_values=True):
        if name == wanted:
            return value.encode("utf-8")
    return None
