"""What is secret does not go to dynamic destinations, unless it is meant to."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI, Request, Response

from fastapi_proxy_di import Upstream
from tests.balancing.affinities import COOKIE, KEY
from tests.support.given import given_app, to
from tests.support.http_client import RawResponse, connect, fetch
from tests.support.origins import Connection, Received, ScriptedOrigin, always, response_bytes
from tests.support.websocket_client import open_websocket, shake_hands
from tests.websocket.gateways import serving
from tests.websocket.upstreams import EchoApp, echo_server

pytestmark = pytest.mark.e2e

SECRETS = [
    (b"Cookie", b"session=secret"),
    (b"Authorization", b"Bearer secret"),
    (b"Proxy-Authorization", b"Basic secret"),
    (b"X-Key", b"forged-secret"),
]
COOKIES = [
    (b"Set-Cookie", b"a=1; Domain=notebooks.test; Path=/; Secure"),
    (b"Set-Cookie", b"b=2; DOMAIN = .test ;HttpOnly"),
    (b"Set-Cookie", b"c=3; Path=/"),
]
HOST_ONLY = [b"a=1; Path=/; Secure", b"b=2;HttpOnly", b"c=3; Path=/"]


def app_with_key(*destinations: str, **options: Any) -> FastAPI:
    """An app whose upstream has a secret header of its own."""
    return given_app(*destinations, request_headers={"X-Key": "secret"}, **options)


async def request_of(*, given: bool = True, **options: Any) -> Received:
    """Give the request that a server gets of a client with secrets.

    Args:
        given: Whether the client gives its address, which is none of the pool's then.
        **options: As for `app_with_key`.
    """
    async with ScriptedOrigin() as origin:
        pool = () if given else (origin.url,)
        async with serving(app_with_key(*pool, **options)) as gateway:
            headers = [*(to(origin.url) if given else []), *SECRETS]
            reply = await fetch(gateway.address, target="/billing/x", headers=headers)
    assert reply.status == 200
    return origin.request


async def test_secrets_stay_here() -> None:
    """Those of the client and those of the settings; a client cannot forge the latter."""
    request = await request_of()

    assert b"secret" not in request.head
    assert {b"cookie", b"authorization", b"x-key"}.isdisjoint(request.names)


async def test_secrets_go_to_the_pool() -> None:
    """The upstream is the same, its destinations are trusted."""
    request = await request_of(given=False)

    assert request.all(b"cookie") == [b"session=secret"]
    assert request.all(b"x-key") == [b"secret"]


async def test_secrets_go_where_the_settings_say() -> None:
    """``credentials`` sends what the pool would get."""
    request = await request_of(credentials=True)

    assert request.all(b"cookie") == [b"session=secret"]
    assert request.all(b"authorization") == [b"Bearer secret"]
    assert request.all(b"x-key") == [b"secret"]
    assert request.all(b"proxy-authorization") == []


@pytest.mark.parametrize("argument", ["additional_headers", "override_headers"])
async def test_headers_of_the_call_go_there(argument: str) -> None:
    """They are meant for the address; all others stay."""
    async with ScriptedOrigin() as origin:
        app = app_with_key()

        @app.get("/called")
        async def call(request: Request) -> Response:
            given: dict[str, Any] = {argument: {"cookie": "theirs", "x-key": "theirs"}}
            return (
                await Upstream("billing")
                .of(app)
                .forward(request, "/x", destination=origin.url, **given)
            )

        async with serving(app) as gateway:
            reply = await fetch(gateway.address, target="/called", headers=SECRETS)

    assert reply.status == 200
    assert origin.request.all(b"cookie") == [b"theirs"]
    assert origin.request.all(b"x-key") == [b"theirs"]
    assert b"secret" not in origin.request.head


async def test_secrets_of_a_websocket_stay_here() -> None:
    """The handshake has none, and its cookies go back to this host alone."""
    app = EchoApp(headers=[(name.lower(), value) for name, value in COOKIES])
    async with (
        echo_server(app) as echo,
        serving(app_with_key()) as gateway,
        open_websocket(gateway.address, "/billing/live", to(echo.url, *SECRETS)) as client,
    ):
        await client.send("hello")
        said = await client.recv()
        status = gateway.balancer.status()

    assert said == "hello"
    assert app.all(b"cookie") == app.all(b"authorization") == app.all(b"x-key") == []
    assert client.response.all(b"set-cookie") == HOST_ONLY
    assert (status.tunnels, status.in_flight, status.dynamic_destinations) == (1, 1, 1)


async def reply_of(headers: list[tuple[bytes, bytes]], *, given: bool = True) -> RawResponse:
    """Give what the client gets of a response with these headers."""
    async with ScriptedOrigin(always(response_bytes(200, b"", headers))) as origin:
        pool = () if given else (origin.url,)
        async with serving(app_with_key(*pool)) as gateway:
            return await fetch(
                gateway.address, target="/billing/x", headers=to(origin.url) if given else ()
            )


async def test_cookies_lose_their_domain() -> None:
    """A destination sets no cookies for others; those of the pool may."""
    assert (await reply_of(COOKIES)).all(b"set-cookie") == HOST_ONLY
    assert (await reply_of(COOKIES, given=False)).all(b"set-cookie") == [
        value for _, value in COOKIES
    ]


async def redirecting(connection: Connection) -> None:
    """Respond with a redirect to itself, and one to a neighbour."""
    own = (await connection.read_request()).one(b"host") or b""
    headers = [
        (b"Location", b"http://" + own + b"/y"),
        (b"Content-Location", b"http://pool.test/z"),
    ]
    await connection.send(response_bytes(302, b"", headers))


async def test_redirects_lead_through_the_mount() -> None:
    """Those to the address itself; one to another destination stays as it is."""
    async with (
        ScriptedOrigin(redirecting) as origin,
        serving(app_with_key("http://pool.test")) as gateway,
    ):
        reply = await fetch(gateway.address, target="/billing/x", headers=to(origin.url))

    assert reply.one(b"location") == b"/billing/y"
    assert reply.one(b"content-location") == b"http://pool.test/z"


@pytest.mark.parametrize("credentials", [False, True])
@pytest.mark.parametrize(
    ("affinity", "name", "there"),
    [
        (COOKIE, b"cookie", None),
        ({"header": "x-session", "issue": True, "key": KEY}, b"x-session", b"id"),
    ],
    ids=["cookie", "issued"],
)
async def test_affinity_stays_here(
    affinity: dict[str, Any], name: bytes, there: bytes | None, credentials: bool
) -> None:
    """What binds a client to the pool goes to no address, and no address binds a client."""
    issuing = always(response_bytes(200, b"", [(b"X-Session", b"id")]))
    async with (
        ScriptedOrigin(issuing) as pool,
        ScriptedOrigin(issuing) as given,
        serving(given_app(pool.url, credentials=credentials, affinity=affinity)) as gateway,
        connect(gateway.address) as client,
    ):
        first = await fetch(gateway.address, target="/billing/x")
        bound = first.one(b"set-cookie" if name == b"cookie" else name) or b""
        headers = to(given.url, (name, bound.partition(b";")[0]))
        reply = await fetch(gateway.address, target="/billing/x", headers=headers)
        await shake_hands(client, "/billing/live", headers)

    assert len(bound) > len(b"id")
    assert [one.one(name) for one in given.requests] == [there, there]
    assert (reply.one(b"set-cookie"), reply.one(b"x-session")) == (None, b"id")
