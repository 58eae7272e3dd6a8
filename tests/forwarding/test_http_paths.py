"""Paths: the part below the mount is forwarded byte for byte, or the request is refused."""

import contextlib
from collections.abc import AsyncIterator

import pytest
from fastapi import Depends, FastAPI, Request, Response

from fastapi_proxy_di import Balancer, Upstream, proxy_app, proxy_lifespan
from tests.support.gateways import billing, gateway
from tests.support.http_client import fetch
from tests.support.origins import ScriptedOrigin
from tests.support.servers import Running, run_app

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(
    ("target", "sent"),
    [
        ("/billing/x", "/x"),
        ("/billing/", "/"),
        ("/billing/x/", "/x/"),
        ("/billing/a%2Fb", "/a%2Fb"),
        ("/billing/a%2fb", "/a%2fb"),
        ("/billing/%2Fx", "/%2Fx"),
        ("/billing/a%20b", "/a%20b"),
        ("/billing/a%3Fb", "/a%3Fb"),
        ("/billing/a%23b", "/a%23b"),
        ("/billing/a%00b", "/a%00b"),
        ("/billing/a%0Ab", "/a%0Ab"),
        ("/billing/a%0D%0Ab", "/a%0D%0Ab"),
        ("/billing/a%25b", "/a%25b"),
        ("/billing/a%252Fb", "/a%252Fb"),
        ("/billing/%41%7e", "/%41%7e"),
        ("/billing//x", "//x"),
        ("/billing//other.example/x", "//other.example/x"),
        ("/billing/a//b//", "/a//b//"),
        ("/billing/a;v=1/b;w", "/a;v=1/b;w"),
        ("/billing/;", "/;"),
        ("/billing/.well-known/x", "/.well-known/x"),
        ("/billing/a..b/..c/d..", "/a..b/..c/d.."),
        ("/billing/a%2eb/%2ec", "/a%2eb/%2ec"),
        ("/billing/...", "/..."),
        ("/billing/caf%C3%A9", "/caf%C3%A9"),
        ("/billing/caf%c3%a9", "/caf%c3%a9"),
        ("/billing/%FF%FE", "/%FF%FE"),
        ("/billing/a+b", "/a+b"),
        ("/billing/a:80@b", "/a:80@b"),
        ("/billing/http://other.example/", "/http://other.example/"),
        ("/billing/billing/x", "/billing/x"),
        ("/bill%69ng/x", "/x"),
        ("/%62illing/", "/"),
    ],
)
async def test_path_is_sent_unchanged(target: str, sent: str) -> None:
    """The raw path below the mount is not decoded, encoded or normalised."""
    async with ScriptedOrigin() as origin, gateway(origin.url) as gate:
        response = await fetch(gate.address, target=target)

    assert response.status == 200
    assert origin.request.target == sent.encode()
    assert origin.request.one(b"host") == origin.authority.encode()


_DOT_SEGMENTS = [
    "/x/../admin",
    "/%2e%2e/admin",
    "/x/%2E./admin",
    "/x/..%2fadmin",
    "/x/..%5cadmin",
    "/x\\..\\admin",
    "/x/..",
    "/x/.",
    "/./admin",
    "/x/%2e/admin",
    "/x/..;v=1/admin",
    "/x/.;/admin",
]


@pytest.mark.parametrize("below", _DOT_SEGMENTS)
@pytest.mark.parametrize("kind", ["router", "app"])
async def test_path_with_dot_segments_is_refused(kind: str, below: str) -> None:
    """RFC 3986 section 3.3: the destination would serve another path than a guard has seen.

    The last two are dot segments to servlet containers, which remove path parameters first.
    """
    async with ScriptedOrigin() as origin, _mounted(kind, origin.url) as running:
        response = await fetch(running.address, target="/billing" + below)

    assert response.status == 400
    assert response.one(b"content-type") == b"application/problem+json"
    assert origin.connections == 0


@contextlib.asynccontextmanager
async def _mounted(kind: str, url: str) -> AsyncIterator[Running]:
    """Run a gateway by ``proxy_router`` or by ``proxy_app``."""
    if kind == "router":
        async with gateway(url) as gate:
            yield gate.running
    else:
        app = FastAPI(lifespan=proxy_lifespan)
        app.mount("/billing", proxy_app(billing(url)))
        async with run_app(app) as running:
            yield running


