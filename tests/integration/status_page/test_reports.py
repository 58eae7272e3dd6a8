"""What the status router gives as data."""

from __future__ import annotations

from fastapi.testclient import TestClient

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
    assert down["since"] <= report["at"]


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
