"""Settings switched off by text."""

import pytest

from fastapi_proxy_di.settings import (
    TimeoutSettings,
    WebSocketSettings,
)


@pytest.mark.parametrize("text", ["none", "off", "null", " None "])
def test_optional_settings_can_be_switched_off_by_text(text: str) -> None:
    """A variable can replace a value of the class."""
    assert WebSocketSettings.model_validate({"ping_interval": text}).ping_interval is None
    assert TimeoutSettings.model_validate({"total": text}).total is None
