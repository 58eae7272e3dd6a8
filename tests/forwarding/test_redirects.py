"""Headers that lead to the upstream, on the wire: they lead through the mount by default."""

from collections.abc import Sequence
from typing import Any

import pytest
from fastapi import Depends, FastAPI, Request, Response

from fastapi_proxy_di import Balancer, Upstream, proxy_lifespan
from fastapi_proxy_di.transforms import LocationRewrite, OutboundResponse
from tests.support.gateways import billing, gateway
from tests.support.http_client import RawResponse, fetch
from tests.support.origins import Connection, Script, ScriptedOrigin, response_bytes
from tests.support.servers import run_app

pytestmark = pytest.mark.e2e

Pairs = list[tuple[bytes, bytes]]


def _responds(status: int, headers: Pairs) -> Script:
    """Make a script; ``ORIGIN`` in a header of the response is what the request named as Host."""

    async def script(connection: Connection) -> None:
        host = (await connection.read_request()).one(b"host") or b""
        told = [(name, value.replace(b"ORIGIN", host)) for name, value in headers]
        await connection.send(response_bytes(status, headers=told))

    return script


async def _through_gateway(
    headers: Pairs,
    status: int = 302,
    sent: Sequence[tuple[bytes, bytes]] = (),
    base: str = "",
    **options: Any,
) -> RawResponse:
    """Send one request and give the response; ``headers`` are those of the upstream."""
    async with ScriptedOrigin(_responds(status, headers)) as origin:
        destinations = [origin.url + base, *options.pop("others", [])]
        async with gateway(*destinations, **options) as gate:
            return await fetch(gate.address, target="/billing/x", headers=sent)


async def test_headers_to_the_destination_lead_through_the_mount() -> None:
    """Whatever the status; other headers stay byte for byte."""
    reply = await _through_gateway(
        [
            (b"X-Link", b"http://ORIGIN/x"),
            (b"Location", b"http://ORIGIN/a?b=%2F#c"),
            (b"Content-Location", b"/d"),
            (b"Refresh", b"0; url='http://ORIGIN/e'"),
        ],
        status=201,
    )

    assert reply.one(b"location") == b"/billing/a?b=%2F#c"
    assert reply.one(b"content-location") == b"/billing/d"
    assert reply.one(b"refresh") == b"0; url='/billing/e'"
    assert (reply.one(b"x-link") or b"").startswith(b"http://127.0.0.1:")


async def test_headers_can_be_passed() -> None:
    """``location=pass`` changes none of them."""
    headers = [(b"location", b"/a"), (b"content-location", b"/d"), (b"refresh", b"0; url=/e")]
    reply = await _through_gateway(headers, location="pass")

    assert [pair for pair in reply.headers if pair in headers] == headers


async def test_location_names_another_destination_of_the_pool() -> None:
    """Each destination is the same upstream."""
    reply = await _through_gateway(
        [(b"Location", b"http://other.test:81/v1/a")],
        policy="first",
        others=["http://other.test:81/v1"],
    )
    assert reply.one(b"location") == b"/billing/a"


@pytest.mark.parametrize("preserve_host", [False, True])
async def test_location_with_the_clients_host_gets_the_mount(preserve_host: bool) -> None:
    """By ``X-Forwarded-Host`` (tus), or by ``Host`` itself."""
    headers = [(b"Location", b"http://gateway.test/files/1")]
    reply = await _through_gateway(headers, status=201, preserve_host=preserve_host)

    assert reply.one(b"location") == b"/billing/files/1"


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        (b"https://front.test/api/billing/a", b"https://front.test/api/billing/a"),
        (b"https://front.test/a", b"/api/billing/a"),
        (b"http://gateway.test/a", b"/api/billing/a"),
        (b"/api/billing/a", b"/api/billing/a"),
        (b"/a", b"/api/billing/a"),
    ],
)
async def test_mount_is_the_one_that_the_client_sees(location: bytes, expected: bytes) -> None:
    """A trusted proxy in front says which host, scheme and prefix it has taken."""
    reply = await _through_gateway(
        [(b"Location", location)],
        sent=[
            (b"X-Forwarded-Host", b"front.test"),
            (b"X-Forwarded-Proto", b"https"),
            (b"X-Forwarded-Prefix", b"/api"),
        ],
        forwarded={"mode": "append", "trusted_proxies": ["127.0.0.1"]},
    )
    assert reply.one(b"location") == expected


async def test_root_path_is_part_of_the_mount() -> None:
    """A proxy in front has removed it, and the server was told."""
    reply = await _through_gateway([(b"Location", b"/a")], server={"root_path": "/api"})
    assert reply.one(b"location") == b"/api/billing/a"


async def test_redirect_to_https_is_no_loop() -> None:
    """The client is on http: a path would lead it to the same redirect again."""
    reply = await _through_gateway([(b"Location", b"https://ORIGIN/x")], status=301)
    assert reply.one(b"location") == b"https://gateway.test/billing/x"


async def test_what_a_transform_writes_stays() -> None:
    """It knows the client's paths; a header that it leaves alone is rewritten."""

    def elsewhere(response: OutboundResponse) -> None:
        response.headers["location"] = "/elsewhere"

    headers = [(b"Location", b"/v2/x"), (b"Content-Location", b"/v2/x")]
    by_function = await _through_gateway(headers, router={"transforms": [elsewhere]})
    by_setting = await _through_gateway(
        headers, transforms=[LocationRewrite(match="/v2/", replace="/billing/")]
    )

    assert by_function.one(b"location") == b"/elsewhere"
    assert by_setting.one(b"location") == b"/billing/x"
    assert by_function.one(b"content-location") == b"/billing/v2/x"


async def test_transform_rewrites_where_the_setting_does_not() -> None:
    """One mount of an upstream with ``location=pass``, all of its headers."""
    reply = await _through_gateway(
        [(b"Location", b"http://ORIGIN/a"), (b"Refresh", b"0; url=/e")],
        location="pass",
        router={"transforms": [LocationRewrite()]},
    )
    assert (reply.one(b"location"), reply.one(b"refresh")) == (
        b"/billing/a",
        b"0; url=/billing/e",
    )


async def test_response_of_an_endpoint_has_no_origin_of_the_destination() -> None:
    """An endpoint that forwards by hand has no mount; the client's root is that of the app."""
    app = FastAPI(lifespan=proxy_lifespan)
    script = _responds(302, [(b"Location", b"http://ORIGIN/a")])
    async with ScriptedOrigin(script) as origin:
        upstream = Upstream(billing(origin.url))

        @app.get("/invoice")
        async def invoice(request: Request, balancer: Balancer = Depends(upstream)) -> Response:
            return await balancer.forward(request, "/x")

        async with run_app(app) as running:
            reply = await fetch(running.address, target="/invoice")
    assert reply.one(b"location") == b"/a"
