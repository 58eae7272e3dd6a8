"""What all nested models of settings have in common."""

import pytest
from pydantic import ValidationError

from fastapi_proxy_di.settings import (
    HealthSettings,
)


def test_models_are_frozen_and_refuse_unknown_keys() -> None:
    """Unknown keys are errors in code, too."""
    settings = HealthSettings()

    with pytest.raises(ValidationError, match="frozen"):
        settings.__setattr__("path", "/x")
    with pytest.raises(ValidationError, match="paht"):
        HealthSettings.model_validate({"paht": "/x"})
