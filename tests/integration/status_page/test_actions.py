"""The actions of the status router, and whom they refuse."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.integration.status_page.gateway import UP, destinations


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
