"""Settings of affinity."""

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr, ValidationError

from fastapi_proxy_di.settings import (
    AffinitySettings,
)

KEY = SecretStr("k" * 16)


def of_cookie(**settings: Any) -> AffinitySettings:
    """Make the settings of a cookie."""
    return AffinitySettings(**{"cookie": "lb", "key": KEY, **settings})


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (AffinitySettings, "needs one of"),
        (lambda: AffinitySettings(cookie="a", header="b", key=KEY), "needs one of"),
        (lambda: AffinitySettings(cookie="a"), "is required with 'cookie'"),
        (lambda: AffinitySettings(cookie="a", key=SecretStr("k" * 15)), "shorter than 16"),
        (lambda: AffinitySettings(cookie="a", key=SecretStr(" " * 16)), "shorter than 16"),
        (lambda: AffinitySettings(cookie="a b", key=KEY), "is not a cookie name"),
        (lambda: AffinitySettings(header="a b"), "is not a header name"),
        (lambda: of_cookie(domain="example.com:8000"), "is not a domain"),
        (lambda: of_cookie(domain="a; Secure"), "is not a domain"),
        (lambda: of_cookie(domain="a.example\r\nX-Other: 1"), "is not a domain"),
        (lambda: of_cookie(domain="a" * 64), "is not a domain"),
        (lambda: of_cookie(domain="a." * 127 + "a"), "is not a domain"),
        (lambda: of_cookie(domain=""), "is not a domain"),
        (lambda: of_cookie(domain="example.com", cookie="__Host-lb"), "has no domain"),
        (lambda: of_cookie(same_site="any"), "'lax', 'strict' or 'none'"),
        (lambda: of_cookie(max_age=0), "must be more than 0"),
        (lambda: AffinitySettings(issue=True, key=KEY), "needs one of"),
        (lambda: AffinitySettings(header="a", issue=True), "is required with 'issue', whose marks"),
        (lambda: of_cookie(issue=True), "'issue' is about the header; set 'header'"),
        (lambda: AffinitySettings(header="a", same_site="none"), "'same_site' is about the cookie"),
        (lambda: AffinitySettings(header="a", max_age=60), "'max_age' is about the cookie"),
        (lambda: AffinitySettings(header="a", domain="a.example"), "'domain' is about the cookie"),
    ],
)
def test_affinity_refuses_contradictions(build: Callable[[], BaseModel], message: str) -> None:
    """Settings that cannot work are a fault at start."""
    with pytest.raises(ValidationError, match=message):
        build()


def test_affinity_takes_a_cookie_or_a_header() -> None:
    """Header names become lower-case."""
    assert AffinitySettings(header="X-User").header == "x-user"
    assert AffinitySettings(cookie="lb", key=KEY).on_missing == "redistribute"


def test_affinity_reads_the_attributes_of_the_cookie_as_variables_hold_them() -> None:
    """``none`` is a value of SameSite, and no domain."""
    settings = of_cookie(same_site="None", max_age="12h", domain=".Example.COM")

    assert (settings.same_site, settings.max_age) == ("none", 43200)
    assert settings.domain == "example.com"
    assert of_cookie(domain="none", max_age="none") == of_cookie()
