"""``upstreams_ready``: an endpoint that tells whether the app can work."""

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient

from fastapi_proxy_di import Upstream, UpstreamsNotReady, proxy_router, upstreams_ready
from fastapi_proxy_di.testing import reply, stand_in
from tests.support.servers import dead_port


def app_with_readiness() -> FastAPI:
    """Build an app that is ready while both its upstreams are."""
    app = FastAPI()
    app.include_router(proxy_router("archive"), prefix="/archive")

    @app.get("/ready", dependencies=[Depends(upstreams_ready("billing", Upstream("archive")))])
    async def ready() -> str:
        return "ready"

    return app


def test_readiness_follows_the_upstreams() -> None:
    """Ready with one destination each; else 503 with the names of the upstreams that have none."""
    app = app_with_readiness()

    with (
        stand_in(app, "billing", {"a": reply(), "b": reply()}) as billing,
        stand_in(app, "archive", reply()) as archive,
        TestClient(app) as client,
    ):
        ready = client.get("/ready")
        billing.flip("a", healthy=False)
        half = client.get("/ready")
        archive.flip(healthy=False)
        one = client.get("/ready")
        billing.flip(healthy=False)
        none = client.get("/ready")

    assert [response.status_code for response in (ready, half, one, none)] == [200, 200, 503, 503]
    assert one.headers["content-type"] == "application/problem+json"
    assert (one.headers["retry-after"], one.json()["upstreams"]) == ("1", ["archive"])
    assert none.json()["upstreams"] == ["billing", "archive"]
    assert none.json()["detail"] == "Not ready."


def test_readiness_starts_the_upstreams_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mention is enough: they are validated, started and probed with the app."""
    for name in ("BILLING", "ARCHIVE"):
        monkeypatch.setenv(f"UPSTREAM_{name}_DESTINATIONS", f"http://127.0.0.1:{dead_port()}")
    monkeypatch.setenv("UPSTREAM_BILLING_HEALTH__PATH", "/health")

    with TestClient(app_with_readiness()) as client:
        response = client.get("/ready")

    assert (response.status_code, response.json()["upstreams"]) == (503, ["billing"])
    assert "127.0.0.1" not in response.text


def test_readiness_has_a_typed_exception() -> None:
    """An app may give its own response."""
    app = app_with_readiness()

    @app.exception_handler(UpstreamsNotReady)
    async def sorry(request: object, error: UpstreamsNotReady) -> object:
        from fastapi.responses import PlainTextResponse

        return PlainTextResponse("waiting for " + " and ".join(error.upstreams), 503)

    with (
        stand_in(app, "billing", reply()) as billing,
        stand_in(app, "archive", reply()),
        TestClient(app) as client,
    ):
        billing.flip(healthy=False)
        response = client.get("/ready")

    assert response.text == "waiting for billing"


@pytest.mark.parametrize(
    ("names", "text"), [((), "needs an upstream"), (("billing", "billing"), "twice")]
)
def test_readiness_explains_wrong_arguments(names: tuple[str, ...], text: str) -> None:
    """No upstream, and one twice."""
    with pytest.raises(ValueError, match=text):
        upstreams_ready(*names)
