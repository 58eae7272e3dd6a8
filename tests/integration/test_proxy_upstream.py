"""``proxy_upstream``: what an upstream that starts while its app runs is and has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from fastapi_proxy_di import (
    Event,
    ProxySettings,
    SettingsError,
    TelemetrySettings,
    Upstream,
    UpstreamClosed,
    proxy_lifespan,
    proxy_router,
    proxy_upstream,
    reload_upstreams,
)
from tests.integration.tenants import Gateway, running_gateway, tenant
from tests.support.gateways import billing
from tests.support.http_client import fetch
from tests.support.origins import ScriptedOrigin, always, response_bytes
from tests.support.servers import run_app
from tests.support.websocket_client import open_websocket
from tests.websocket.upstreams import EchoApp

pytestmark = pytest.mark.e2e


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    """A running gateway without tenants."""
    async with running_gateway() as made:
        yield made


async def test_upstream_is_one_of_the_app(gateway: Gateway) -> None:
    """The status page, metrics, readiness and events see it, as long as it runs."""
    events: list[Event] = []
    async with ScriptedOrigin(always(response_bytes(500))) as origin:
        async with gateway.tenant("acme", origin.url, health={"path": "/"}) as balancer:
            found = Upstream("acme").of(gateway.app)
            _ = balancer.subscribe(events.append)
            _ = balancer.drain(origin.url)
            ready = await fetch(gateway.running.address, target="/-/ready")
            seen = [await gateway.text(f"/-/{page}") for page in ("status/status.json", "metrics")]
            history = await gateway.text("/-/status/events")
        after = [await gateway.text(f"/-/{page}") for page in ("status/status.json", "metrics")]
        ready_after = await fetch(gateway.running.address, target="/-/ready")

    assert found is balancer
    assert balancer.name == "acme"
    assert type(events[0]).__name__ == "DestinationDraining"
    assert (ready.status, ready.json()["upstreams"]) == (503, ["acme"])
    assert '"acme"' in seen[0]
    assert 'proxy_upstream="acme"' in seen[1]
    assert '"DestinationDown","upstream":"acme"' in history
    assert not any("acme" in page for page in after)
    assert ready_after.status == 200


async def test_settings_of_the_app_hold() -> None:
    """With trace headers off, the client's do not reach a tenant."""
    made = Gateway()
    proxy_lifespan.configure(
        made.app, ProxySettings(telemetry=TelemetrySettings(propagate="off"), request_id=True)
    )
    async with (
        ScriptedOrigin() as origin,
        run_app(made.app) as made.running,
        made.tenant("acme", origin.url),
    ):
        headers = [(b"traceparent", b"00-0123456789abcdef0123456789abcdef-0123456789abcdef-01")]
        await fetch(made.running.address, target="/acme/x", headers=headers)

    assert origin.request.one(b"traceparent") is None
    assert origin.request.one(b"x-request-id")


@pytest.mark.parametrize(
    ("target", "sent"),
    [("/acme/a%2Fb//c?q=%20", b"/a%2Fb//c?q=%20"), ("/acme/", b"/"), ("/%61cme/x", b"/x")],
)
async def test_path_below_the_mount_is_sent(gateway: Gateway, target: str, sent: bytes) -> None:
    """Raw, with the mount as prefix; ``Location`` leads below it."""
    moved = always(response_bytes(302, headers=[(b"Location", b"/login")]))
    async with ScriptedOrigin(moved) as origin, gateway.tenant("acme", origin.url):
        reply = await fetch(gateway.running.address, target=target)

    assert origin.request.target == sent
    prefix = target.split("/")[1].encode()
    assert origin.request.one(b"x-forwarded-prefix") == b"/" + prefix
    assert reply.one(b"location") == b"/" + prefix + b"/login"


async def test_encoded_slash_after_the_mount_is_refused(gateway: Gateway) -> None:
    """The tenant of ``/acme%2Fx`` is not ``acme``: a server behind may read it otherwise."""
    async with ScriptedOrigin() as origin, gateway.tenant("acme", origin.url):
        reply = await fetch(gateway.running.address, target="/acme%2Fx")

    assert reply.status == 400
    assert origin.requests == []


async def test_websocket_below_the_mount(gateway: Gateway) -> None:
    """Its handshake has the path below the mount."""
    echo = EchoApp()
    async with (
        run_app(echo, ws="websockets-sansio") as origin,
        gateway.tenant("acme", origin.url),
        open_websocket(gateway.running.address, "/acme/live%2F1") as client,
    ):
        await client.send("hello")
        heard = await client.recv()

    assert heard == "hello"
    assert echo.scope["raw_path"] == b"/live%2F1"


