"""Transforms as settings: written as JSON or in code, checked at start, values secret."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from fastapi_proxy_di import SettingsError, UpstreamSettings
from fastapi_proxy_di.settings import load_upstream, unknown_variables
from fastapi_proxy_di.transforms import (
    CookieDomain,
    CookiePath,
    LocationRewrite,
    MethodChange,
    PathPattern,
    PathPrefix,
    QueryParameter,
    QueryRouteValue,
    RequestHeader,
    ResponseHeader,
    Transforms,
)


class Billing(UpstreamSettings, name="billing"):
    """An upstream that declares its transforms."""

    transforms: Transforms = [PathPrefix(prefix="/v2")]


def _set(monkeypatch: pytest.MonkeyPatch, value: object) -> None:
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", "http://a:8080")
    text = value if isinstance(value, str) else json.dumps(value)
    monkeypatch.setenv("UPSTREAM_BILLING_TRANSFORMS", text)


def _faults(monkeypatch: pytest.MonkeyPatch, value: object) -> str:
    _set(monkeypatch, value)
    with pytest.raises(SettingsError) as caught:
        load_upstream("billing")
    return str(caught.value)


def test_transforms_are_read_from_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """In their order; ``kind`` selects the model."""
    _set(
        monkeypatch,
        [
            {"kind": "path_prefix", "prefix": "/v2"},
            {"kind": "request_header", "name": "X-Tenant", "set": " acme "},
            {"kind": "location"},
        ],
    )
    path, header, location = load_upstream("billing").transforms
    assert path == PathPrefix(prefix="/v2")
    assert isinstance(header, RequestHeader)
    assert header.set is not None
    assert (header.name, header.set.get_secret_value()) == ("x-tenant", "acme")
    assert location == LocationRewrite()


def test_class_declares_transforms_and_the_environment_replaces_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Lists are replaced, not merged."""
    assert Billing(destinations=["http://a"]).transforms == (PathPrefix(prefix="/v2"),)
    _set(monkeypatch, [])
    assert Billing().transforms == ()


