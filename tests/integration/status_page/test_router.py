"""The routes of the status router."""

from __future__ import annotations

import pytest
from fastapi import Depends
from fastapi.testclient import TestClient

from fastapi_proxy_di import status_router
from tests.integration.status_page.gateway import UP, admin, gateway


def test_no_answer_is_kept_or_framed(client: TestClient) -> None:
    """Of any kind, errors too."""
    responses = [
        client.get("/upstreams/"),
        client.get("/upstreams/status.json"),
        client.get("/upstreams/events"),
        client.post("/upstreams/billing/drain", json={"destination": UP}),
        client.post("/upstreams/billing/drain", content=b"{"),
        client.post("/upstreams/unknown/drain", json={"destination": UP}),
    ]

    for response in responses:
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-content-type-options"] == "nosniff"
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy


def test_without_actions() -> None:
    """The router has no route that changes anything."""
    with TestClient(gateway(status_router(), dependencies=[Depends(admin)])) as client:
        client.headers["authorization"] = "Basic YTpi"

        assert client.get("/upstreams/status.json").json()["actions"] is False
        assert client.post("/upstreams/billing/drain", json={"destination": UP}).status_code == 404
        assert "<button type" not in client.get("/upstreams/").text


@pytest.mark.parametrize("path", ["", "status.json", "events"])
def test_data_needs_the_login(client: TestClient, path: str) -> None:
    """As every route of the router."""
    assert client.get(f"/upstreams/{path}", headers={"authorization": ""}).status_code == 401


@pytest.mark.parametrize("given", ["ops.example", "https://ops.example/x", "*", "null"])
def test_allowed_origins(given: str) -> None:
    """Are origins."""
    with pytest.raises(ValueError, match="is no origin; write scheme and host"):
        status_router(allowed_origins=[given])
