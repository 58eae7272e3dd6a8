"""``proxy_router(options=...)``: a dependency chooses options per request."""

from collections.abc import AsyncIterator
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI, Header, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import HTTPConnection

from fastapi_proxy_di import ForwardOptions, Upstream, proxy_router
from tests.support.gateways import billing, gateway_app, until
from tests.support.http_client import connect, fetch
from tests.support.origins import Connection, Headers, ScriptedOrigin
from tests.support.servers import run_app
from tests.support.websocket_client import open_websocket, shake_hands
from tests.websocket.gateways import serving
from tests.websocket.upstreams import EchoApp, echo_server

pytestmark = pytest.mark.e2e


_BEARER: Headers = [(b"Authorization", b"Bearer outside")]


async def exchanged(
    credentials: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())],
) -> str:
    """Give the upstream's token for the client's."""
    if credentials.credentials != "outside":
        raise HTTPException(403)
    return "inside"


async def with_the_token(token: Annotated[str, Depends(exchanged)]) -> ForwardOptions:
    """Send the exchanged token instead of the client's."""
    return ForwardOptions(headers={"authorization": f"Bearer {token}"})


async def test_token_is_exchanged() -> None:
    """The upstream gets only the new token; without the old one nothing is sent."""
    async with ScriptedOrigin() as origin:
        app = gateway_app(origin.url, router={"options": with_the_token})
        async with run_app(app) as running:
            nothing = await fetch(running.address, target="/billing/x")
            wrong = await fetch(
                running.address, target="/billing/x", headers=[(b"Authorization", b"Bearer x")]
            )
            reply = await fetch(running.address, target="/billing/x%2Fy?q=1", headers=_BEARER)

    assert nothing.status in (401, 403)
    assert wrong.status == 403
    assert reply.status == 200
    assert origin.request.all(b"authorization") == [b"Bearer inside"]
    assert origin.request.target == b"/x%2Fy?q=1"
    assert origin.request.one(b"x-forwarded-prefix") == b"/billing"


async def test_token_of_a_websocket_is_exchanged() -> None:
    """The same dependency serves the handshake."""
    app = EchoApp()
    async with (
        echo_server(app) as echo,
        serving(gateway_app(echo.url, router={"options": with_the_token})) as gateway,
        open_websocket(gateway.address, "/billing/live", _BEARER) as client,
    ):
        await client.send("hello")
        said = await client.recv()

    assert said == "hello"
    assert app.all(b"authorization") == [b"Bearer inside"]


async def test_websocket_without_the_token_dials_nothing() -> None:
    """An exception of the dependency refuses the handshake."""
    async with (
        ScriptedOrigin() as origin,
        serving(gateway_app(origin.url, router={"options": with_the_token})) as gateway,
        connect(gateway.address) as client,
    ):
        reply = await shake_hands(client, "/billing/live")

    assert reply.status in (401, 403)
    assert origin.connections == 0


async def test_headers_cannot_be_forged() -> None:
    """A client's header of the same name is not forwarded."""

    async def options() -> ForwardOptions:
        return ForwardOptions(headers=[("x-tenant", "acme"), ("x-tenant", "two")])

    async with ScriptedOrigin() as origin:
        app = gateway_app(origin.url, router={"options": options})
        async with run_app(app) as running:
            await fetch(running.address, target="/billing/x", headers=[(b"X-Tenant", b"evil")])

    assert origin.request.all(b"x-tenant") == [b"acme", b"two"]


async def test_affinity_key_keeps_a_tenant_on_one_destination() -> None:
    """With the policy ``hash`` the key decides."""

    async def options(x_tenant: Annotated[str, Header()]) -> ForwardOptions:
        return ForwardOptions(affinity_key=x_tenant)

    async with ScriptedOrigin() as one, ScriptedOrigin() as two, ScriptedOrigin() as three:
        origins = (one, two, three)
        app = gateway_app(
            *(origin.url for origin in origins), router={"options": options}, policy="hash"
        )
        async with run_app(app) as running:
            for _ in range(4):
                for number in range(12):
                    tenant = b"tenant-%d" % number
                    await fetch(
                        running.address, target="/billing/", headers=[(b"X-Tenant", tenant)]
                    )

    served = [{request.one(b"x-tenant") for request in origin.requests} for origin in origins]
    assert sum(map(len, served)) == 12
    assert len(set().union(*served)) == 12
    assert sum(bool(tenants) for tenants in served) > 1


async def test_timeout_is_the_requests_own() -> None:
    """A request may have less time than the upstream's settings."""

    async def options(x_slow: Annotated[str | None, Header()] = None) -> ForwardOptions:
        return ForwardOptions(timeout=None if x_slow else 0.05)

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.peer_left()

    async with ScriptedOrigin(script) as origin:
        app = gateway_app(origin.url, router={"options": options}, timeouts={"total": 60})
        async with run_app(app) as running:
            # The client gives up after 10 s, long before the upstream's own time is over.
            reply = await fetch(running.address, target="/billing/x")

    assert reply.status == 504


