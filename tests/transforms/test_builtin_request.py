"""Each request transform of the settings."""

from typing import Any

import pytest

from fastapi_proxy_di import InvalidRequest
from fastapi_proxy_di.transforms import (
    MethodChange,
    OutboundRequest,
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
    Transform,
)
from tests.transforms.views import changed, outbound


def _path(path: bytes, *transforms: Transform, **scope: Any) -> bytes:
    return changed(outbound(path, **scope), *transforms).raw_path


@pytest.mark.parametrize(
    ("prefix", "path", "expected"),
    [
        ("/v2", b"/x", b"/v2/x"),
        ("/v2/", b"/x", b"/v2/x"),
        ("/v2", b"", b"/v2"),
        ("/v2", b"/", b"/v2/"),
        ("/v2", b"//x%2F;a", b"/v2//x%2F;a"),
        ("/", b"/x", b"/x"),
        ("/", b"", b"/"),
    ],
)
def test_path_prefix(prefix: str, path: bytes, expected: bytes) -> None:
    """No slash is doubled."""
    assert _path(path, PathPrefix(prefix=prefix)) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"/api/x", b"/x"),
        (b"/api", b"/"),
        (b"/api/", b"/"),
        (b"/apix", b"/apix"),
        (b"/x/api", b"/x/api"),
        (b"", b""),
        (b"/api//x", b"//x"),
    ],
)
def test_path_remove_prefix(path: bytes, expected: bytes) -> None:
    """Only whole segments match, as in YARP."""
    assert _path(path, PathRemovePrefix(prefix="/api")) == expected


def test_path_remove_prefix_refuses_paths_that_climb() -> None:
    """``/api/../x`` climbs once ``/api`` is removed, even if a prefix follows."""
    with pytest.raises(InvalidRequest):
        _path(b"/api/../x", PathRemovePrefix(prefix="/api"), PathPrefix(prefix="/v2"))


def test_path_set() -> None:
    """All requests get the same path."""
    assert _path(b"/whatever", PathSet(path="/soap;v=1")) == b"/soap;v=1"


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("/t/{tenant}/{path}", b"/t/acme/a%2Fb"),
        ("/{path}/{tenant}.json", b"/a%2Fb/acme.json"),
        ("/{number}", b"/7"),
        ("/{odd}", b"/%25%20%C3%A4%3F%23/x"),
        ("/plain", b"/plain"),
    ],
)
def test_path_pattern(pattern: str, expected: bytes) -> None:
    """The rest of the path stays raw, path parameters are encoded."""
    params = {"tenant": "acme", "number": 7, "odd": "% \u00e4?#/x", "path": "/decoded"}
    assert _path(b"/a%2Fb", PathPattern(pattern=pattern), path_params=params) == expected


@pytest.mark.parametrize("tenant", ["..", "../x", "a/../..", "..;x"])
def test_path_pattern_refuses_parameters_that_climb(tenant: str) -> None:
    """The tenant ``..`` would leave ``/tenants`` without climbing above the root."""
    pattern = PathPattern(pattern="/tenants/{tenant}/x")
    with pytest.raises(InvalidRequest):
        _path(b"", pattern, path_params={"tenant": tenant})


@pytest.mark.parametrize(
    "transform",
    [
        PathPattern(pattern="/{tenant}"),
        QueryRouteValue(name="t", parameter="tenant"),
        RequestHeaderRouteValue(name="x-t", parameter="tenant"),
    ],
)
def test_unknown_path_parameter_is_named(transform: Transform) -> None:
    """The error names the parameter and the mount."""
    with pytest.raises(ValueError, match=r"'tenant'.*'/billing'"):
        changed(outbound(), transform)


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        (QueryParameter(name="a", set="s &"), b"b=%2f&a=s%20%26"),
        (QueryParameter(name="a", append="2"), b"a=1&b=%2f&a=2"),
        (QueryRouteValue(name="t", parameter="tenant"), b"a=1&b=%2f&t=ac%26me"),
        (QueryRemove(name="a"), b"b=%2f"),
    ],
)
def test_query_transforms(transform: Transform, expected: bytes) -> None:
    """All other parameters stay byte for byte."""
    request = outbound(query=b"a=1&b=%2f", path_params={"tenant": "ac&me"})
    assert changed(request, transform).raw_query == expected


@pytest.mark.parametrize(
    ("method", "kind", "expected"),
    [(b"PUT", "http", b"POST"), (b"GET", "http", b"GET"), (b"PUT", "websocket", b"PUT")],
)
def test_method_change(method: bytes, kind: str, expected: bytes) -> None:
    """The method of a WebSocket handshake stays."""
    request = outbound(method=method, type=kind)
    assert changed(request, MethodChange(method="put", set="post")).raw_method == expected


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        (RequestHeader(name="X-A", set="9"), [(b"x-b", b"2"), (b"x-a", b"9")]),
        (
            RequestHeader(name="x-a", append="9"),
            [(b"x-a", b"1"), (b"x-b", b"2"), (b"x-a", b"3"), (b"x-a", b"9")],
        ),
        (
            RequestHeaderRouteValue(name="x-b", parameter="tenant"),
            [(b"x-a", b"1"), (b"x-a", b"3"), (b"x-b", b"ac%0Ame")],
        ),
        (RequestHeaderRemove(name="x-a"), [(b"x-b", b"2")]),
        (RequestHeadersAllowed(names="X-B, accept"), [(b"x-b", b"2")]),
        (RequestHeadersAllowed(names=()), []),
    ],
)
def test_header_transforms(transform: Transform, expected: list[tuple[bytes, bytes]]) -> None:
    """Order and repeats of the other headers stay."""
    request = outbound(
        headers=[(b"x-a", b"1"), (b"x-b", b"2"), (b"x-a", b"3")],
        path_params={"tenant": "ac\nme"},
    )
    before = list(request.inbound.scope["headers"])
    assert changed(request, transform).headers.raw == expected
    assert request.inbound.scope["headers"] == before


def test_transforms_run_in_their_order() -> None:
    """Each transform sees the changes of those before it, functions included."""

    def shout(request: OutboundRequest) -> None:
        request.path = request.path.upper()

    request = changed(outbound(b"/x"), PathPrefix(prefix="/a"), shout, PathPrefix(prefix="/b"))
    assert request.path == "/b/A/X"
