"""``schema``: prints the JSON Schema of the settings."""

from __future__ import annotations

import json

import pytest

from fastapi_proxy_di.cli import main


@pytest.mark.parametrize("arguments", [["schema"], ["schema", "billing"]])
def test_schema_names_every_setting(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The output is JSON and has the settings with their descriptions."""
    assert main(arguments) == 0

    schema = json.loads(capsys.readouterr().out)
    assert {"destinations", "policy", "health", "retries"} <= schema["properties"].keys()
    assert schema["properties"]["policy"]["description"]
