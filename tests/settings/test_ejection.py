"""Settings of ejection."""

from collections.abc import Callable

import pytest
from pydantic import BaseModel, ValidationError

from fastapi_proxy_di.settings import (
    EjectionSettings,
)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: EjectionSettings(failure_rate=0), "greater than 0"),
        (lambda: EjectionSettings(base_time=60, max_time=30), "max_time"),
    ],
)
def test_ejection_refuses_contradictions(build: Callable[[], BaseModel], message: str) -> None:
    """Settings that cannot work are a fault at start."""
    with pytest.raises(ValidationError, match=message):
        build()
