"""``upstreams_ready``: an endpoint that tells whether the app can work."""

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient

from fastapi_proxy_di import (
    ProxyNotStarted,
    Upstream,
    UpstreamsNotReady,
    proxy_router,
    upstreams_ready,
)
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


def app_with_bare_readiness() -> FastAPI:
    """Build an app with two upstreams, whose readiness endpoint names none of them."""
    app = FastAPI()
    app.include_router(proxy_router("billing"), prefix="/billing")
    app.include_router(proxy_router("archive"), prefix="/archive")

    @app.get("/ready", dependencies=[Depends(upstreams_ready)])
    async def ready() -> str:
        return "ready"

    return app


def test_bare_dependency_means_all_upstreams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Upstreams that run and stand-ins count; a replacement by a function does not."""
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", f"http://127.0.0.1:{dead_port()}")
    monkeypatch.setenv("UPSTREAM_BILLING_HEALTH__PATH", "/health")
    app = app_with_bare_readiness()

    with stand_in(app, "archive", reply()) as archive, TestClient(app) as client:
        one = client.get("/ready")
        archive.flip(healthy=False)
        none = client.get("/ready")
        app.dependency_overrides[Upstream("billing")] = object
        other = client.get("/ready")
        archive.flip(healthy=True)
        ready = client.get("/ready")

    assert [response.status_code for response in (one, none, other, ready)] == [503, 503, 503, 200]
    assert one.json()["upstreams"] == ["billing"]
    assert none.json()["upstreams"] == ["billing", "archive"]
    assert other.json()["upstreams"] == ["archive"]


def test_bare_dependency_has_no_parameters_in_the_schema() -> None:
    """OpenAPI shows neither a query parameter nor a 422."""
    operation = app_with_bare_readiness().openapi()["paths"]["/ready"]["get"]

    assert "parameters" not in operation
    assert "422" not in operation["responses"]


def test_bare_dependency_needs_a_lifespan() -> None:
    """Without a lifespan the error names the mend."""
    client = TestClient(app_with_bare_readiness())

    with pytest.raises(ProxyNotStarted, match="no lifespan of this app ran"):
        client.get("/ready")


def test_readiness_called_without_upstreams_is_refused() -> None:
    """The message says how to name an upstream, and how to mean all."""
    with pytest.raises(ValueError, match=r"write Depends\(upstreams_ready\), without a call"):
        upstreams_ready()
