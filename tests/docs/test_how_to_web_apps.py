"""The settings of the recipes for web apps, without the apps: `tests/web_apps` runs those."""

from __future__ import annotations

import shlex
from pathlib import Path

import httpx
import pytest

from fastapi_proxy_di import Upstream
from tests.docs.conftest import SNIPPETS, Gateway, Snippet

pytestmark = pytest.mark.e2e

RECIPES = sorted((SNIPPETS / "how_to" / "web_apps").glob("*.env"))


@pytest.fixture(params=RECIPES, ids=[file.stem for file in RECIPES])
def command(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Set the variables of a recipe, and give the command of its app."""
    settings: Path = request.param
    monkeypatch.setenv("UPSTREAM_SHOP_STRICT_ENVIRONMENT", "true")
    for pair in shlex.split(settings.read_text()):
        monkeypatch.setenv(*pair.split("=", 1))
    return settings.with_suffix(".sh").read_text()


async def test_gateway_starts_with_the_settings_of_each_recipe(
    command: str, snippet: Snippet, gateway: Gateway
) -> None:
    """No setting is unknown or refused, and the app's port is the destination's."""
    app = snippet("how_to/web_apps/gateway.py").app
    async with gateway(app):
        (destination,) = Upstream("shop").of(app).destinations

    assert httpx.URL(destination.url).port == 9001
    assert "9001" in command
