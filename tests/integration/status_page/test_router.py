"""The routes of the status router."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient

from fastapi_proxy_di import proxy_lifespan, status_router
from tests.integration.status_page.gateway import UP, admin, gateway


def test_no_answer_is_kept_or_framed(client: TestClient) -> None:
    """Of any kind, errors too."""
    drain = partial(client.post, "/upstreams/billing/drain")
    responses = [
        client.get("/upstreams/"),
        client.head("/upstreams/"),
        client.get("/upstreams/status.json"),
        client.get("/upstreams/events"),
        client.get("/upstreams/events?wait=x"),
        drain(json={"destination": UP}),
        drain(json={"destination": "http://10.0.0.9"}),
        drain(json={}),
        drain(json={}, headers={"origin": "null"}),
        drain(content=b"{}", headers={"content-type": "text/plain"}),
        drain(json="x" * 70000),
        client.post("/upstreams/unknown/drain", json={"destination": UP}),
    ]
    statuses = [200, 200, 200, 200, 422, 200, 404, 422, 403, 415, 413, 404]

    assert [response.status_code for response in responses] == statuses
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


@pytest.mark.parametrize("path", ["", "status.json", "events"])
def test_methods_of_data(client: TestClient, path: str) -> None:
    """HEAD as GET without a body; OPTIONS of a page elsewhere gets no permission."""
    head = client.head(f"/upstreams/{path}")
    options = client.options(
        f"/upstreams/{path}",
        headers={"origin": "http://evil.example", "access-control-request-method": "GET"},
    )

    assert (head.status_code, options.status_code) == (200, 405)
    assert sorted(options.headers["allow"].split(", ")) == ["GET", "HEAD"]
    assert not [name for name in options.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    ("wait", "status"), [("x", 422), ("", 422), ("nan", 200), ("-1", 200), ("1e-3", 200)]
)
def test_wait(client: TestClient, wait: str, status: int) -> None:
    """Is a number of seconds."""
    position = client.get("/upstreams/events").json()["position"]
    response = client.get("/upstreams/events", params={"since": position, "wait": wait})

    assert response.status_code == status


def test_root_path() -> None:
    """The data and the actions are found below it."""
    app = gateway(status_router(actions=True, unguarded=True))
    app.root_path = "/api"
    with TestClient(app, root_path="/api") as client:
        redirect = client.get("/api/upstreams", follow_redirects=False)
        drained = client.post("/api/upstreams/billing/drain", json={"destination": UP})
        status = client.get("/api/upstreams/status.json")

    assert redirect.headers["location"].endswith("/api/upstreams/")
    assert drained.status_code == status.status_code == 200
    assert status.json()["mounts"][0]["path"] == "/billing"


def test_mounted_app_with_a_lifespan() -> None:
    """The router of the mounted app works below the mount."""
    inner = gateway(status_router(actions=True, dependencies=[Depends(admin)]))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with proxy_lifespan(inner):
            yield

    app = FastAPI(lifespan=lifespan)
    app.mount("/inner", inner)
    with TestClient(app) as client:
        client.headers["authorization"] = "Basic YTpi"

        assert client.get("/inner/upstreams/").status_code == 200
        body = {"destination": UP}
        assert client.post("/inner/upstreams/billing/drain", json=body).status_code == 200


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither headers of requests and probes, nor in events."""
    secret = "s3cret-token"
    monkeypatch.setenv("UPSTREAM_BILLING_REQUEST_HEADERS__AUTHORIZATION", secret)
    monkeypatch.setenv("UPSTREAM_BILLING_HEALTH__HEADERS__AUTHORIZATION", secret)
    with TestClient(gateway(status_router(unguarded=True))) as client:
        client.get("/billing/x")
        shown = [client.get(f"/upstreams/{path}").text for path in ("", "status.json", "events")]

    assert not [text for text in shown if secret in text]
