"""The page on transforms: its files work and its table is complete."""

import json
import re
from pathlib import Path

import pytest
from starlette.types import Receive, Scope, Send

from fastapi_proxy_di.settings import UpstreamSettings, load_upstream
from tests.docs.conftest import SNIPPETS, Gateway, Snippet
from tests.support.servers import run_app

PAGE = SNIPPETS.parent / "how-to" / "transform-requests.md"


async def legacy(scope: Scope, receive: Receive, send: Send) -> None:
    """Redirect to the path and query of the request."""
    assert scope["type"] == "http"
    headers = dict(scope["headers"])
    location = b"/login?" + scope["query_string"] + b"&path=" + scope["raw_path"]
    response_headers = [
        (b"location", location),
        (b"set-cookie", b"a=1; Path=/"),
        (b"x-powered-by", b"php"),
        (b"x-seen", headers[b"x-gateway"] + b" " + headers[b"x-tenant"]),
    ]
    status = 500 if scope["query_string"].startswith(b"fail") else 302
    await send({"type": "http.response.start", "status": status, "headers": response_headers})
    await send({"type": "http.response.body", "body": b""})


@pytest.mark.e2e
async def test_transforms_change_requests_and_responses(
    snippet: Snippet, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Models and functions change the request and the response."""
    async with run_app(legacy, lifespan="off") as upstream:
        monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", upstream.url)
        async with gateway(snippet("how_to/transforms.py").app) as client:
            response = await client.get("/acme/billing/x", params={"tenant": "forged"})
            failed = await client.get("/acme/billing/x?fail")

    assert response.headers["location"] == "/acme/billing/login?tenant=acme&path=/v2/x"
    assert response.headers["set-cookie"] == "a=1; Path=/acme/billing"
    assert response.headers["x-seen"] == "billing acme"
    assert "x-powered-by" not in response.headers
    assert "x-support" not in response.headers
    assert failed.headers["x-support"] == "call us"


def test_page_shows_the_same_in_the_environment(
    snippet: Snippet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The JSON of the page gives the same transforms as the class."""
    text = Path(PAGE).read_text(encoding="utf-8")
    match = re.search(r"```json\n(.*?)```", text, re.DOTALL)
    assert match is not None
    json.loads(match[1])
    monkeypatch.setenv("UPSTREAM_BILLING_TRANSFORMS", match[1])
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", "http://127.0.0.1:9001")
    read = load_upstream("billing")
    monkeypatch.delenv("UPSTREAM_BILLING_TRANSFORMS")
    assert read.transforms == snippet("how_to/transforms.py").Billing().transforms


def test_page_lists_every_kind() -> None:
    """The page's table has every kind of transform with all its fields."""
    text = Path(PAGE).read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", text, re.MULTILINE))
    schema = _fields_by_kind()
    assert set(listed) == set(schema)
    for kind, fields in schema.items():
        missing = [field for field in fields if f"`{field}`" not in listed[kind]]
        assert not missing, kind


def _fields_by_kind() -> dict[str, list[str]]:
    """Give the fields of each kind, from the JSON schema of the settings."""
    definitions = UpstreamSettings.model_json_schema()["$defs"].values()
    return {
        model["properties"]["kind"]["const"]: [
            name for name in model["properties"] if name != "kind"
        ]
        for model in definitions
        if "kind" in model.get("properties", {})
    }
