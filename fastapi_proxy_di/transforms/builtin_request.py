"""The request transforms of the settings: each becomes a function, made once at start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, assert_never
from urllib.parse import quote

from fastapi_proxy_di.errors import InvalidRequest
from fastapi_proxy_di.settings.paths import PLACEHOLDER
from fastapi_proxy_di.settings.transforms import (
    MethodChange,
    PathPattern,
    PathPrefix,
    PathRemovePrefix,
    PathSet,
    QueryParameter,
    QueryRemove,
    QueryRouteValue,
    RequestHeader,
    RequestHeaderRemove,
    RequestHeaderRouteValue,
    RequestHeadersAllowed,
)
from fastapi_proxy_di.transforms.header_edits import allow, remove, secret, set_or_append
from fastapi_proxy_di.transforms.location import is_below
from fastapi_proxy_di.transforms.query import append_parameter, set_parameter
from fastapi_proxy_di.transforms.views import OutboundRequest
from fastapi_proxy_di.wire.headers import set_headers
from fastapi_proxy_di.wire.targets import climbs

RequestTransform = Callable[[OutboundRequest], object]
"""A function that changes a request before it leaves, or returns a ``Response`` to send instead."""

RequestTransformSettings = (
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
)

_PATH_SAFE: Final = "/:@!$&'()*+,;=-._~"


def request_transform(settings: RequestTransformSettings) -> RequestTransform:
    """Make the function of one request transform."""
    match settings:
        case PathPrefix():
            return _path_prefix(settings.prefix.rstrip("/").encode("ascii"))
        case PathRemovePrefix():
            return _path_remove_prefix(settings.prefix.rstrip("/").encode("ascii"))
        case PathSet():
            return _path_set(settings.path.encode("ascii"))
        case PathPattern():
            return _path_pattern(settings.pattern)
        case QueryParameter():
            return _query_parameter(settings)
        case QueryRouteValue():
            return _query_route_value(settings.name, settings.parameter)
        case QueryRemove():
            return _query_remove(settings.name)
        case MethodChange():
            return _method_change(settings.method.encode("ascii"), settings.set.encode("ascii"))
        case RequestHeader():
            return set_or_append(settings)
        case RequestHeaderRouteValue():
            return _request_header_route_value(settings.name, settings.parameter)
        case RequestHeaderRemove():
            return remove(settings.name)
        case RequestHeadersAllowed():
            return allow(settings.names)
    assert_never(settings)


def _path_prefix(prefix: bytes) -> RequestTransform:
    def transform(request: OutboundRequest) -> None:
        request.raw_path = prefix + request.raw_path or b"/"

    return transform


def _path_remove_prefix(prefix: bytes) -> RequestTransform:
    def transform(request: OutboundRequest) -> None:
        path = request.raw_path
        if path and is_below(path, prefix):
            request.raw_path = path[len(prefix) :] or b"/"

    return transform


def _path_set(path: bytes) -> RequestTransform:
    def transform(request: OutboundRequest) -> None:
        request.raw_path = path

    return transform


def _path_pattern(pattern: str) -> RequestTransform:
    # Odd parts are names of parameters, even parts the texts between them.
    texts = [text.encode("ascii") for text in PLACEHOLDER.split(pattern)[::2]]
    names = PLACEHOLDER.findall(pattern)

    def transform(request: OutboundRequest) -> None:
        path = texts[0]
        for name, text in zip(names, texts[1:], strict=True):
            if name == "path":
                value = request.raw_path.removeprefix(b"/")
            else:
                value = route_value(request, name).encode("ascii")
                if climbs(value):
                    # Checked here, because the whole path may be fine although this part climbs.
                    raise InvalidRequest(f"the path parameter {name!r} has dot segments")
            path += value + text
        request.raw_path = path

    return transform


def _query_parameter(settings: QueryParameter) -> RequestTransform:
    edit = append_parameter if settings.set is None else set_parameter
    value = secret(settings.set, settings.append)
    name = settings.name

    def transform(request: OutboundRequest) -> None:
        request.raw_query = edit(request.raw_query, name, value)

    return transform


def _query_route_value(name: str, parameter: str) -> RequestTransform:
    def transform(request: OutboundRequest) -> None:
        request.set_query(name, str(_parameter(request, parameter)))

    return transform


def _query_remove(name: str) -> RequestTransform:
    def transform(request: OutboundRequest) -> None:
        request.remove_query(name)

    return transform


def _method_change(method: bytes, changed: bytes) -> RequestTransform:
    def transform(request: OutboundRequest) -> None:
        if request.raw_method == method and not request.inbound.is_websocket:
            request.raw_method = changed

    return transform


def _request_header_route_value(name: str, parameter: str) -> RequestTransform:
    key = name.encode("latin-1")

    def transform(request: OutboundRequest) -> None:
        value = route_value(request, parameter).encode("ascii")
        request.headers.raw = set_headers(request.headers.raw, [(key, value)])

    return transform


def route_value(request: OutboundRequest, name: str) -> str:
    """Give a path parameter of the mount, percent-encoded as in a path.

    Raises:
        ValueError: The mount has no path parameter of that name.
    """
    return quote(str(_parameter(request, name)), safe=_PATH_SAFE)


def _parameter(request: OutboundRequest, name: str) -> object:
    try:
        return request.inbound.path_params[name]
    except KeyError:
        raise ValueError(
            f"a transform wants the path parameter {name!r}, which the mount "
            f"{request.inbound.mount!r} does not have"
        ) from None
