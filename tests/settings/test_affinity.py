"""Settings of affinity."""

from collections.abc import Callable

import pytest
from pydantic import BaseModel, SecretStr, ValidationError

from fastapi_proxy_di.settings import (
    AffinitySettings,
)

KEY = SecretStr("k" * 16)


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
