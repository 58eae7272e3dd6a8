"""Affinity, policy ``prefix``, changes of a running upstream and ``gc.freeze``, as described."""

from __future__ import annotations

import gc
import logging
import re
import runpy
from typing import Any

import pytest
import uvicorn

from fastapi_proxy_di import Upstream
from tests.docs.conftest import SNIPPETS, Gateway, Snippet
from tests.support.origins import Connection, ScriptedOrigin, always, response_bytes
from tests.support.servers import Running

pytestmark = pytest.mark.e2e


async def test_affinity_keeps_the_client_on_one_destination(
    snippet: Snippet,
    billing: tuple[Running, Running],
    gateway: Gateway,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The cookie of the first response sends later requests to the same destination."""
    monkeypatch.setenv("AFFINITY_KEY", "a long random text")
    async with gateway(snippet("how_to/affinity.py").app) as client:
        responses = [await client.get("/billing/invoices/7") for _ in range(10)]

    assert len({response.json()["served_by"] for response in responses}) == 1
    assert ["set-cookie" in response.headers for response in responses] == [True] + [False] * 9


async def test_issued_id_leads_back_to_its_destination(
    snippet: Snippet, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client's id has the mark, the destination's has not."""
    monkeypatch.setenv("AFFINITY_KEY", "a long random text")
    reply = response_bytes(headers=[(b"mcp-session-id", b"1868a90c")])
    async with ScriptedOrigin(always(reply)) as one, ScriptedOrigin(always(reply)) as two:
        monkeypatch.setenv("UPSTREAM_TOOLS_DESTINATIONS", f"{one.url},{two.url}")
        async with gateway(snippet("how_to/affinity_issue.py").app) as client:
            issued = (await client.post("/tools/mcp")).headers["mcp-session-id"]
            for _ in range(6):
                await client.post("/tools/mcp", headers={"mcp-session-id": issued})

    assert re.fullmatch(r"1868a90c~[\w-]{12}", issued)
    (used,) = [origin for origin in (one, two) if origin.requests]
    got = [request.one(b"mcp-session-id") for request in used.requests]
    assert got == [None] + [b"1868a90c"] * 6


async def test_prefix_keeps_prompts_that_begin_alike_together(
    snippet: Snippet, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of a conversation reaches one model server; other prompts use both."""
    async with ScriptedOrigin() as one, ScriptedOrigin() as two:
        monkeypatch.setenv("UPSTREAM_MODELS_DESTINATIONS", f"{one.url},{two.url}")
        async with gateway(snippet("how_to/prefix.py").app) as client:
            for turn in range(8):
                body = {"system": "long " * 300, "messages": [{"content": f"{turn}"}]}
                await client.post("/models/v1/messages", json=body)
            same = {len(one.requests), len(two.requests)}
            for number in range(32):
                await client.post("/models/v1/completions", json={"prompt": f"{number}"})

    assert same == {0, 8}
    assert one.requests
    assert two.requests


async def test_ejection_key_keeps_a_destination_for_other_keys(
    snippet: Snippet, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key over its quota at both of them gets 503, another one is served."""
    refusal = response_bytes(429, headers=[(b"Retry-After", b"30")])

    async def script(connection: Connection) -> None:
        while True:
            received = await connection.read_request()
            over = received.one(b"authorization") == b"Bearer a"
            await connection.send(refusal if over else response_bytes())

    async with ScriptedOrigin(script) as one, ScriptedOrigin(script) as two:
        monkeypatch.setenv("UPSTREAM_MODELS_DESTINATIONS", f"{one.url},{two.url}")
        async with gateway(snippet("how_to/ejection_key.py").app) as client:
            got = [
                (await client.get("/models/x", headers={"Authorization": key})).status_code
                for key in ("Bearer a", "Bearer a", "Bearer b")
            ]

    assert got == [429, 503, 200]
    assert len(one.requests) + len(two.requests) == 3


async def test_operate_changes_limits_probes_and_destinations(
    snippet: Snippet,
    billing: tuple[Running, Running],
    gateway: Gateway,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each change takes effect at once and emits an event."""
    one, two = billing
    app = snippet("how_to/operate.py").app
    with caplog.at_level(logging.WARNING, "operations"):
        async with gateway(app) as client:
            upstream = Upstream("billing").of(app)
            await client.post("/admin/probe", params={"path": "/health", "interval": 60})
            await client.post("/admin/limit", params={"url": one.url, "max_requests": 1})
            limits = {each.url: each.max_requests for each in upstream.destinations}
            responses = [await client.get("/billing/invoices/7") for _ in range(20)]
            await client.post("/admin/destinations", json=[two.url])
            left = [each.url for each in upstream.destinations]
            health = upstream.health

    assert (health.path, health.interval) == ("/health", 60)
    assert limits == {one.url: 1, two.url: None}
    assert [response.json()["served_by"] for response in responses].count(one.port) <= 1
    assert left == [two.url]
    assert "LimitHit" in caplog.text
    assert "DestinationDraining" in caplog.text


async def test_frozen_app_proxies(
    snippet: Snippet, billing: tuple[Running, Running], gateway: Gateway
) -> None:
    """The objects made at start are frozen, and the app still proxies."""
    try:
        async with gateway(snippet("explanation/freeze.py").app) as client:
            frozen = gc.get_freeze_count()
            response = await client.get("/billing/invoices/7")
    finally:
        gc.unfreeze()

    assert frozen > 1000
    assert response.status_code == 200


def test_serve_sets_the_shutdown_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """``python serve.py`` starts uvicorn with a bound for open streams."""
    given: list[dict[str, Any]] = []
    monkeypatch.setattr(uvicorn, "run", lambda app, **options: given.append(options))
    runpy.run_path(str(SNIPPETS / "how_to/serve.py"), run_name="__main__")

    assert given == [{"timeout_graceful_shutdown": 10}]
