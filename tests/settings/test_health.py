"""Settings of health probes."""

from collections.abc import Callable

import pytest
from pydantic import BaseModel, ValidationError

from fastapi_proxy_di.settings import (
    HealthSettings,
)


def probing(headers: dict[str, str]) -> HealthSettings:
    """Make settings with headers."""
    return HealthSettings.model_validate({"headers": headers})


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: HealthSettings(path="health"), "starts with '/'"),
        (lambda: HealthSettings(path="/a b"), "starts with '/'"),
        (lambda: HealthSettings(path="/a#b"), "starts with '/'"),
        (lambda: HealthSettings(path="/ü"), "starts with '/'"),
        (lambda: HealthSettings(body_match="("), "is not a regular expression"),
        (lambda: HealthSettings(path="/", method="HEAD", body_match="ok"), "needs the method GET"),
        (lambda: HealthSettings.model_validate({"method": 5}), "GET"),
        (lambda: HealthSettings(fall=0), "greater than or equal to 1"),
        (lambda: HealthSettings(host="a.example/x"), "is not a host"),
        (lambda: HealthSettings(host="http://a.example"), "is not a host"),
        (lambda: HealthSettings(host="ada@a.example"), "is not a host"),
        (lambda: HealthSettings(host="a.example:x"), "is not a host"),
        (lambda: HealthSettings(host="a.example\r\nx: 1"), "is not a host"),
        (lambda: HealthSettings(host=""), "'' is not a host"),
        (lambda: probing({"a b": "1"}), "is not a header name"),
        (lambda: probing({"Host": "a.example"}), "set 'health.host'"),
        (lambda: probing({"content-length": "1"}), "may not be set"),
        (lambda: probing({"x-key": "a\nb"}), "the value of 'x-key' holds a line break"),
    ],
)
def test_health_refuses_contradictions(build: Callable[[], BaseModel], message: str) -> None:
    """Settings that cannot work are a fault at start."""
    with pytest.raises(ValidationError, match=message):
        build()


def test_health_normalises_its_method() -> None:
    """A path turns probes on; it may have a query."""
    health = HealthSettings.model_validate({"path": "/h?x=1", "method": "head"})

    assert health.enabled
    assert health.method == "HEAD"
    assert not HealthSettings().enabled
    assert HealthSettings(path="/", body_match="ok|fine").body_match == "ok|fine"


def test_health_headers_are_secrets() -> None:
    """Names are in lower case, values are never shown; forwarding headers are allowed."""
    health = probing({"Authorization": " Bearer s3cret ", "X-Forwarded-Proto": "https"})

    assert list(health.headers) == ["authorization", "x-forwarded-proto"]
    assert health.headers["authorization"].get_secret_value() == "Bearer s3cret"
    assert "s3cret" not in f"{health!r} {health.model_dump()} {health.model_dump_json()}"


@pytest.mark.parametrize(
    ("given", "expected"),
    [("Tenant.Example", "tenant.example"), ("a.example:8080", "a.example:8080"), ("none", None)],
)
def test_health_host_is_a_name_with_or_without_a_port(given: str, expected: str | None) -> None:
    """As the Host header is written; ``none`` overrides a class."""
    assert HealthSettings(host=given).host == expected
