"""Settings of transforms: changes to requests and responses.

Each model is one change; the field ``kind`` selects it. Names follow YARP's. This file validates
them; `fastapi_proxy_di.transforms` applies them. The file is long because the models are the
alternatives of one union; most of them have a few lines. ``set`` and ``append`` stand in each model
that has them: with pydantic's plugin, mypy reads inherited ones as the type that they accept.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from fastapi_proxy_di.settings.headers import (
    TOKEN,
    OptionalHeaderValue,
    RequestHeaderName,
    RequestHeaderNames,
    ResponseHeaderName,
    ResponseHeaderNames,
)
from fastapi_proxy_di.settings.model import SettingsModel
from fastapi_proxy_di.settings.paths import PatternPath, RawPath
from fastapi_proxy_di.settings.text import OptionalSecret
from fastapi_proxy_di.wire.headers import HANDSHAKE_HEADERS

__all__ = [
    "CookieDomain",
    "CookiePath",
    "LocationRewrite",
    "MethodChange",
    "PathPattern",
    "PathPrefix",
    "PathRemovePrefix",
    "PathSet",
    "QueryParameter",
    "QueryRemove",
    "QueryRouteValue",
    "RequestHeader",
    "RequestHeaderRemove",
    "RequestHeaderRouteValue",
    "RequestHeadersAllowed",
    "ResponseHeader",
    "ResponseHeaderRemove",
    "ResponseHeadersAllowed",
    "TransformSettings",
    "Transforms",
]

When = Literal["success", "failure", "always"]
"""Responses with a status below 400, from 400 on, or all."""

_DOMAIN: Final = re.compile(r"\.?[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")
_REFERENCE: Final = re.compile(r"[!-~]*")


def _method(value: str) -> str:
    upper = value.upper()
    if not TOKEN.fullmatch(upper) or upper == "CONNECT":
        raise ValueError(f"{value!r} is not a method to change; CONNECT is not forwarded")
    return upper


def _not_of_the_handshake(name: str) -> str:
    if name.encode("latin-1") in HANDSHAKE_HEADERS:
        raise ValueError(f"{name!r} belongs to the WebSocket handshake, and is the proxy's own")
    return name


def _domain(value: str) -> str:
    if not _DOMAIN.fullmatch(value):
        raise ValueError(f"{value!r} is not a domain")
    return value


def _reference(value: str) -> str:
    if not _REFERENCE.fullmatch(value):
        raise ValueError(f"{value!r} is not part of a URL; percent-encode it")
    return value


Method = Annotated[str, AfterValidator(_method)]
Domain = Annotated[str, AfterValidator(_domain)]
Reference = Annotated[str, AfterValidator(_reference)]
OwnRequestHeader = Annotated[RequestHeaderName, AfterValidator(_not_of_the_handshake)]
OwnResponseHeader = Annotated[ResponseHeaderName, AfterValidator(_not_of_the_handshake)]
ParameterName = Annotated[str, Field(min_length=1)]
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class _Transform(SettingsModel):
    kind: str = Field(description="Which change it is.")


def _require_one(given: SecretStr | None, appended: SecretStr | None) -> None:
    if (given is None) == (appended is None):
        raise ValueError("needs one of 'set' and 'append'")


class PathPrefix(_Transform):
    """Puts a path in front of the request's."""

    kind: Literal["path_prefix"] = Field(default="path_prefix", description="Names this change.")

    prefix: RawPath = Field(description="E.g. ``/v2``.")


class PathRemovePrefix(_Transform):
    """Removes a path from the front of the request's, at whole segments only."""

    kind: Literal["path_remove_prefix"] = Field(
        default="path_remove_prefix", description="Names this change."
    )

    prefix: RawPath = Field(
        description="E.g. ``/api``, which is a prefix of ``/api/x`` and not of ``/apix``."
    )


