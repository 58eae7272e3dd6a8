"""Header names and values in settings: which of them are allowed.

Headers that the proxy sets itself are refused. Values are secrets, so no message shows one.
"""

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

from pydantic import AfterValidator, BeforeValidator, SecretStr

from fastapi_proxy_di.settings.text import AlsoText, OptionalSecret, split_commas
from fastapi_proxy_di.wire.headers import (
    FORWARDING,
    FORWARDING_PREFIX,
    FRAMING,
    HOP_BY_HOP,
    PROXY_AUTHENTICATION,
    SET_BY_PROXY,
)

__all__ = [
    "TOKEN",
    "OpenRequestHeaderNames",
    "OpenRequestHeaderValues",
    "OpenResponseHeaderNames",
    "OpenResponseHeaderValues",
    "OptionalHeaderValue",
    "ProbeHeaderValues",
    "RequestHeaderName",
    "RequestHeaderNames",
    "ResponseHeaderName",
    "ResponseHeaderNames",
    "header_token",
]

TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A name of a header, method or cookie (RFC 9110 §5.6.2)."""

# Both refuse hop-by-hop headers; a response has no Host and no forwarding headers.
_REQUEST: Final = frozenset(name.decode() for name in SET_BY_PROXY | PROXY_AUTHENTICATION)
_RESPONSE: Final = frozenset(name.decode() for name in HOP_BY_HOP | FRAMING | PROXY_AUTHENTICATION)
_FORWARDING: Final = frozenset(name.decode() for name in FORWARDING)
# RFC 9110 §5.5; a tab may stand within a value.
_BAD_VALUE: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]|[^\x00-\xff]")


def header_token(name: str) -> str:
    """Check the form of a header name and give it in lower case.

    Raises:
        ValueError: ``name`` is not an RFC 9110 token.
    """
    lowered = name.strip().lower()
    if not TOKEN.fullmatch(lowered):
        raise ValueError(f"{name!r} is not a header name; use letters, digits and '-'")
    return lowered


def _request_name(name: str) -> str:
    lowered = header_token(name)
    if lowered in _FORWARDING or lowered.startswith(FORWARDING_PREFIX.decode()):
        raise ValueError(f"{lowered!r} may not be set or removed here; 'forwarded' decides it")
    if lowered == "host":
        raise ValueError("'host' may not be set or removed here; 'preserve_host' decides it")
    return _unless(lowered, _REQUEST)


def _probe_name(name: str) -> str:
    lowered = header_token(name)
    if lowered == "host":
        raise ValueError("'host' may not be set here; set 'health.host'")
    # A probe has no client, so its forwarding headers cannot describe a client wrongly.
    return _unless(lowered, _REQUEST - _FORWARDING)


def _response_name(name: str) -> str:
    return _unless(header_token(name), _RESPONSE)


def _unless(name: str, refused: frozenset[str]) -> str:
    if name in refused:
        raise ValueError(
            f"{name!r} may not be set or removed; it frames a message or belongs to one"
            " connection, and is the proxy's own"
        )
    return name


def _checked_values(values: dict[str, SecretStr]) -> dict[str, SecretStr]:
    return {name: _value(secret, f"the value of {name!r}") for name, secret in values.items()}


def _value(secret: SecretStr, what: str = "the value") -> SecretStr:
    value = secret.get_secret_value().strip(" \t\r\n")
    if _BAD_VALUE.search(value):
        raise ValueError(
            f"{what} holds a line break, a control character or one that is not latin-1"
        )
    return SecretStr(value)


def _request_values(values: dict[str, SecretStr]) -> dict[str, SecretStr]:
    return _checked_values({_request_name(name): value for name, value in values.items()})


def _probe_values(values: dict[str, SecretStr]) -> dict[str, SecretStr]:
    return _checked_values({_probe_name(name): value for name, value in values.items()})


def _response_values(values: dict[str, SecretStr]) -> dict[str, SecretStr]:
    return _checked_values({_response_name(name): value for name, value in values.items()})


_NAMES_TEXT: Final = AlsoText("Comma-separated header names.")

RequestHeaderName = Annotated[str, AfterValidator(_request_name)]
"""A lower-case name, for requests."""

ResponseHeaderName = Annotated[str, AfterValidator(_response_name)]
"""A lower-case name, for responses."""

if TYPE_CHECKING:
    OptionalHeaderValue: TypeAlias = OptionalSecret

    class ProbeHeaderValues:
        """A field that accepts plain text as values too, and gives secret values."""

        def __get__(self, instance: object, owner: type | None = None) -> dict[str, SecretStr]: ...

        def __set__(self, instance: object, value: Mapping[str, str | SecretStr]) -> None: ...

    class RequestHeaderNames:
        """A field that accepts text and names, and gives a tuple of names."""

        def __get__(self, instance: object, owner: type | None = None) -> tuple[str, ...]: ...

        def __set__(self, instance: object, value: str | Iterable[str]) -> None: ...

    ResponseHeaderNames: TypeAlias = RequestHeaderNames
    OpenRequestHeaderNames: TypeAlias = tuple[str, ...] | Any
    OpenRequestHeaderValues: TypeAlias = dict[str, SecretStr] | Any
    OpenResponseHeaderNames: TypeAlias = tuple[str, ...] | Any
    OpenResponseHeaderValues: TypeAlias = dict[str, SecretStr] | Any

else:
    OptionalHeaderValue = Annotated[SecretStr, AfterValidator(_value)] | None
    """A secret value, or none."""

    ProbeHeaderValues = Annotated[dict[str, SecretStr], AfterValidator(_probe_values)]
    """Lower-case names to secret values, for health probes."""

    RequestHeaderNames = Annotated[
        tuple[RequestHeaderName, ...],
        BeforeValidator(split_commas),
        _NAMES_TEXT,
    ]
    """Lower-case names, for requests."""

    ResponseHeaderNames = Annotated[
        tuple[ResponseHeaderName, ...],
        BeforeValidator(split_commas),
        _NAMES_TEXT,
    ]
    """Lower-case names, for responses."""

    # Fields of an upstream itself: a declared class may give them another type (SettingsModel).
    OpenRequestHeaderNames = RequestHeaderNames
    OpenResponseHeaderNames = ResponseHeaderNames

    OpenRequestHeaderValues = Annotated[dict[str, SecretStr], AfterValidator(_request_values)]
    """Lower-case names to secret values, for requests."""

    OpenResponseHeaderValues = Annotated[dict[str, SecretStr], AfterValidator(_response_values)]
    """Lower-case names to secret values, for responses."""
