"""``destination=`` of the pool: the request goes to that destination alone."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from fastapi_proxy_di import Balancer, NoAvailableDestination
from tests.support.gateways import Gateway, billing, until
from tests.support.given import address_of_lease, given_app, to
from tests.support.http_client import RawResponse, connect, fetch, request
from tests.support.origins import Connection, ScriptedOrigin, always, response_bytes
from tests.support.servers import dead_port
from tests.support.websocket_client import shake_hands
from tests.websocket.gateways import serving

pytestmark = pytest.mark.e2e


async def ask(gateway: Gateway, address: str, *headers: tuple[bytes, bytes]) -> RawResponse:
    """Send a GET to a destination through the gateway."""
    return await fetch(gateway.address, target="/billing/x", headers=to(address, *headers))


def pool_app(*destinations: str, **settings: Any) -> Any:
    """Build an app whose client names a destination, and no address outside of the pool."""
    return given_app(*destinations, networks=(), **settings)


@pytest.mark.parametrize("policy", ["round_robin", "prefix", "hash"])
async def test_request_goes_to_the_destination_alone(policy: str) -> None:
    """As a request to the pool: with the client's cookies and the settings' headers."""
    async with ScriptedOrigin() as one, ScriptedOrigin() as two:
        app = pool_app(one.url, two.url, policy=policy, request_headers={"X-Key": "k"})
        async with serving(app) as gateway:
            for spelling in (two.url, f"{two.url}/", two.url.replace("http", "HTTP")):
                reply = await ask(gateway, spelling, (b"Cookie", b"a=b"))
                assert reply.status == 200

    assert (len(one.requests), len(two.requests)) == (0, 3)
    assert {received.one(b"cookie") for received in two.requests} == {b"a=b"}
    assert {received.one(b"x-key") for received in two.requests} == {b"k"}


async def test_affinity_does_not_decide() -> None:
    """The destination that the client belongs to is another one."""
    async with ScriptedOrigin() as one, ScriptedOrigin() as two:
        app = pool_app(one.url, two.url, affinity={"header": "x-user"})
        async with serving(app) as gateway:
            for origin in (one, two, one):
                await ask(gateway, origin.url, (b"X-User", b"u"))

    assert (len(one.requests), len(two.requests)) == (2, 1)


async def test_retries_stay_on_it() -> None:
    """A status and a refused connection; nothing goes to the other one."""
    failing = always(response_bytes(503, b""))
    async with ScriptedOrigin(failing) as one, ScriptedOrigin() as two:
        dead = f"http://127.0.0.1:{dead_port()}"
        app = pool_app(one.url, two.url, dead, retries={"attempts": 2, "statuses": [503]})
        async with serving(app) as gateway:
            assert (await ask(gateway, one.url)).status == 503
            assert (await ask(gateway, dead)).status == 502

    assert (len(one.requests), two.requests) == (3, [])


async def test_draining_or_full_destination_gets_nothing() -> None:
    """503, also if all others have room."""
    release = asyncio.Event()

    async def held(connection: Connection) -> None:
        await connection.read_request()
        await release.wait()
        await connection.send(response_bytes(200, b"ok"))

    async with ScriptedOrigin(held) as one, ScriptedOrigin() as two:
        limited = {"url": one.url, "max_in_flight": 1}
        app = pool_app(limited, two.url, limits={"queue": 5})  # type: ignore[arg-type]
        async with serving(app) as gateway, connect(gateway.address) as client:
            await client.send(request("GET", "/billing/x", to(one.url), None))
            await until(lambda: one.requests)
            assert (await ask(gateway, one.url)).status == 503
            release.set()
            await client.read_response("GET")
            await gateway.balancer.drain(two.url)
            assert (await ask(gateway, two.url)).status == 503

    assert (len(one.requests), two.requests) == (1, [])


@pytest.mark.parametrize(("when", "status"), [("panic", 200), ("fail", 503)])
async def test_ejected_destination_is_used_in_panic_alone(when: str, status: int) -> None:
    """``when_none_available`` decides, although the other one is available."""
    async with ScriptedOrigin() as one, ScriptedOrigin() as two:
        app = pool_app(one.url, two.url, when_none_available=when, ejection={"consecutive": 1})
        async with serving(app) as gateway:
            async with gateway.balancer.lease(destination=one.url) as lease:
                lease.failed("out of order")
            assert len(gateway.balancer.available) == 1
            reply = await ask(gateway, one.url)

    assert reply.status == status
    assert two.requests == []


async def test_websocket_and_lease_take_it_too() -> None:
    """By the same argument."""
    async with ScriptedOrigin() as one, ScriptedOrigin(always(response_bytes(404))) as two:
        async with serving(pool_app(one.url, two.url)) as gateway:
            for _ in range(2):
                async with connect(gateway.address) as client:
                    assert (await shake_hands(client, "/billing/x", to(two.url))).status == 404
        async with Balancer.from_settings(billing(one.url, two.url)) as balancer:
            assert [await address_of_lease(balancer, two.url) for _ in range(2)] == [two.url] * 2
            await balancer.drain(two.url)
            with pytest.raises(NoAvailableDestination, match="the only destination of billing"):
                await address_of_lease(balancer, two.url)

    assert one.requests == []


async def test_other_addresses_still_need_to_be_allowed() -> None:
    """A destination that has left the pool is one of them."""
    async with (
        ScriptedOrigin() as one,
        ScriptedOrigin() as two,
        ScriptedOrigin() as other,
        serving(given_app(one.url, two.url, networks=["127.0.0.0/8"])) as gateway,
    ):
        await ask(gateway, two.url, (b"Cookie", b"a=b"))
        await ask(gateway, other.url, (b"Cookie", b"a=b"))
        gateway.balancer.replace_destinations([one.url])
        await ask(gateway, two.url, (b"Cookie", b"a=b"))
        refused = await ask(gateway, "http://10.0.0.1")

    assert [received.all(b"cookie") for received in two.requests] == [[b"a=b"], []]
    assert other.request.all(b"cookie") == []
    assert json.loads(refused.body)["failure"] == "refused_address"


async def test_pick_is_explained() -> None:
    """Neither policy nor affinity has picked it."""
    async with (
        ScriptedOrigin() as one,
        ScriptedOrigin() as two,
        serving(pool_app(one.url, two.url, explain="header")) as gateway,
    ):
        reply = await ask(gateway, two.url)

    explained = reply.one(b"x-proxy-explain") or b""
    assert explained.decode().startswith(f"address picked {two.url} of 2: ")
