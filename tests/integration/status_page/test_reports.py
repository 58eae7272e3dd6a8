"""What the status router gives as data."""

from __future__ import annotations

import asyncio
import os

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient

from fastapi_proxy_di import (
    Balancer,
    EventsReport,
    StatusReport,
    Upstream,
    UpstreamStatus,
    proxy_app,
    proxy_lifespan,
    proxy_router,
    status_router,
)
from fastapi_proxy_di.testing import reply, stand_in
from tests.integration.status_page.gateway import DOWN, UP, destinations


def test_status(client: TestClient) -> None:
    """State, reason and numbers of each destination."""
    for _ in range(3):
        assert client.get("/billing/x").status_code == 200
    report = client.get("/upstreams/status.json").json()
    up, down = destinations(client).values()

    assert report["actions"] is True
    assert [one["upstream"] for one in report["upstreams"]] == ["billing"]
    assert (up["state"], up["reason"], up["attempts"], up["in_flight"]) == ("available", "", 3, 0)
    assert up["first_byte_ms"]["p50"] > 0
    assert down["state"] == "unhealthy"
    assert down["reason"].startswith("cannot connect to http://127.0.0.1:9")
    assert report["started"] <= down["since"] <= report["at"]


def test_events(client: TestClient) -> None:
    """Events after a position are given; all events for the position of another process."""
    first = client.get("/upstreams/events").json()
    client.post("/upstreams/billing/drain", json={"destination": UP})
    more = client.get("/upstreams/events", params={"since": first["position"], "wait": 5}).json()
    none = client.get("/upstreams/events", params={"since": more["position"], "wait": 0.01}).json()
    elsewhere = client.get("/upstreams/events", params={"since": "1-2", "wait": 5}).json()

    assert [(one["kind"], one["destination"]) for one in first["events"]] == [
        ("DestinationDown", DOWN)
    ]
    assert next((one["kind"], one["text"]) for one in more["events"]) == (
        "DestinationDraining",
        "is draining",
    )
    assert not none["events"]
    assert len(elsewhere["events"]) == len(first["events"]) + len(more["events"])


def test_position_of_an_earlier_start(client: TestClient) -> None:
    """Numbers begin anew with the app, also where its process has the same id."""
    first = client.get("/upstreams/events").json()
    start, number = first["position"].split("-")
    since = f"{int(start) - 1}-{int(number) + 50}"
    after = client.get("/upstreams/events", params={"since": since, "wait": 5}).json()

    assert after["events"] == first["events"]


def status_of(app: FastAPI) -> StatusReport:
    """Give the status of an app that has the router at ``/status``."""
    app.include_router(status_router(unguarded=True), prefix="/status")
    with TestClient(app) as client:
        return StatusReport.model_validate_json(client.get("/status/status.json").text)


def test_models_read_the_data(client: TestClient) -> None:
    """As programs in Python do; every report says which process speaks."""
    status = StatusReport.model_validate_json(client.get("/upstreams/status.json").text)
    events = EventsReport.model_validate_json(client.get("/upstreams/events").text)

    assert status.process == events.process == os.getpid()
    assert status.position == events.position
    assert status.overridden == {}


def test_mounts() -> None:
    """With what is local, forwarded and shadowed; the whole rules are in ``test_shadowed``."""
    app = FastAPI(openapi_url=None)
    app.add_api_route("/billing/health", lambda: "local")
    app.include_router(proxy_router("billing"), prefix="/billing")
    app.add_api_route("/billing/report", lambda: "never", methods=["PUT"])
    app.host("b.example", proxy_app("billing"))

    first, second = status_of(app).mounts
    assert first.model_dump() == {
        "upstream": "billing",
        "path": "/billing",
        "host": None,
        "proxied": ("HTTP", "WebSocket"),
        "local": ({"requests": ("GET",), "path": "/billing/health"},),
        "shadowed": ({"requests": ("PUT",), "path": "/billing/report"},),
    }
    assert (second.host, second.path) == ("b.example", "/")


def test_upstream_without_a_mount() -> None:
    """Is shown all the same."""
    app = FastAPI(lifespan=proxy_lifespan)
    app.add_api_route("/x", lambda: None, dependencies=[Depends(Upstream("billing"))])
    status = status_of(app)

    assert [one.upstream for one in status.upstreams] == ["billing"]
    assert status.mounts == ()


def test_stand_in() -> None:
    """Is shown in place of the upstream, and said to be a stand-in."""
    app = FastAPI()
    app.include_router(proxy_router("billing"), prefix="/billing")
    with stand_in(app, "billing", reply("ok")):
        status = status_of(app)

    assert status.overridden == {"billing": "stand_in"}
    assert [one.url for one in status.upstreams[0].destinations] == ["http://billing"]
    assert [one.path for one in status.mounts] == ["/billing"]


def test_overridden_upstream() -> None:
    """Is not shown, since nothing is known of what replaces it."""
    app = FastAPI()
    app.include_router(proxy_router("billing"), prefix="/billing")
    app.dependency_overrides[Upstream("billing")] = lambda: None
    status = status_of(app)

    assert status.overridden == {"billing": "function"}
    assert status.upstreams == ()


def test_state_is_read_in_a_thread(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state of many destinations takes long enough to delay other requests."""
    in_loop: list[bool] = []
    read = Balancer.status

    def status(balancer: Balancer) -> UpstreamStatus:
        in_loop.append(asyncio._get_running_loop() is not None)
        return read(balancer)

    monkeypatch.setattr(Balancer, "status", status)
    for path in ("", "status.json"):
        assert client.get(f"/upstreams/{path}").status_code == 200
    drained = client.post("/upstreams/billing/drain", json={"destination": UP})

    assert drained.status_code == 200
    assert in_loop == [False] * 3
