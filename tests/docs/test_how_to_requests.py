"""The files of the how-to pages on deciding per request and on settings files work as described."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from fastapi_proxy_di import Upstream
from fastapi_proxy_di.testing import echo, reply, stand_in
from tests.docs.conftest import SNIPPETS, Snippet

PAGE = SNIPPETS.parent / "how-to" / "settings-files.md"


def test_decide_exchanges_the_token_and_keeps_the_tenant(snippet: Snippet) -> None:
    """The upstream gets the exchanged token, and each tenant stays on one destination."""
    app = snippet("how_to/decide.py").app
    headers = {"authorization": "Bearer outside"}

    with (
        stand_in(
            app, "billing", {name: reply() for name in ("a", "b", "c")}, policy="hash"
        ) as billing,
        TestClient(app) as client,
    ):
        refused = client.get("/billing/x", headers={"authorization": "Bearer x", "x-tenant": "a"})
        for number in range(30):
            client.get("/billing/export", headers=headers | {"x-tenant": f"tenant-{number % 6}"})

    served: dict[str, set[str]] = {}
    for received, destination in zip(billing.received, billing.tried, strict=True):
        served.setdefault(received.headers["x-tenant"], set()).add(destination)
    assert refused.status_code == 401
    assert {one.headers["authorization"] for one in billing.received} == {"Bearer inside"}
    assert [len(destinations) for destinations in served.values()] == [1] * 6
    assert len(set().union(*served.values())) > 1


def test_tenants_have_their_own_upstream(snippet: Snippet) -> None:
    """HTTP and WebSocket of a tenant reach its upstream; an unknown tenant reaches none."""
    app = snippet("how_to/tenants.py").app

    with (
        stand_in(app, "shared", reply("shared")) as shared,
        stand_in(app, "acme", [reply("acme"), echo()]) as acme,
        TestClient(app) as client,
    ):
        responses = [
            client.get("/a%2Fb?x=1", headers={"x-tenant": tenant})
            for tenant in ("acme", "small", "unknown")
        ]
        with client.websocket_connect("/live", headers={"x-tenant": "acme"}) as live:
            live.send_text("hello")
            heard = live.receive_text()

    assert [response.status_code for response in responses] == [200, 200, 403]
    assert [response.text for response in responses[:2]] == ["acme", "shared"]
    assert heard == "hello"
    assert (len(shared.received), len(acme.received)) == (1, 2)
    assert shared.received[0].query == "x=1"


def test_settings_come_from_the_files_of_the_page(
    snippet: Snippet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings have the values of the page's TOML, ``.env`` and secret file."""
    text = PAGE.read_text()
    toml, dotenv = (
        re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)[0] for kind in ("toml", "sh")
    )
    (secret,) = re.findall(r"`secrets/(\w+)` holds `(.+)`", text)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "billing.toml").write_text(toml)
    (tmp_path / ".env").write_text(dotenv)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / secret[0]).write_text(secret[1] + "\n")
    module = snippet("how_to/settings_files.py")

    settings = module.Billing()

    assert [one.url for one in settings.destination_settings] == [
        "http://10.0.0.1:8080",
        "http://10.0.0.2:8080",
    ]
    assert (settings.health.path, settings.health.interval) == ("/health", 10)
    assert settings.policy == "least_requests"
    assert settings.request_headers["authorization"].get_secret_value() == "Bearer s3cret"
    with TestClient(module.app):
        assert Upstream("billing").of(module.app).settings == settings


def test_settings_page_has_the_order_of_the_sources() -> None:
    """The page lists the sources in the order that ``test_sources_have_their_order`` checks."""
    found = re.findall(r"^\d\. (.*)$", PAGE.read_text(), re.MULTILINE)

    assert [line.split(",")[0].removeprefix("the ").split()[0].strip("`[") for line in found] == [
        "arguments",
        "environment",
        ".env",
        "secrets",
        "TOML",
        "class",
        "defaults](../explanation/defaults.md)",
    ]


def test_response_is_read_and_sent(snippet: Snippet) -> None:
    """As the page says: a header tells what the body says."""
    app = snippet("how_to/read_response.py").app

    with (
        stand_in(app, "billing", [reply({"total": 70}), reply(status=404)]),
        TestClient(app) as client,
    ):
        found, missing = (client.get(f"/invoices/{number}") for number in (7, 8))

    assert (found.json(), found.headers["x-total"]) == ({"total": 70}, "70")
    assert (missing.status_code, "x-total" in missing.headers) == (404, False)
