"""The status router: its data, its actions, and whom it refuses."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.routing import Mount

from fastapi_proxy_di import SettingsError, proxy_lifespan, proxy_router, status_router

UP = "asgi://tests.integration.status_page.test_router:origin"
DOWN = "http://127.0.0.1:9"

origin = FastAPI()


@origin.get("/{path:path}")
async def found(path: str) -> str:
    """Respond to every request."""
    return path


def admin(request: Request) -> None:
    """Let those in who have the password."""
    if request.headers.get("authorization") != "Basic YTpi":
        raise HTTPException(401)


def gateway(router: APIRouter, **include: Any) -> FastAPI:
    """Make a gateway of one upstream with a status router."""
    app = FastAPI()
    app.include_router(proxy_router("billing"), prefix="/billing")
    app.include_router(router, prefix="/upstreams", **include)
    return app


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set an upstream with a destination that is up and one that is down."""
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", f"{UP},{DOWN}")
    monkeypatch.setenv("UPSTREAM_BILLING_HEALTH__PATH", "/health")
    monkeypatch.setenv("UPSTREAM_BILLING_HEALTH__FALL", "1")


@pytest.fixture
def client() -> Iterator[TestClient]:
    """Give a client of a gateway that lets it act."""
    router = status_router(actions=True, allowed_origins=["https://ops.example"])
    with TestClient(gateway(router, dependencies=[Depends(admin)])) as client:
        client.headers["authorization"] = "Basic YTpi"
        yield client


def destinations(client: TestClient) -> dict[str, dict[str, Any]]:
    """Give the state of each destination, by address."""
    (upstream,) = client.get("/upstreams/status.json").json()["upstreams"]
    return {one["url"]: one for one in upstream["destinations"]}


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
    assert down["since"] <= report["at"]


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


def test_events(client: TestClient) -> None:
    """Those after a position; the position of another process is none."""
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


def act(client: TestClient, name: str, **body: Any) -> dict[str, Any]:
    """Send an action for the destination that is up, and give its new state."""
    response = client.post(f"/upstreams/billing/{name}", json={"destination": UP, **body})
    assert response.status_code == 200, response.text
    state: dict[str, Any] = response.json()["destinations"][0]
    return state


def test_actions(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    """Each changes the destination, and gives the new state."""
    with caplog.at_level(logging.INFO, "fastapi_proxy_di.status"):
        assert act(client, "drain")["state"] == "draining"
        assert act(client, "undrain")["state"] == "available"
        assert act(client, "weight", weight=2.5)["weight"] == 2.5
        assert act(client, "probe")["latency_ms"] is not None
        assert act(client, "readmit")["state"] == "available"

    own = [record for record in caplog.records if record.name == "fastapi_proxy_di.status"]
    assert [record.getMessage() for record in own] == [
        f"billing: {name} of {UP}, asked for on the status page"
        for name in ("drain", "undrain", "weight", "probe", "readmit")
    ]


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("unknown/drain", {"destination": UP}, 404, "There is no such upstream."),
        ("billing/drain", {"destination": "http://10.0.0.9"}, 404, "has no destination"),
        ("billing/drain", {"destination": "nonsense"}, 404, "has no destination"),
        ("billing/drain", {}, 422, "The body has faults: destination."),
        ("billing/drain", [], 422, "The body has faults: body."),
        ("billing/drain", {"destination": UP, "force": 1}, 422, "The body has faults: force."),
        ("billing/weight", {"destination": UP}, 409, "weight is required"),
        ("billing/weight", {"destination": UP, "weight": 0}, 422, "faults: weight."),
        ("billing/weight", {"destination": UP, "weight": "x"}, 422, "faults: weight."),
        ("billing/drain", {"destination": "x" * 70000}, 422, "The body has faults: body."),
    ],
)
def test_bad_actions(client: TestClient, path: str, body: object, status: int, text: str) -> None:
    """The response says what is wrong, and nothing has changed."""
    before = destinations(client)
    response = client.post(f"/upstreams/{path}", json=body)

    assert response.status_code == status
    assert text in response.json()["detail"]
    assert [one["state"] for one in destinations(client).values()] == [
        one["state"] for one in before.values()
    ]


def test_unknown_action(client: TestClient) -> None:
    """Is no route."""
    response = client.post("/upstreams/billing/eject", json={"destination": UP})

    assert response.status_code == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": ""}, 415),
        ({"authorization": ""}, 401),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"origin": "http://testserver"}, 200),
        ({"sec-fetch-site": "cross-site", "origin": "https://ops.example"}, 200),
        ({"content-type": "application/json; charset=utf-8"}, 200),
    ],
)
def test_who_may_act(client: TestClient, headers: dict[str, str], status: int) -> None:
    """Neither pages of other sites nor forms, and nobody without a login."""
    response = client.post(
        "/upstreams/billing/drain",
        content=f'{{"destination": "{UP}"}}',
        headers={"content-type": "application/json", **headers},
    )

    assert response.status_code == status
    client.headers["authorization"] = "Basic YTpi"
    assert (destinations(client)[UP]["state"] == "draining") is (status == 200)


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


def test_open_router_is_refused() -> None:
    """The app does not start; the message says what to add."""
    with (
        pytest.raises(SettingsError, match=r"status_router at /upstreams/ is open to everybody"),
        TestClient(gateway(status_router())),
    ):
        pass


def test_one_open_include_is_refused() -> None:
    """Although another one is guarded."""
    router = status_router()
    app = gateway(router, dependencies=[Depends(admin)])
    app.include_router(router, prefix="/open")

    with pytest.raises(SettingsError, match=r"status_router at /open/"), TestClient(app):
        pass


def guarded_by_app() -> FastAPI:
    """Make an app with a dependency of its own."""
    app = FastAPI(dependencies=[Depends(admin)])
    app.include_router(status_router(), prefix="/upstreams")
    return app


@pytest.mark.parametrize(
    "app",
    [
        gateway(status_router(dependencies=[Depends(admin)])),
        gateway(status_router(unguarded=True)),
        guarded_by_app(),
    ],
)
def test_guarded_routers_start(app: FastAPI) -> None:
    """By the router, by the app, or by something in front."""
    with TestClient(app) as client:
        client.headers["authorization"] = "Basic YTpi"

        assert client.get("/upstreams/status.json").status_code == 200


def test_open_router_of_a_mounted_app() -> None:
    """Whose lifespan did not run is refused when it is asked."""
    inner = FastAPI()
    inner.include_router(status_router(), prefix="/upstreams")

    def lifespan(_: Starlette) -> Any:
        return proxy_lifespan(inner)

    outer = Starlette(routes=[Mount("/inner", inner)], lifespan=lifespan)
    with (
        TestClient(outer) as client,
        pytest.raises(SettingsError, match="is open to everybody"),
    ):
        client.get("/inner/upstreams/status.json")


@pytest.mark.parametrize("given", ["ops.example", "https://ops.example/x", "*", "null"])
def test_allowed_origins(given: str) -> None:
    """Are origins."""
    with pytest.raises(ValueError, match="is no origin; write scheme and host"):
        status_router(allowed_origins=[given])