async def test_timeout_of_a_websocket_is_for_its_handshake() -> None:
    """A silent upstream is ended; an open tunnel goes on."""

    async def options(connection: HTTPConnection) -> ForwardOptions:
        return ForwardOptions(timeout=0.05 if connection.url.path.endswith("/slow") else 30)

    async with ScriptedOrigin(Connection.peer_left) as origin:
        app = gateway_app(origin.url, router={"options": options})
        async with serving(app) as gateway, connect(gateway.address) as client:
            refusal = await shake_hands(client, "/billing/slow")

    assert refusal.status == 504


async def test_affinity_key_of_a_websocket_counts() -> None:
    """The tenant's tunnels go to the destination of its requests."""

    async def options(x_tenant: Annotated[str, Header()]) -> ForwardOptions:
        return ForwardOptions(affinity_key=x_tenant)

    one, two, three = EchoApp(), EchoApp(), EchoApp()
    async with (
        echo_server(one) as first,
        echo_server(two) as second,
        echo_server(three) as third,
    ):
        app = gateway_app(
            first.url, second.url, third.url, router={"options": options}, policy="hash"
        )
        served: dict[bytes, set[str]] = {}
        async with serving(app) as gateway:
            balancer = Upstream("billing").of(app)
            for number in range(24):
                tenant = b"tenant-%d" % (number % 8)
                async with open_websocket(
                    gateway.address, "/billing/live", [(b"X-Tenant", tenant)]
                ) as client:
                    busy = [d.url for d in balancer.destinations if d.in_flight]
                    served.setdefault(tenant, set()).update(busy)
                    await client.close()
                await until(lambda: not any(d.in_flight for d in balancer.destinations))

    assert [len(destinations) for destinations in served.values()] == [1] * 8
    assert len(set().union(*served.values())) > 1


@pytest.mark.parametrize("method", ["GET", "POST", "PROPFIND"])
async def test_override_host_is_sent(method: str) -> None:
    """Each tenant has its own Host."""

    async def options(connection: HTTPConnection) -> ForwardOptions:
        return ForwardOptions(override_host=f"{connection.path_params['tenant']}.test")

    async with ScriptedOrigin() as origin:
        app = gateway_app(
            origin.url, prefix="/tenants/{tenant}/billing", router={"options": options}
        )
        async with run_app(app) as running:
            await fetch(running.address, method, "/tenants/acme/billing/x")

    assert origin.request.one(b"host") == b"acme.test"
    assert origin.request.target == b"/x"


async def test_empty_options_change_nothing() -> None:
    """All options are optional."""

    async def options() -> ForwardOptions:
        return ForwardOptions()

    async with ScriptedOrigin() as origin:
        app = gateway_app(origin.url, router={"options": options})
        async with run_app(app) as running:
            reply = await fetch(running.address, "POST", "/billing/x", body=b"data")

    assert reply.status == 200
    assert origin.request.body == b"data"
    assert origin.request.one(b"host") == origin.authority.encode()


async def test_sub_dependency_of_options_and_guard_runs_once() -> None:
    """It is cached within the request and ends after it."""
    events: list[str] = []

    async def session() -> AsyncIterator[str]:
        events.append("open")
        yield "s"
        events.append("close")

    async def guard(session: Annotated[str, Depends(session)]) -> None:
        events.append(f"guard {session}")

    async def options(session: Annotated[str, Depends(session)]) -> ForwardOptions:
        events.append(f"options {session}")
        return ForwardOptions(headers={"x-session": session})

    async with ScriptedOrigin() as origin:
        app = FastAPI()
        app.include_router(
            proxy_router(billing(origin.url), options=options),
            prefix="/billing",
            dependencies=[Depends(guard)],
        )
        async with run_app(app) as running:
            await fetch(running.address, target="/billing/x")

    assert sorted(events) == ["close", "guard s", "open", "options s"]
    assert events[0] == "open"
    assert events[-1] == "close"
    assert origin.request.one(b"x-session") == b"s"


async def test_options_can_be_overridden() -> None:
    """``dependency_overrides`` replaces the dependency."""
    async with ScriptedOrigin() as origin:
        app = gateway_app(origin.url, router={"options": with_the_token})
        app.dependency_overrides[exchanged] = lambda: "of the test"
        async with run_app(app) as running:
            reply = await fetch(running.address, target="/billing/x")

    assert reply.status == 200
    assert origin.request.all(b"authorization") == [b"Bearer of the test"]


@pytest.mark.parametrize("name", ["Host", "Content-Length", "X-Forwarded-For", "Connection"])
async def test_header_of_ours_is_a_programming_error(name: str) -> None:
    """500, and nothing is sent."""

    async def options() -> ForwardOptions:
        return ForwardOptions(headers={name: "1"})

    async with ScriptedOrigin() as origin:
        app = gateway_app(origin.url, router={"options": options})
        async with run_app(app) as running:
            reply = await fetch(running.address, target="/billing/x")

    assert reply.status == 500
    assert origin.connections == 0