class PathSet(_Transform):
    """Sends every request to one path."""

    kind: Literal["path_set"] = Field(default="path_set", description="Names this change.")

    path: RawPath = Field(description="The path, percent-encoded.")


class PathPattern(_Transform):
    """Makes the path from the path parameters of the mount."""

    kind: Literal["path_pattern"] = Field(default="path_pattern", description="Names this change.")

    pattern: PatternPath = Field(
        description=(
            "E.g. ``/tenants/{tenant}/{path}``; ``{path}`` is what is forwarded, byte for byte."
        )
    )


class QueryParameter(_Transform):
    """Sets or appends a query parameter; its value is not encoded."""

    kind: Literal["query_parameter"] = Field(
        default="query_parameter", description="Names this change."
    )

    set: OptionalSecret = Field(
        default=None,
        validate_default=True,
        description="Replaces all values of that name. A secret: never shown.",
    )

    append: OptionalSecret = Field(
        default=None,
        validate_default=True,
        description="Is added after the values of that name. A secret: never shown.",
    )

    name: ParameterName = Field(description="Name of the parameter, not encoded.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        _require_one(self.set, self.append)
        return self


class QueryRouteValue(_Transform):
    """Sets a query parameter to a path parameter of the mount."""

    kind: Literal["query_route_value"] = Field(
        default="query_route_value", description="Names this change."
    )

    name: ParameterName = Field(description="Name of the query parameter.")

    parameter: Identifier = Field(
        description='Path parameter of the mount, e.g. ``tenant`` for ``prefix="/{tenant}"``.'
    )


class QueryRemove(_Transform):
    """Removes a query parameter; all others stay byte for byte."""

    kind: Literal["query_remove"] = Field(default="query_remove", description="Names this change.")

    name: ParameterName = Field(description="Name of the parameter, not encoded.")


class MethodChange(_Transform):
    """Sends one method as another."""

    kind: Literal["method_change"] = Field(
        default="method_change", description="Names this change."
    )

    method: Method = Field(description="The client's method.")

    set: Method = Field(description="The method to send. The client of a HEAD gets no body.")


class RequestHeader(_Transform):
    """Sets or appends a request header."""

    kind: Literal["request_header"] = Field(
        default="request_header", description="Names this change."
    )

    set: OptionalHeaderValue = Field(
        default=None,
        validate_default=True,
        description="Replaces all values of that name. A secret: never shown.",
    )

    append: OptionalHeaderValue = Field(
        default=None,
        validate_default=True,
        description="Is added after the values of that name. A secret: never shown.",
    )

    name: OwnRequestHeader = Field(description="Not a header that the proxy sets itself.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        _require_one(self.set, self.append)
        return self


class RequestHeaderRouteValue(_Transform):
    """Sets a request header to a path parameter of the mount."""

    kind: Literal["request_header_route_value"] = Field(
        default="request_header_route_value", description="Names this change."
    )

    name: OwnRequestHeader = Field(description="Name of the header.")

    parameter: Identifier = Field(
        description="Path parameter of the mount; its value is percent-encoded as in a path."
    )


class RequestHeaderRemove(_Transform):
    """Removes a header of the client."""

    kind: Literal["request_header_remove"] = Field(
        default="request_header_remove", description="Names this change."
    )

    name: OwnRequestHeader = Field(description="All headers of that name are removed.")


class RequestHeadersAllowed(_Transform):
    """Removes all headers of the client except the named ones."""

    kind: Literal["request_headers_allowed"] = Field(
        default="request_headers_allowed", description="Names this change."
    )

    names: RequestHeaderNames = Field(
        description=(
            "Headers that the proxy sets itself (host, framing, forwarding) stay in any case."
        )
    )


class ResponseHeader(_Transform):
    """Sets or appends a response header."""

    kind: Literal["response_header"] = Field(
        default="response_header", description="Names this change."
    )

    set: OptionalHeaderValue = Field(
        default=None,
        validate_default=True,
        description="Replaces all values of that name. A secret: never shown.",
    )

    append: OptionalHeaderValue = Field(
        default=None,
        validate_default=True,
        description="Is added after the values of that name. A secret: never shown.",
    )

    name: OwnResponseHeader = Field(description="Not a header that frames the response.")

    when: When = Field(
        default="success",
        description=(
            "``success`` is a status below 400 (YARP), ``failure`` any other, or ``always``."
        ),
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        _require_one(self.set, self.append)
        return self


class ResponseHeaderRemove(_Transform):
    """Removes a header of the upstream."""

    kind: Literal["response_header_remove"] = Field(
        default="response_header_remove", description="Names this change."
    )

    name: OwnResponseHeader = Field(description="All headers of that name are removed.")

    when: When = Field(default="success", description="As for ``response_header``.")


class ResponseHeadersAllowed(_Transform):
    """Removes all headers of the upstream except the named ones."""

    kind: Literal["response_headers_allowed"] = Field(
        default="response_headers_allowed", description="Names this change."
    )

    names: ResponseHeaderNames = Field(
        description="Headers that frame the response stay in any case."
    )


class LocationRewrite(_Transform):
    """Replaces the start of ``Location``, or does what the setting ``location`` does."""

    kind: Literal["location"] = Field(default="location", description="Names this change.")

    match: Reference | None = Field(
        default=None,
        description="Start of Location; none rewrites as the setting ``location=rewrite`` does.",
    )

    replace: Reference | None = Field(
        default=None, description="Replacement of ``match``; none if that is none."
    )

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.match is None) != (self.replace is None):
            raise ValueError("needs both of 'match' and 'replace', or none of them")
        return self


class CookieDomain(_Transform):
    """Changes the Domain of the upstream's cookies."""

    kind: Literal["cookie_domain"] = Field(
        default="cookie_domain", description="Names this change."
    )

    match: Domain | None = Field(
        default=None, description="Cookies of this domain only; none for all that name one."
    )

    set: Domain | None = Field(
        default=None,
        description=(
            "The new domain; none removes it, so that the cookie belongs to the gateway's host"
            " alone."
        ),
    )


class CookiePath(_Transform):
    """Changes the front of the Path of the upstream's cookies, at whole segments only."""

    kind: Literal["cookie_path"] = Field(default="cookie_path", description="Names this change.")

    match: RawPath | None = Field(
        default=None, description="Start of Path; none for the destination's base path."
    )

    set: RawPath | None = Field(
        default=None, description="Replacement of ``match``; none for the path of the mount."
    )


TransformSettings: TypeAlias = (
    PathPrefix
    | PathRemovePrefix
    | PathSet
    | PathPattern
    | QueryParameter
    | QueryRouteValue
    | QueryRemove
    | MethodChange
    | RequestHeader
    | RequestHeaderRouteValue
    | RequestHeaderRemove
    | RequestHeadersAllowed
    | ResponseHeader
    | ResponseHeaderRemove
    | ResponseHeadersAllowed
    | LocationRewrite
    | CookieDomain
    | CookiePath
)
"""One change."""


def _listed(value: object) -> object:
    if isinstance(value, dict) or type(value) is str:  # text that cannot be decoded is a subclass
        raise ValueError('is a JSON list, e.g. [{"kind": "path_prefix", "prefix": "/v2"}]')
    if isinstance(value, list | tuple):
        for number, item in enumerate(value):
            if not (isinstance(item, SettingsModel) or (isinstance(item, dict) and "kind" in item)):
                raise ValueError(f"item {number} is not an object with 'kind'")
    return value


if TYPE_CHECKING:
    Transforms: TypeAlias = Sequence[TransformSettings]
else:
    Transforms = Annotated[
        tuple[Annotated[TransformSettings, Field(discriminator="kind")], ...],
        BeforeValidator(_listed),
    ]
"""Changes in the order in which they are made; a tuple after validation."""
