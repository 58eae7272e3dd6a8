"""What a transform is given: the client's request to read, what leaves to change.

Owns the checks of what a transform writes. Knows no transport and no destination's state.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from fastapi_proxy_di.errors import InvalidRequest
from fastapi_proxy_di.transforms.headers import (
    REQUEST_SET_BY_PROXY,
    RESPONSE_SET_BY_PROXY,
    EditableFields,
    HeaderFields,
)
from fastapi_proxy_di.transforms.query import remove_parameter, set_parameter
from fastapi_proxy_di.wire.headers import TOKEN, Headers
from fastapi_proxy_di.wire.urls import climbs

_PATH: Final = re.compile(rb"/[^\x00-\x20?\x7f]*\Z")
_QUERY: Final = re.compile(rb"[^\x00-\x20#\x7f]*\Z")


class InboundRequest:
    """The client's request. To read only.

    Attributes:
        scope: Of the connection, with whatever middlewares and dependencies left in it.
    """

    __slots__ = ("_mount", "_path", "scope")

    def __init__(self, scope: Mapping[str, Any], path: bytes, mount: bytes) -> None:
        self.scope: Mapping[str, Any] = scope
        self._path = path
        self._mount = mount

    @property
    def is_websocket(self) -> bool:
        """Whether it is a WebSocket's handshake."""
        return bool(self.scope["type"] == "websocket")

    @property
    def method(self) -> str:
        """Its method."""
        return str(self.scope.get("method", "GET"))

    @property
    def path(self) -> str:
        """Raw path below the mount, percent-encoded as it came; may be empty."""
        return self._path.decode("latin-1")

    @property
    def mount(self) -> str:
        """Raw path of the mount, ``root_path`` included."""
        return self._mount.decode("latin-1")

    @property
    def query(self) -> str:
        """Raw query, without ``?``."""
        raw: bytes = self.scope["query_string"]
        return raw.decode("latin-1")

    @property
    def path_params(self) -> Mapping[str, Any]:
        """Path parameters of the mount."""
        params: Mapping[str, Any] = self.scope.get("path_params") or {}
        return params

    @property
    def headers(self) -> HeaderFields:
        """Its headers, forwarding and hop-by-hop fields included."""
        return HeaderFields(self.scope["headers"])

    @property
    def client(self) -> str | None:
        """Address of the peer, ``None`` if there is none."""
        client = self.scope.get("client")
        return None if client is None else str(client[0])


class OutboundRequest:
    """The request that leaves: what a request transform changes.

    Hop-by-hop fields are gone already; forwarding fields, ``request_headers`` and what
    ``forward`` was told come after, so no transform can lose them.

    Attributes:
        inbound: What the client sent.
        headers: To change.
        raw_method: The method.
        raw_query: The query.
    """

    __slots__ = ("_raw_path", "headers", "inbound", "raw_method", "raw_query")

    def __init__(
        self, inbound: InboundRequest, method: bytes, path: bytes, query: bytes, headers: Headers
    ) -> None:
        self.inbound: InboundRequest = inbound
        self.headers: EditableFields = EditableFields(headers, REQUEST_SET_BY_PROXY)
        self.raw_method: bytes = method
        self.raw_query: bytes = query
        self._raw_path = path

    @property
    def method(self) -> str:
        """The method to send.

        Raises:
            ValueError: On setting what is no method; CONNECT; or that of a WebSocket.
        """
        return self.raw_method.decode("ascii")

    @method.setter
    def method(self, value: str) -> None:
        raw = value.encode("latin-1")
        if raw == self.raw_method:
            return
        if not TOKEN.match(raw) or raw == b"CONNECT" or self.inbound.is_websocket:
            raise ValueError(
                f"method: {value!r} cannot be sent instead: it is a token, CONNECT is not "
                "forwarded, and a WebSocket begins with GET"
            )
        self.raw_method = raw

    @property
    def raw_path(self) -> bytes:
        """The path below the destination's base path, as bytes.

        Raises:
            InvalidRequest: On setting one whose dot segments lead above its start.
            ValueError: On setting one that does not start with a slash, or holds a query,
                a space or a control character.
        """
        return self._raw_path

    @raw_path.setter
    def raw_path(self, value: bytes) -> None:
        if not _PATH.match(value):
            raise ValueError(
                f"path: {value!r} must start with '/' and be percent-encoded, without a query"
            )
        if climbs(value):
            raise InvalidRequest("the path leads above where a transform has put it")
        self._raw_path = value

    @property
    def path(self) -> str:
        """The path below the destination's base path, percent-encoded; checked as ``raw_path``."""
        return self._raw_path.decode("latin-1")

    @path.setter
    def path(self, value: str) -> None:
        self.raw_path = value.encode("latin-1")

    @property
    def query(self) -> str:
        """The raw query, without ``?``.

        Raises:
            ValueError: On setting one that holds a space, ``#`` or a control character.
        """
        return self.raw_query.decode("latin-1")

    @query.setter
    def query(self, value: str) -> None:
        raw = value.encode("latin-1")
        if not _QUERY.match(raw):
            raise ValueError(f"query: {value!r} must be percent-encoded")
        self.raw_query = raw

    def set_query(self, name: str, value: str) -> None:
        """Set a query parameter; both are encoded here. All others stay byte for byte."""
        self.raw_query = set_parameter(self.raw_query, name, value)

    def remove_query(self, name: str) -> None:
        """Remove a query parameter; all others stay byte for byte."""
        self.raw_query = remove_parameter(self.raw_query, name)


class OutboundResponse:
    """The answer on its way to the client: what a response transform changes.

    Attributes:
        inbound: What the client sent.
        status: The upstream's; to read only.
        headers: To change.
        authority: Of the destination, as its ``Host`` names it.
        base_path: Of the destination.
        host: The ``Host`` that was sent, if not the destination's own.
    """

    __slots__ = ("_status", "authority", "base_path", "headers", "host", "inbound")

    def __init__(
        self,
        inbound: InboundRequest,
        status: int,
        headers: Headers,
        *,
        authority: bytes,
        base_path: bytes,
        host: bytes | None,
    ) -> None:
        self.inbound: InboundRequest = inbound
        self.headers: EditableFields = EditableFields(headers, RESPONSE_SET_BY_PROXY)
        self.authority: bytes = authority
        self.base_path: bytes = base_path
        self.host: bytes | None = host
        self._status = status

    @property
    def status(self) -> int:
        """The upstream's."""
        return self._status
