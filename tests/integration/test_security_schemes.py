"""FastAPI's security schemes protect proxied mounts and injected endpoints, HTTP and WebSocket."""

import base64
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Request, Response, Security, WebSocket
from fastapi.security import (
    APIKeyCookie,
    APIKeyHeader,
    APIKeyQuery,
    HTTPBasic,
    HTTPBearer,
    HTTPDigest,
    OAuth2PasswordBearer,
    OpenIdConnect,
)

from fastapi_proxy_di import Balancer, Upstream, proxy_lifespan
from tests.support.gateways import billing, gateway_app
from tests.support.http_client import connect, fetch
from tests.support.origins import Headers, ScriptedOrigin
from tests.support.servers import run_app
from tests.support.websocket_client import open_websocket, shake_hands
from tests.websocket.gateways import serving
from tests.websocket.upstreams import EchoApp, echo_server

pytestmark = pytest.mark.e2e


_BASIC = b"Basic " + base64.b64encode(b"user:password")
_SCHEMES: list[tuple[Any, str, Headers]] = [
    (APIKeyHeader(name="X-Key"), "", [(b"X-Key", b"k")]),
    (APIKeyQuery(name="key"), "?key=k", []),
    (APIKeyCookie(name="key"), "", [(b"Cookie", b"key=k")]),
    (HTTPBasic(), "", [(b"Authorization", _BASIC)]),
    (HTTPBearer(), "", [(b"Authorization", b"Bearer t")]),
    (HTTPDigest(), "", [(b"Authorization", b"Digest t")]),
    (OAuth2PasswordBearer("token"), "", [(b"Authorization", b"Bearer t")]),
    (OpenIdConnect(openIdConnectUrl="/openid"), "", [(b"Authorization", b"Bearer t")]),
]
_each_scheme = pytest.mark.parametrize(
    ("scheme", "query", "headers"), _SCHEMES, ids=lambda value: type(value).__name__
)


def _proxied(scheme: Any, url: str) -> FastAPI:
    return gateway_app(url, include={"dependencies": [Security(scheme)]})


def _injected(scheme: Any, url: str) -> FastAPI:
    app = FastAPI(lifespan=proxy_lifespan)
    upstream = Upstream(billing(url))
    guarded = Annotated[Any, Security(scheme)]

    @app.get("/billing/x")
    async def x(
        request: Request, _: guarded, balancer: Annotated[Balancer, Depends(upstream)]
    ) -> Response:
        return await balancer.forward(request)

    @app.websocket("/billing/live")
    async def live(
        websocket: WebSocket, _: guarded, balancer: Annotated[Balancer, Depends(upstream)]
    ) -> None:
        await balancer.forward_websocket(websocket)

    return app


_each_face = pytest.mark.parametrize("face", [_proxied, _injected])


@_each_face
@_each_scheme
async def test_http_needs_the_credentials(
    face: Any, scheme: Any, query: str, headers: Headers
) -> None:
    """Without them nothing is sent."""
    async with ScriptedOrigin() as origin, run_app(face(scheme, origin.url)) as running:
        refused = await fetch(running.address, target="/billing/x")
        before = origin.connections
        allowed = await fetch(running.address, target="/billing/x" + query, headers=headers)

    assert refused.status in (401, 403)
    assert before == 0
    assert allowed.status == 200


@_each_face
@_each_scheme
async def test_websocket_needs_the_credentials(
    face: Any, scheme: Any, query: str, headers: Headers
) -> None:
    """Without them nothing is dialled."""
    app = EchoApp()
    async with echo_server(app) as echo, serving(face(scheme, echo.url)) as gateway:
        async with connect(gateway.address) as stranger:
            refused = await shake_hands(stranger, "/billing/live")
        before = len(app.scopes)
        async with open_websocket(gateway.address, "/billing/live" + query, headers) as client:
            await client.send("hello")
            said = await client.recv()

    assert refused.status in (401, 403)
    assert before == 0
    assert said == "hello"


async def test_scheme_of_a_proxied_route_is_in_the_schema() -> None:
    """With ``include_in_schema`` the documentation has the scheme of a mount."""
    async with ScriptedOrigin() as origin:
        app = gateway_app(
            origin.url,
            router={"include_in_schema": True},
            include={"dependencies": [Security(HTTPBearer())]},
        )
        async with run_app(app) as running:
            schema = (await fetch(running.address, target="/openapi.json")).json()

    operations = schema["paths"]["/billing/{path}"]
    assert operations["get"]["security"] == [{"HTTPBearer": []}]
    assert origin.connections == 0