def test_values_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by repr, dump or a fault."""
    given = [
        {"kind": "request_header", "name": "authorization", "set": "s3cret-1"},
        {"kind": "query_parameter", "name": "key", "append": "s3cret-2"},
        {"kind": "response_header", "name": "x", "append": "s3cret-3"},
    ]
    _set(monkeypatch, given)
    settings = load_upstream("billing")
    assert "s3cret" not in repr(settings) + settings.model_dump_json() + str(settings.model_dump())

    faults = _faults(
        monkeypatch,
        [
            {"kind": "request_header", "name": "x", "set": "s3cret\n\x01", "append": "s3cret"},
            {"kind": "query_parameter", "name": "x", "set": ["s3cret"]},
            {"kind": "request_header", "name": "x", "set": "s3cret", "more": "s3cret"},
            {"kind": "path_set", "path": 3},
        ],
    )
    assert "s3cret" not in faults
    assert faults.count("UPSTREAM_BILLING_TRANSFORMS") == 4


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("/v2", "transforms (UPSTREAM_BILLING_TRANSFORMS): is a JSON list"),
        ({"kind": "location"}, "is a JSON list"),
        ("[{", "starts like JSON and cannot be decoded"),
        ([{"prefix": "/v2"}], "item 0 is not an object with 'kind'"),
        ([{"kind": "location"}, 3], "item 1 is not an object with 'kind'"),
        (
            [{"kind": "path_prefx", "prefix": "/v2"}],
            "'path_prefx' is not a kind; did you mean 'path_prefix'?",
        ),
        (
            [{"kind": "path_prefix", "prefx": "/v2"}],
            "prefx (UPSTREAM_BILLING_TRANSFORMS): is not a field; did you mean 'prefix'?",
        ),
        ([{"kind": "path_prefix"}], "transforms.0.path_prefix.prefix"),
    ],
)
def test_fault_names_the_transform_and_the_remedy(
    monkeypatch: pytest.MonkeyPatch, value: object, reason: str
) -> None:
    """Index in the list, kind, field and variable."""
    assert reason in _faults(monkeypatch, value)


@pytest.mark.parametrize("path", ["v2", "", "/a b", "/a?b", "/a#b", "/../a", "/%2e%2e", "/\u00e4"])
def test_malformed_path_is_refused(path: str) -> None:
    """A path is percent-encoded, absolute, and does not climb."""
    with pytest.raises(ValidationError, match="is not a path"):
        PathPrefix(prefix=path)


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("{path}", "is not a path"),
        ("/{a}/../..", "is not a path"),
        ("/{a", "brace"),
        ("/a}", "brace"),
        ("/{}", "not a name"),
        ("/{a b}", "not a name"),
        ("/{path:path}", "not a name"),
    ],
)
def test_malformed_pattern_is_refused(pattern: str, reason: str) -> None:
    """A pattern is a path with names in braces."""
    with pytest.raises(ValidationError, match=reason):
        PathPattern(pattern=pattern)


@pytest.mark.parametrize("method", ["CONNECT", "connect", "A B", ""])
def test_method_that_cannot_be_sent_is_refused(method: str) -> None:
    """CONNECT, too."""
    with pytest.raises(ValidationError, match="is not a method"):
        MethodChange(method="GET", set=method)


@pytest.mark.parametrize(
    "name",
    [
        "Host",
        "a b",
        "connection",
        "content-length",
        "forwarded",
        "proxy-authorization",
        "Sec-WebSocket-Key",
        "via",
        "x-forwarded-for",
    ],
)
def test_request_header_of_the_proxy_is_refused(name: str) -> None:
    """Host, framing, hop-by-hop, forwarding and handshake headers."""
    with pytest.raises(ValidationError, match="name"):
        RequestHeader(name=name, set="1")


@pytest.mark.parametrize("name", ["content-length", "trailer", "sec-websocket-accept"])
def test_response_header_of_the_proxy_is_refused(name: str) -> None:
    """Headers that frame the response."""
    with pytest.raises(ValidationError, match="proxy's own"):
        ResponseHeader(name=name, set="1")


@pytest.mark.parametrize("value", ["a\r\nb", "a\0b", "\u20ac"])
def test_header_value_must_be_safe(value: str) -> None:
    """CR, LF, NUL and characters outside latin-1 are refused."""
    with pytest.raises(ValidationError, match="line break"):
        RequestHeader(name="x", set=value)


@pytest.mark.parametrize("model", [RequestHeader, ResponseHeader, QueryParameter])
@pytest.mark.parametrize("given", [{}, {"set": "1", "append": "2"}])
def test_set_and_append_exclude_each_other(model: Any, given: dict[str, str]) -> None:
    """One of both is required."""
    with pytest.raises(ValidationError, match="needs one of"):
        model(name="x", **given)


@pytest.mark.parametrize("given", [{"match": "/a"}, {"replace": "/a"}])
def test_location_needs_match_and_replace(given: Any) -> None:
    """Both or none."""
    with pytest.raises(ValidationError, match="needs both"):
        LocationRewrite(**given)


def test_texts_of_responses_are_checked() -> None:
    """Domains, paths and locations that a header or browser would not take are refused."""
    with pytest.raises(ValidationError, match="not part of a URL"):
        LocationRewrite(match="/a", replace="/\r\n")
    with pytest.raises(ValidationError, match="not a domain"):
        CookieDomain(set="a.test; Secure")
    with pytest.raises(ValidationError, match="not a path"):
        CookiePath(set="/; Secure")
    with pytest.raises(ValidationError, match="pattern"):
        QueryRouteValue(name="a", parameter="not a name")


def test_variable_below_the_list_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list has no nested variables."""
    _set(monkeypatch, [])
    environ = {"UPSTREAM_BILLING_TRANSFORM": "[]", "UPSTREAM_BILLING_TRANSFORMS": "[]"}
    (warning,) = unknown_variables(Billing, environ)
    assert warning.startswith("UPSTREAM_BILLING_TRANSFORM sets nothing")
    assert warning.endswith("did you mean UPSTREAM_BILLING_TRANSFORMS?")
