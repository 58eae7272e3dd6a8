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
        (lambda: EjectionSettings(key="authorization"), "use header:<name>, query:<name> or"),
        (lambda: EjectionSettings(key="body:"), "is not a place of a key"),
        (lambda: EjectionSettings(key="header:a b"), "is not a header name"),
    ],
)
def test_ejection_refuses_contradictions(build: Callable[[], BaseModel], message: str) -> None:
    """Settings that cannot work are a fault at start."""
    with pytest.raises(ValidationError, match=message):
        build()


def test_ejection_reads_the_place_of_a_key() -> None:
    """Names of headers become lower-case, others stay; ``none`` is off."""
    assert EjectionSettings(key="header:X-Key").key == "header:x-key"
    assert EjectionSettings(key="query:Key").key == "query:Key"
    assert EjectionSettings(key="none").key is None
    assert EjectionSettings().key_statuses == {401, 403, 429}
