"""``app.dependency_overrides``: an upstream or a guard is replaced, on proxied routes too."""

from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, HTTPException

from fastapi_proxy_di import Balancer, LimitExceeded, Upstream, proxy_lifespan, proxy_router
from tests.support.gateways import billing, gateway_app
from tests.support.http_client import connect, fetch
from tests.support.origins import ScriptedOrigin, always, response_bytes
from tests.support.servers import dead_port, run_app
from tests.support.websocket_client import shake_hands
from tests.websocket.gateways import serving

pytestmark = pytest.mark.e2e


async def test_override_replaces_the_upstream_of_a_proxied_route() -> None:
    """The real upstream gets no request."""
    async with (
        ScriptedOrigin(always(response_bytes(body=b"real"))) as real,
        ScriptedOrigin(always(response_bytes(body=b"stand-in"))) as stand_in,
        Balancer.from_settings(billing(stand_in.url)) as balancer,
    ):
        app = gateway_app(real.url)
        app.dependency_overrides[Upstream("billing")] = lambda: balancer
        async with run_app(app) as running:
            reply = await fetch(running.address, "GET", "/billing/x")

    assert (reply.status, reply.body) == (200, b"stand-in")
    assert real.connections == 0


async def test_override_set_while_running_works() -> None:
    """It can be removed again as well."""
    async with (
        ScriptedOrigin(always(response_bytes(body=b"real"))) as real,
        ScriptedOrigin(always(response_bytes(body=b"stand-in"))) as stand_in,
        Balancer.from_settings(billing(stand_in.url)) as balancer,
    ):
        app = gateway_app(real.url)
        async with run_app(app) as running:
            first = await fetch(running.address, "GET", "/billing/x")
            app.dependency_overrides[Upstream("billing")] = lambda: balancer
            second = await fetch(running.address, "GET", "/billing/x")
            app.dependency_overrides.clear()
            third = await fetch(running.address, "GET", "/billing/x")

    assert [r.body for r in (first, second, third)] == [b"real", b"stand-in", b"real"]


async def test_override_replaces_an_injected_upstream() -> None:
    """Any object may replace a balancer in an endpoint."""
    app = FastAPI(lifespan=proxy_lifespan)

    @app.get("/name")
    async def name(billing: Annotated[Any, Depends(Upstream("billing"))]) -> str:
        return str(billing)

    app.dependency_overrides[Upstream("billing")] = lambda: "stand-in"
    async with run_app(app) as running:
        reply = await fetch(running.address, "GET", "/name")

    assert reply.json() == "stand-in"


async def test_overridden_upstream_needs_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is neither validated nor started."""
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", "ftp://nonsense")
    async with (
        ScriptedOrigin() as origin,
        Balancer.from_settings(billing(origin.url)) as balancer,
    ):
        app = FastAPI()
        app.include_router(proxy_router("billing"), prefix="/billing")
        app.dependency_overrides[Upstream("billing")] = lambda: balancer
        async with run_app(app) as running:
            reply = await fetch(running.address, "GET", "/billing/x")

    assert reply.status == 200


async def refuse() -> None:
    """Refuse every request."""
    raise HTTPException(401)


async def test_override_of_a_guard_opens_it() -> None:
    """The replaced guard allows every request."""
    async with ScriptedOrigin() as origin:
        app = gateway_app(origin.url, include={"dependencies": [Depends(refuse)]})
        async with run_app(app) as running:
            refused = await fetch(running.address, "GET", "/billing/x")
            app.dependency_overrides[refuse] = lambda: None
            allowed = await fetch(running.address, "GET", "/billing/x")

    assert (refused.status, allowed.status) == (401, 200)
    assert len(origin.requests) == 1


async def test_override_that_guards_the_upstream_runs() -> None:
    """An exception of the override refuses the request."""
    async with ScriptedOrigin() as origin:
        app = gateway_app(origin.url)
        async with run_app(app) as running:
            app.dependency_overrides[Upstream("billing")] = refuse
            reply = await fetch(running.address, "GET", "/billing/x")

    assert reply.status == 401
    assert origin.connections == 0


def test_upstream_has_no_subclasses() -> None:
    """A proxied route would not call them."""
    with pytest.raises(TypeError, match="dependencies="):

        class _Guarded(Upstream):  # type: ignore[misc]
            pass


def _overridden_by(other: Balancer) -> FastAPI:
    app = gateway_app("http://127.0.0.1:1")
    app.dependency_overrides[Upstream("billing")] = lambda: other
    return app


async def test_failure_of_an_override_is_a_problem_document() -> None:
    """As for the upstream that it replaces."""
    dead = billing(f"http://127.0.0.1:{dead_port()}")
    async with (
        Balancer.from_settings(dead) as other,
        run_app(_overridden_by(other)) as running,
    ):
        reply = await fetch(running.address, target="/billing/x")

    assert (reply.status, reply.one(b"content-type")) == (502, b"application/problem+json")


async def test_override_that_raises_in_an_own_endpoint_is_a_problem_document() -> None:
    """No request has resolved an upstream yet."""
    app = FastAPI(lifespan=proxy_lifespan)

    @app.get("/x")
    async def x(billing: Annotated[Balancer, Depends(Upstream("billing"))]) -> None:
        raise AssertionError(billing)

    def full() -> Balancer:
        raise LimitExceeded("no place", upstream="billing")

    app.dependency_overrides[Upstream("billing")] = full
    async with run_app(app) as running:
        reply = await fetch(running.address, target="/x")

    assert (reply.status, reply.one(b"content-type")) == (503, b"application/problem+json")


async def test_failure_of_an_override_denies_a_websocket() -> None:
    """With the same problem document."""
    dead = billing(f"http://127.0.0.1:{dead_port()}")
    async with (
        Balancer.from_settings(dead) as other,
        serving(_overridden_by(other)) as running,
        connect(running.address) as client,
    ):
        refusal = await shake_hands(client, "/billing/live")

    assert refusal.status == 502
