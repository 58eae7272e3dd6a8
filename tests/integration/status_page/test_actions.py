"""The actions of the status router, and whom they refuse."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from fastapi.testclient import TestClient
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import Message

from fastapi_proxy_di import proxy_lifespan, status_router
from fastapi_proxy_di.testing import reply, stand_in
from tests.integration.status_page.gateway import DOWN, UP, destinations, gateway


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
        ("billing/weight", {"destination": UP}, 422, "The body has faults: weight."),
        ("billing/weight", {"destination": UP, "weight": 70000}, 422, "faults: weight."),
        ("billing/drain", {"destination": UP, "weight": 2}, 422, "faults: weight."),
        ("billing/weight", {"destination": UP, "weight": 0}, 422, "faults: weight."),
        ("billing/weight", {"destination": UP, "weight": "x"}, 422, "faults: weight."),
        ("billing/drain", {"destination": UP, "\x1b\n": 1}, 422, r"faults: \x1b\n."),
        ("billing/drain", {"destination": "x" * 70000}, 413, "longer than 64 KiB"),
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
        ({"sec-fetch-site": "none"}, 403),
        ({"sec-fetch-site": "cross-site", "origin": "http://testserver"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://sub.testserver"}, 403),
        ({"origin": "http://testserver:8080"}, 403),
        ({"origin": "null"}, 403),
        ({"content-type": "text/plain", "origin": "http://testserver"}, 415),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "text/plain; application/json"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": "multipart/form-data; boundary=x"}, 415),
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


def drain(client: TestClient, **headers: str) -> int:
    """Send an action with further headers; give the status."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(
        "/upstreams/billing/drain", json={"destination": UP}, headers=named
    ).status_code


def test_page_behind_a_proxy_that_ends_tls(client: TestClient) -> None:
    """The proxy passes on Host, and the scheme of the page is not that of the app."""
    page = {"origin": "https://gateway.example", "x_forwarded_proto": "https"}

    assert drain(client, host="gateway.example", **page) == 200
    assert drain(client, host="gateway.example", sec_fetch_site="same-origin", **page) == 200


def test_page_behind_a_proxy_that_changes_host(client: TestClient) -> None:
    """Needs its origin in ``allowed_origins``: anybody could send an ``X-Forwarded-Host``."""
    forwarded = {"host": "10.0.0.1:8000", "x_forwarded_host": "gateway.example"}

    assert drain(client, origin="https://gateway.example", **forwarded) == 403
    assert drain(client, origin="https://ops.example", **forwarded) == 200


def test_name_that_leads_to_the_app(client: TestClient) -> None:
    """A page by DNS rebinding is same-origin, but the browser has no login for its name."""
    page = {"host": "evil.example", "origin": "http://evil.example", "authorization": ""}

    assert drain(client, sec_fetch_site="same-origin", **page) == 401


def test_name_that_leads_to_an_app_without_login() -> None:
    """Is refused by Starlette's middleware, as the reference says."""
    app = gateway(status_router(actions=True, unguarded=True))
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["testserver"])
    with TestClient(app) as client:
        assert drain(client, host="evil.example", origin="http://evil.example") == 400
        assert drain(client) == 200


def test_names_from_outside_stay_out_of_the_log(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Refused actions are not logged, and no message has a password."""
    address = "http://user:s3cret@10.0.0.9\r\nINFO"
    response = client.post("/upstreams/billing/drain", json={"destination": address})

    assert response.status_code == 404
    assert "s3cret" not in response.text + caplog.text
    assert r"\r\n" in response.json()["detail"]


def test_other_spelling_of_an_address(client: TestClient) -> None:
    """Names the same destination."""
    body = {"destination": "HTTP://127.0.0.1:9/"}

    assert client.post("/upstreams/billing/drain", json=body).status_code == 200
    assert destinations(client)[DOWN]["state"] == "draining"


def test_upstream_without_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cannot be probed, which the response says."""
    monkeypatch.setenv("UPSTREAM_BILLING_HEALTH__PATH", "")
    with TestClient(gateway(status_router(actions=True, unguarded=True))) as client:
        response = client.post("/upstreams/billing/probe", json={"destination": UP})

    assert (response.status_code, response.json()["detail"]) == (
        409,
        "billing has no probes; set health.path",
    )


def test_actions_on_a_stand_in() -> None:
    """Change the stand-in, which requests use."""
    app = gateway(status_router(actions=True, unguarded=True))
    with stand_in(app, "billing", reply("ok")), TestClient(app) as client:
        body = {"destination": "http://billing"}

        assert client.post("/upstreams/billing/drain", json=body).status_code == 200
        assert destinations(client)["http://billing"]["state"] == "draining"


async def test_client_that_leaves() -> None:
    """While it sends the body: nothing happens, and nothing is logged as an error."""
    app = gateway(status_router(actions=True, unguarded=True))
    received: list[Message] = [
        {"type": "http.request", "body": b"{", "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        return received.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/upstreams/billing/drain",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    async with proxy_lifespan(app):
        await app(scope, receive, send)

    assert sent[0]["status"] == 422
