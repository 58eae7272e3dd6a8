"""The requests and responses that transforms read and change.

The values that a transform writes are checked here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from fastapi_proxy_di.errors import InvalidRequest
from fastapi_proxy_di.transforms.headers import (
    REQUEST_SET_BY_PROXY,
    RESPONSE_SET_BY_PROXY,
    EditableFields,
    HeaderFields,
)
from fastapi_proxy_di.transforms.location import LEADING, Places, rewritten
from fastapi_proxy_di.transforms.query import remove_parameter, set_parameter
from fastapi_proxy_di.wire.headers import TOKEN, Headers
from fastapi_proxy_di.wire.targets import climbs

_PATH: Final = re.compile(rb"/[^\x00-\x20?\x7f]*\Z")
_QUERY: Final = re.compile(rb"[^\x00-\x20#\x7f]*\Z")


class InboundRequest:
    """The client's request, read-only.

    Attributes:
        scope: The ASGI scope, with the entries of middlewares and dependencies.
    """

    __slots__ = ("_mount", "_path", "scope")

    def __init__(self, scope: Mapping[str, Any], path: bytes, mount: bytes) -> None:
        self.scope: Mapping[str, Any] = scope
        self._path = path
        self._mount = mount

    @property
    def is_websocket(self) -> bool:
        """Whether the request is a WebSocket handshake."""
        return bool(self.scope["type"] == "websocket")

    @property
    def method(self) -> str:
        """The method; ``GET`` for a WebSocket handshake."""
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
        """All headers of the client, forwarding and hop-by-hop headers included."""
        return HeaderFields(self.scope["headers"])

    @property
    def client(self) -> str | None:
        """Address of the peer, ``None`` if the server knows none."""
        client = self.scope.get("client")
        return None if client is None else str(client[0])


class OutboundRequest:
    """The request to the destination, as request transforms change it.

    Hop-by-hop headers are removed before transforms run. Forwarding headers, the setting
    ``request_headers`` and the header arguments of ``forward`` are applied afterwards.

    Attributes:
        inbound: The client's request.
        headers: The headers to send.
        raw_method: The method, as bytes.
        raw_query: The query, as bytes.
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
            ValueError: The new method is not a token or is CONNECT, or the request is a WebSocket.
        """
        return self.raw_method.decode("ascii")

    @method.setter
    def method(self, value: str) -> None:
        raw = value.encode("latin-1")
        if raw == self.raw_method:
            return
        if not TOKEN.match(raw) or raw == b"CONNECT" or self.inbound.is_websocket:
            raise ValueError(
                f"method: {value!r} cannot be sent: a method is a token, CONNECT is not "
                "forwarded, and a WebSocket begins with GET"
            )
        self.raw_method = raw

    @property
    def raw_path(self) -> bytes:
        """The path below the destination's base path, as bytes.

        Raises:
            InvalidRequest: Dot segments of the new path lead above its start.
            ValueError: The new path does not start with a slash, or holds a query, a space
                or a control character.
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
            ValueError: The new query holds a space, ``#`` or a control character.
        """
        return self.raw_query.decode("latin-1")

    @query.setter
    def query(self, value: str) -> None:
        raw = value.encode("latin-1")
        if not _QUERY.match(raw):
            raise ValueError(f"query: {value!r} must be percent-encoded")
        self.raw_query = raw

    def set_query(self, name: str, value: str) -> None:
        """Set a query parameter; name and value are encoded. All others stay byte for byte."""
        self.raw_query = set_parameter(self.raw_query, name, value)

    def remove_query(self, name: str) -> None:
        """Remove a query parameter; all others stay byte for byte."""
        self.raw_query = remove_parameter(self.raw_query, name)


class OutboundResponse:
    """The response to the client, as response transforms change it.

    Attributes:
        inbound: The client's request.
        status: The upstream's status, read-only.
        headers: The headers to send.
        authority: Authority of the destination, as in its ``Host``.
        base_path: Base path of the destination.
        host: The ``Host`` that was sent if it was not ``authority``.
    """

    __slots__ = ("_places", "_status", "authority", "base_path", "headers", "host", "inbound")

    def __init__(
        self,
        inbound: InboundRequest,
        status: int,
        headers: Headers,
        *,
        authority: bytes,
        base_path: bytes,
        host: bytes | None,
        places: Callable[[], Places],
    ) -> None:
        self.inbound: InboundRequest = inbound
        self.headers: EditableFields = EditableFields(headers, RESPONSE_SET_BY_PROXY)
        self.authority: bytes = authority
        self.base_path: bytes = base_path
        self.host: bytes | None = host
        self._status = status
        self._places = places

    @property
    def status(self) -> int:
        """The upstream's status."""
        return self._status

    def rewrite_redirects(self) -> None:
        """Rewrite ``Location``, ``Content-Location`` and ``Refresh`` to lead through the mount."""
        places = self._places()
        self.headers.raw = [
            (pair[0], rewritten(*pair, places)) if pair[0] in LEADING else pair
            for pair in self.headers.raw
        ]
