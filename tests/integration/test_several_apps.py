"""Several apps in one process, as in test suites, do not see each other's settings."""

from typing import Annotated

import pytest
from fastapi import Depends, FastAPI, Request, Response

from fastapi_proxy_di import (
    Balancer,
    Destinations,
    ProxyNotStarted,
    SettingsError,
    Upstream,
    proxy_lifespan,
    proxy_router,
)
from fastapi_proxy_di.integration.lifespan import RUNTIME
from tests.support.gateways import Billing, billing, gateway, until
from tests.support.http_client import fetch
from tests.support.origins import ScriptedOrigin, always, response_bytes
from tests.support.servers import run_app

pytestmark = pytest.mark.e2e


async def test_two_mounted_apps_have_their_own_upstreams() -> None:
    """The same name with different settings, one after the other and at once."""
    async with (
        ScriptedOrigin(always(response_bytes(body=b"one"))) as one,
        ScriptedOrigin(always(response_bytes(body=b"two"))) as two,
        gateway(one.url) as first,
        gateway(two.url) as second,
    ):
        bodies = [(await fetch(gate.address, target="/billing/x")).body for gate in (first, second)]

    assert bodies == [b"one", b"two"]


def _injecting(upstream: Upstream) -> FastAPI:
    app = FastAPI(lifespan=proxy_lifespan)

    @app.get("/x")
    async def x(request: Request, balancer: Annotated[Balancer, Depends(upstream)]) -> Response:
        return await balancer.forward(request)

    return app


async def test_two_injecting_apps_have_their_own_upstreams() -> None:
    """``Annotated`` caches by equality, which must not mix up the settings."""
    async with (
        ScriptedOrigin(always(response_bytes(body=b"one"))) as one,
        ScriptedOrigin(always(response_bytes(body=b"two"))) as two,
        run_app(_injecting(Upstream(billing(one.url)))) as first,
        run_app(_injecting(Upstream(billing(two.url)))) as second,
    ):
        bodies = [(await fetch(app.address, target="/x")).body for app in (first, second)]

    assert bodies == [b"one", b"two"]


async def test_settings_count_although_the_name_was_mentioned_before() -> None:
    """A mention by name elsewhere in the process does not hide a later class."""
    _injecting(Upstream("billing"))
    async with (
        ScriptedOrigin() as origin,
        run_app(_injecting(Upstream(billing(origin.url)))) as running,
    ):
        reply = await fetch(running.address, target="/x")

    assert reply.status == 200


async def test_class_counts_beside_the_name_in_one_app() -> None:
    """One app mentions the name first and the class later, both by ``Annotated``."""
    async with ScriptedOrigin() as origin:

        class Declared(Billing, name="billing"):
            """Its destinations are in the code."""

            destinations: Destinations = (origin.url,)

        app = _injecting(Upstream("billing"))

        @app.get("/y")
        async def y(
            request: Request, balancer: Annotated[Balancer, Depends(Upstream(Declared))]
        ) -> Response:
            return await balancer.forward(request)

        app.include_router(proxy_router("billing"), prefix="/billing")
        async with run_app(app) as running:
            statuses = [
                (await fetch(running.address, target=target)).status
                for target in ("/x", "/y", "/billing/z")
            ]

    assert statuses == [200, 200, 200]


class _Fails(BrokenPipeError):
    """The exception of an override at its end."""


class _FailsAtEnd:
    """An override whose end fails."""

    async def end_in_loop(self) -> None:
        raise _Fails


@pytest.mark.parametrize("fault", [_Fails, SettingsError])
async def test_lifespan_closes_upstreams_although_an_override_fails(
    fault: type[Exception],
) -> None:
    """The exception is raised, and no connection stays open."""
    async with ScriptedOrigin() as origin:
        upstream = Upstream(billing(origin.url))
        app = _injecting(upstream)
        lifespan = proxy_lifespan(app)
        await lifespan.__aenter__()
        runtime = getattr(app, RUNTIME)
        await upstream.of(app).client.get("/")
        assert origin.open_connections
        if fault is SettingsError:
            app.dependency_overrides[upstream] = object
        else:
            app.dependency_overrides[Upstream("billing")] = _FailsAtEnd()  # type: ignore[assignment]
        with pytest.raises(fault):
            await lifespan.__aexit__(None, None, None)
        assert runtime.balancers == {}  # they are closed
        await until(lambda: origin.open_connections == 0)
    with pytest.raises(ProxyNotStarted):
        upstream.of(app)
