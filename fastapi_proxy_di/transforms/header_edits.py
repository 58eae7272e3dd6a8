"""What the settings' header transforms do, alike to requests and to answers.

Each becomes a function, made once at start. Which names may be touched is the settings' to say.
"""

from __future__ import annotations

from collections.abc import Callable

from pydantic import SecretStr

from fastapi_proxy_di.settings.transforms import RequestHeader, ResponseHeader
from fastapi_proxy_di.transforms.headers import without
from fastapi_proxy_di.transforms.views import OutboundRequest, OutboundResponse
from fastapi_proxy_di.wire.headers import set_headers

HeaderEdit = Callable[[OutboundRequest | OutboundResponse], None]
"""A function that changes the headers of whatever it is given."""


def set_or_append(settings: RequestHeader | ResponseHeader) -> HeaderEdit:
    """Make what sets a field, or adds one."""
    value = secret(settings.set, settings.append)
    fields = [(settings.name.encode("latin-1"), value.encode("latin-1"))]
    if settings.set is None:

        def append(message: OutboundRequest | OutboundResponse) -> None:
            message.headers.raw = message.headers.raw + fields

        return append

    def replace(message: OutboundRequest | OutboundResponse) -> None:
        message.headers.raw = set_headers(message.headers.raw, fields)

    return replace


def remove(name: str) -> HeaderEdit:
    """Make what removes all fields of a name."""
    key = name.encode("latin-1")

    def edit(message: OutboundRequest | OutboundResponse) -> None:
        message.headers.raw = without(message.headers.raw, key)

    return edit


def allow(names: tuple[str, ...]) -> HeaderEdit:
    """Make what removes all fields but these and the proxy's own."""
    allowed = frozenset(name.encode("latin-1") for name in names)

    def edit(message: OutboundRequest | OutboundResponse) -> None:
        message.headers.keep_only(allowed)

    return edit


def secret(*values: SecretStr | None) -> str:
    """Give the one that is set."""
    return next(value.get_secret_value() for value in values if value is not None)