async def test_name_is_taken_until_the_end(gateway: Gateway) -> None:
    """By the app's own upstreams too; afterwards another upstream may have it."""
    async with ScriptedOrigin() as one, ScriptedOrigin() as two:
        async with gateway.tenant("acme", one.url):
            with pytest.raises(SettingsError, match="upstream 'acme' runs already"):
                await gateway.tenant("acme", two.url).__aenter__()
            await fetch(gateway.running.address, target="/acme/x")
        async with gateway.tenant("acme", two.url):
            await fetch(gateway.running.address, target="/acme/x")

    assert (len(one.requests), len(two.requests)) == (1, 1)


async def test_name_of_a_mounted_upstream_is_taken() -> None:
    """Its requests would go to two upstreams."""
    app = FastAPI()
    async with ScriptedOrigin() as origin:
        app.include_router(proxy_router(billing(origin.url)), prefix="/billing")
        async with run_app(app):
            with pytest.raises(SettingsError, match="upstream 'billing' runs already"):
                await proxy_upstream(app, tenant("billing", origin.url)).__aenter__()


async def test_fault_of_the_settings_leaves_nothing(gateway: Gateway, tmp_path: Path) -> None:
    """The message names the setting, and the name is free."""
    bad = tmp_path / "roots.pem"
    bad.write_text("no certificate")
    async with ScriptedOrigin() as origin:
        with pytest.raises(
            SettingsError, match=r"upstream 'acme': tls\.ca_file \(UPSTREAM_TENANT_TLS__"
        ):
            await gateway.tenant("acme", "https://a", tls={"ca_file": bad}).__aenter__()
        async with gateway.tenant("acme", origin.url):
            reply = await fetch(gateway.running.address, target="/acme/x")

    assert reply.status == 200


async def test_upstream_can_be_reloaded(gateway: Gateway) -> None:
    """By its balancer, with settings of its name; a reload of the app leaves it as it is."""
    async with ScriptedOrigin() as one, ScriptedOrigin() as two:
        async with gateway.tenant("acme", one.url) as balancer:
            changed = await balancer.reload(tenant("acme", two.url))
            of_app = await reload_upstreams(gateway.app)
            reply = await fetch(gateway.running.address, target="/acme/x")
            with pytest.raises(SettingsError, match=r"upstream 'acme': .* cannot change the name"):
                await balancer.reload(tenant("blue", one.url))
            with pytest.raises(SettingsError, match="upstream 'acme': policy"):
                await balancer.reload(tenant("acme", one.url, policy="no.such:Policy"))
            with pytest.raises(SettingsError, match=r"upstream 'acme': tls\.client_cert"):
                await balancer.reload(tenant("acme", "https://a", tls={"client_cert": __file__}))
        with pytest.raises(UpstreamClosed):
            await balancer.reload(tenant("acme", one.url))

    assert (changed, of_app, reply.status) == (("destinations",), {"acme": ()}, 200)
    assert (one.requests, len(two.requests)) == ([], 1)


async def test_source_that_finds_nothing_is_a_fault(gateway: Gateway, tmp_path: Path) -> None:
    """As at the start of the app."""
    missing = f"file://{tmp_path}/no.toml"
    with pytest.raises(SettingsError, match="upstream 'acme': destinations"):
        await gateway.tenant("acme", missing).__aenter__()


async def test_closed_upstream_refuses_requests(gateway: Gateway) -> None:
    """A request that has its balancer gets a problem document; nothing can be changed."""
    async with ScriptedOrigin() as origin:
        async with gateway.tenant("acme", origin.url) as balancer:
            pass
        reply = await fetch(gateway.running.address, target="/acme/x")
        with pytest.raises(UpstreamClosed, match="upstream 'acme' is closed"):
            await balancer.client.get("/x")
        with pytest.raises(UpstreamClosed):
            async with balancer.lease():
                pass
        for change in (
            lambda: balancer.drain(origin.url),
            lambda: balancer.replace_destinations(["http://127.0.0.1:1"]),
            lambda: balancer.configure_health(path="/"),
            lambda: balancer.subscribe(print),
        ):
            with pytest.raises(UpstreamClosed):
                change()

    assert (reply.status, reply.json()["failure"]) == (503, "upstream_closed")
    assert reply.json()["detail"] == "The upstream has been removed."
    assert origin.requests == []


async def test_mount_of_a_closed_upstream_is_503(gateway: Gateway) -> None:
    """A router that was included at run time finds its upstream by name."""
    gateway.app.router.routes.clear()
    gateway.app.include_router(proxy_router("acme"), prefix="/shop")
    async with ScriptedOrigin() as origin:
        async with gateway.tenant("acme", origin.url):
            before = await fetch(gateway.running.address, target="/shop/x")
        after = await fetch(gateway.running.address, target="/shop/x")

    assert (before.status, after.status) == (200, 503)
    assert after.json()["detail"] == "The upstream has been removed."
    assert [one.target for one in origin.requests] == [b"/x"]
