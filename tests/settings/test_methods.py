"""Sets of HTTP methods."""

import pytest
from pydantic import ValidationError

from fastapi_proxy_di.settings import (
    RetrySettings,
)


def test_methods_are_upper_case_names() -> None:
    """Methods come from comma-separated text as well as from a list, and dump in order."""
    settings = RetrySettings.model_validate({"methods": "put, get"})

    assert {"GET", "PUT"} == settings.methods
    assert settings.model_dump(mode="json")["methods"] == ["GET", "PUT"]
    others = {"PURGE", "PROPFIND", "PROPPATCH", "REPORT"}
    assert RetrySettings(methods=frozenset(others)).methods == others
    with pytest.raises(ValidationError, match="did you mean PATCH"):
        RetrySettings.model_validate({"methods": "PATH"})
    with pytest.raises(ValidationError, match="is not a method"):
        RetrySettings.model_validate({"methods": ["G T"]})
