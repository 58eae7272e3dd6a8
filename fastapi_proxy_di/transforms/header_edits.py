"""The header transforms of the settings, for requests and responses alike.

Each becomes a function, made once at start. The settings have checked the names.
"""

from __future__ import annotations

from collections.abc import Callable

from pydantic import SecretStr

from fastapi_proxy_di.settings.transforms import RequestHeader, ResponseHeader
from fastapi_proxy_di.transforms.views import OutboundRequest, OutboundResponse
from fastapi_proxy_di.wire.headers import set_headers, without

HeaderEdit = Callable[[OutboundRequest | OutboundResponse], None]
"""A function that changes the headers of a request or response."""


def set_or_append(settings: RequestHeader | ResponseHeader) -> HeaderEdit:
    """Make the function that sets or appends a header."""
    value = secret(settings.set, settings.append)
    headers = [(settings.name.encode("latin-1"), value.encode("latin-1"))]
    if settings.set is None:

        def append(message: OutboundRequest | OutboundResponse) -> None:
            message.headers.raw = message.headers.raw + headers

        return append

    def replace(message: OutboundRequest | OutboundResponse) -> None:
        message.headers.raw = set_headers(message.headers.raw, headers)

    return replace


def remove(name: str) -> HeaderEdit:
    """Make the function that removes all headers of a name."""
    key = name.encode("latin-1")

    def edit(message: OutboundRequest | OutboundResponse) -> None:
        message.headers.raw = without(message.headers.raw, key)

    return edit


def allow(names: tuple[str, ...]) -> HeaderEdit:
    """Make the function that removes all headers except ``names`` and those of the proxy."""
    allowed = frozenset(name.encode("latin-1") for name in names)

    def edit(message: OutboundRequest | OutboundResponse) -> None:
        message.headers.keep_only(allowed)

    return edit


def secret(*values: SecretStr | None) -> str:
    """Give the first value that is set."""
    return next(value.get_secret_value() for value in values if value is not None)
