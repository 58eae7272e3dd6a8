"""Settings of health probes."""

from collections.abc import Callable

import pytest
from pydantic import BaseModel, ValidationError

from fastapi_proxy_di.settings import (
    HealthSettings,
)


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