@pytest.mark.parametrize("below", [one for one in _DOT_SEGMENTS if not one.startswith("/%2e%2e")])
async def test_dot_segments_can_be_passed(below: str) -> None:
    """``dot_segments=pass`` forwards those that stay below the mount, byte for byte."""
    async with ScriptedOrigin() as origin, gateway(origin.url, dot_segments="pass") as gate:
        response = await fetch(gate.address, target="/billing" + below)

    assert response.status == 200
    assert origin.request.target == below.encode()


async def test_dot_segments_that_code_gives_are_sent() -> None:
    """``forward(path=...)`` is sent as it is, unless it leads above its start."""
    app = FastAPI()

    @app.get("/go")
    async def go(request: Request, upstream: Balancer = Depends(Upstream("billing"))) -> Response:
        return await upstream.forward(request, request.headers["x-path"])

    async with (
        ScriptedOrigin() as origin,
        gateway(origin.url, app=app) as gate,
    ):
        sent = await fetch(gate.address, target="/go", headers=[(b"X-Path", b"/a/../b/.")])
        refused = await fetch(gate.address, target="/go", headers=[(b"X-Path", b"/../b")])

    assert (sent.status, refused.status) == (200, 400)
    assert origin.request.target == b"/a/../b/."


@pytest.mark.parametrize(
    "target",
    [
        "/billing%2Fx",
        "/billing%2fx",
        "/billing%2F",
        "/billingx",
        "/",
        "/x/billing/x",
        "//billing/x",
    ],
)
async def test_path_outside_the_mount_is_not_found(target: str) -> None:
    """An encoded slash does not end a segment, and a longer name is another segment."""
    async with ScriptedOrigin() as origin, gateway(origin.url) as gate:
        response = await fetch(gate.address, target=target)

    assert response.status == 404
    assert origin.connections == 0


@pytest.mark.parametrize("dot_segments", ["reject", "pass"])
@pytest.mark.parametrize("base", ["", "/base", "/base/v1/"])
@pytest.mark.parametrize(
    "target",
    [
        "/billing/..",
        "/billing/../x",
        "/billing/../billing/x",
        "/billing/%2e%2e/x",
        "/billing/%2E./x",
        "/billing/..%2fx",
        "/billing/..%5Cx",
        "/billing/..\\x",
        "/billing/a/../../x",
        "/billing/a/%2e%2e/%2e%2e/x",
        "/billing/./../x",
        "/billing/a%2f..%2f..%2fx",
    ],
)
async def test_path_that_climbs_out_is_refused(target: str, base: str, dot_segments: str) -> None:
    """Dot segments above the mount, in any spelling, never reach a destination."""
    async with (
        ScriptedOrigin() as origin,
        gateway(origin.url + base, dot_segments=dot_segments) as gate,
    ):
        response = await fetch(gate.address, target=target)

    assert response.status == 400
    assert origin.connections == 0


@pytest.mark.parametrize(
    ("base", "target", "sent"),
    [
        ("/base", "/billing", "/base"),
        ("/base", "/billing/", "/base/"),
        ("/base", "/billing/x", "/base/x"),
        ("/base/", "/billing", "/base"),
        ("/base/", "/billing/x", "/base/x"),
        ("/a/b", "/billing//x?q=1", "/a/b//x?q=1"),
        ("/", "/billing/x", "/x"),
    ],
)
async def test_path_is_joined_to_the_base_path(base: str, target: str, sent: str) -> None:
    """The destination's base path comes first, with exactly one slash in between."""
    async with ScriptedOrigin() as origin, gateway(origin.url + base) as gate:
        await fetch(gate.address, target=target)

    assert origin.request.target == sent.encode()


@pytest.mark.parametrize(
    ("target", "sent"),
    [("/billing/a%2Fb", "/a%2Fb"), ("/billing/", "/"), ("/bill%69ng/x", "/x")],
)
async def test_root_path_is_not_sent(target: str, sent: str) -> None:
    """The server's root_path is in front of the mount."""
    async with (
        ScriptedOrigin() as origin,
        gateway(origin.url, server={"root_path": "/api"}) as gate,
    ):
        await fetch(gate.address, target=target)

    assert origin.request.target == sent.encode()


async def test_path_in_front_of_the_path_parameter_belongs_to_the_mount() -> None:
    """The part of ``path=`` before ``{path:path}`` is not sent."""
    async with (
        ScriptedOrigin() as origin,
        gateway(origin.url, router={"path": "/v1/{path:path}"}) as gate,
    ):
        missing = await fetch(gate.address, target="/billing/x")
        found = await fetch(gate.address, target="/billing/v1/x")

    assert missing.status == 404
    assert found.status == 200
    assert origin.request.target == b"/x"
