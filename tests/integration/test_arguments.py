"""Arguments that are wrong raise at once, with a hint what to write."""

from typing import Any

import pytest
from fastapi import Depends, FastAPI, Request, Response, WebSocket
from starlette.types import Message, Scope

from fastapi_proxy_di import (
    Balancer,
    ProxyNotStarted,
    SettingsError,
    Upstream,
    UpstreamSettings,
    proxy_lifespan,
    proxy_router,
)
from tests.support.gateways import billing, gateway, gateway_app
from tests.support.http_client import fetch
from tests.support.origins import ScriptedOrigin
from tests.support.servers import run_app


@pytest.mark.parametrize(
    ("upstreams", "arguments", "text"),
    [
        ((), {}, "needs an upstream"),
        (("billing",), {"path": "{path:path}"}, "must start with '/'"),
        (("billing",), {"path": "/x"}, "end in '/{path:path}'"),
        (("billing",), {"http": False, "websocket": False}, "mounts nothing"),
        (("billing", "billing"), {"path": "/{upstream}/{path:path}"}, "twice: billing"),
        (("billing", "users"), {}, "several upstreams need '{upstream}'"),
    ],
)
def test_router_explains_wrong_arguments(
    upstreams: tuple[str, ...], arguments: dict[str, Any], text: str
) -> None:
    """No route is made."""
    with pytest.raises(ValueError, match=text):
        proxy_router(*upstreams, **arguments)


@pytest.mark.parametrize("upstream", [None, 3, dict, object()])
def test_upstream_is_a_name_a_class_or_an_instance(upstream: Any) -> None:
    """Anything else raises an error that says what to give."""
    with pytest.raises(SettingsError, match="give a name, a subclass of UpstreamSettings"):
        Upstream(upstream)


def test_upstream_class_needs_a_name() -> None:
    """A base without a name is no upstream."""

    class HouseStyle(UpstreamSettings):
        """Defaults for subclasses."""

    with pytest.raises(SettingsError, match=r'class Billing\(UpstreamSettings, name="billing"\)'):
        Upstream(HouseStyle)


@pytest.mark.parametrize("name", ["", "Billing", "1st", "a b", "a.b"])
def test_upstream_name_is_checked(name: str) -> None:
    """When it is mentioned, not at start."""
    with pytest.raises(SettingsError, match="is not a name"):
        Upstream(name)


def test_repr_of_upstream_shows_only_the_name() -> None:
    """Settings may hold secrets."""
    settings = billing("http://10.0.0.1", request_headers={"x-key": "hidden"})

    assert repr(Upstream(settings)) == "Upstream('billing')"


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"method": "G ET"}, "'G ET' is not a token"),
        ({"method": ""}, "'' is not a token"),
        ({"method": "GÉT"}, "is not a token"),
        ({"override_host": ""}, "'' is not a host"),
        ({"override_host": "a b"}, "'a b' is not a host"),
        ({"override_host": "a\r\nx: y"}, "is not a host"),
        ({"override_host": "é"}, "'é' is not a host"),
        ({"override_body": object()}, "give bytes, str or what JSON can encode"),
        ({"override_body": float("nan")}, "give bytes, str or what JSON can encode"),
    ],
)
async def test_forward_explains_wrong_arguments(arguments: dict[str, Any], text: str) -> None:
    """A programming error; nothing is sent."""
    app, upstream = FastAPI(lifespan=proxy_lifespan), Upstream("billing")
    raised: list[str] = []
    async with ScriptedOrigin() as origin:
        mentioned = Upstream(billing(origin.url))

        @app.post("/x")
        async def x(request: Request, balancer: Balancer = Depends(mentioned)) -> Response:
            with pytest.raises(ValueError, match=text) as caught:
                await balancer.forward(request, **arguments)
            raised.append(str(caught.value))
            return Response(upstream.of(app).name)

        async with run_app(app) as running:
            reply = await fetch(running.address, "POST", "/x", body=b"x")

    assert (reply.body, len(raised)) == (b"billing", 1)
    assert origin.connections == 0


@pytest.mark.e2e
async def test_lookup_of_an_upstream_that_the_app_does_not_mention_raises() -> None:
    """The error names the upstreams that were started."""
    async with ScriptedOrigin() as origin, gateway(origin.url) as gate:
        assert gate.balancer.settings.destinations == gate.balancer.settings.destination_settings
        with pytest.raises(ProxyNotStarted, match=r"no route mounted.*\(started: billing\)"):
            Upstream("users").of(gate.app)


async def test_lookup_in_an_app_without_upstreams_raises() -> None:
    """As in an app whose routes were added too late."""
    app = FastAPI(lifespan=proxy_lifespan)
    async with app.router.lifespan_context(app):
        with pytest.raises(ProxyNotStarted, match="started: none"):
            Upstream("users").of(app)


class Billing(UpstreamSettings, name="billing"):
    """A second declaration of the name."""


@pytest.mark.parametrize(
    ("other", "shown"), [(Billing, "Billing"), (Billing(destinations=["http://b"]), "an instance")]
)
async def test_two_declarations_of_one_name_are_both_shown(other: Any, shown: str) -> None:
    """The fault names both."""
    app = gateway_app("http://127.0.0.1:1")
    app.include_router(proxy_router(other), prefix="/two")

    with pytest.raises(SettingsError, match=f"an instance of Billing and {shown}"):
        await app.router.lifespan_context(app).__aenter__()


def test_mount_has_a_url() -> None:
    """``url_path_for`` builds the address of a proxied path."""
    app = FastAPI()
    app.include_router(proxy_router("billing"), prefix="/tenants/{tenant}/billing")

    url = app.url_path_for("proxy_billing", tenant="acme", path="invoices/7")

    assert url == "/tenants/acme/billing/invoices/7"


@pytest.mark.e2e
@pytest.mark.parametrize("guarded", [False, True])
async def test_mount_of_some_methods_refuses_the_others(guarded: bool) -> None:
    """With dependencies and without."""

    async def guard() -> None:
        """Allow every request."""

    dependencies = [Depends(guard)] if guarded else []
    async with ScriptedOrigin() as origin:
        app = gateway_app(
            origin.url, router={"methods": ["GET"]}, include={"dependencies": dependencies}
        )
        async with run_app(app) as running:
            replies = [
                await fetch(running.address, method, "/billing/x") for method in ("GET", "POST")
            ]

    assert [reply.status for reply in replies] == [200, 405]
    assert replies[1].one(b"allow") == b"GET"
    assert len(origin.requests) == 1


async def test_websocket_that_disconnected_before_forwarding_dials_nothing() -> None:
    """A guard that listens takes the first message; the next one is the disconnect."""
    coming: list[Message] = [
        {"type": "websocket.disconnect", "code": 1006},
        {"type": "websocket.connect"},
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        return coming.pop()

    async def listen(websocket: WebSocket) -> None:
        await websocket.receive()

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {
        "type": "websocket",
        "path": "/billing/live",
        "raw_path": b"/billing/live",
        "root_path": "",
        "scheme": "ws",
        "query_string": b"",
        "headers": [],
        "subprotocols": [],
        "client": ("127.0.0.1", 1),
    }
    async with ScriptedOrigin() as origin:
        app = gateway_app(
            origin.url, router={"http": False}, include={"dependencies": [Depends(listen)]}
        )
        async with app.router.lifespan_context(app):
            await app(scope, receive, send)

    assert (coming, sent) == ([], [])
    assert origin.connections == 0
