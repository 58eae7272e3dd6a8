"""``destination=`` of the pool: the request goes to that destination alone."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from fastapi_proxy_di import Balancer, NoAvailableDestination
from tests.support.gateways import Gateway, billing, until
from tests.support.given import Held, address_of_lease, given_app, send_to, to
from tests.support.http_client import RawResponse, connect, fetch
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
    held = Held()
    async with ScriptedOrigin(held) as one, ScriptedOrigin() as two:
        limited = {"url": one.url, "max_in_flight": 1}
        app = pool_app(limited, two.url, limits={"queue": 5})  # type: ignore[arg-type]
        async with serving(app) as gateway, connect(gateway.address) as client:
            await send_to(client, one.url)
            await until(lambda: one.requests)
            assert (await ask(gateway, one.url)).status == 503
            held.release.set()
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
            with pytest.raises(NoAvailableDestination, match="the only one for this request"):
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


async def refusing(connection: Connection) -> None:
    """Refuse one key, and ask for a pause."""
    while True:
        received = await connection.read_request()
        bad = received.one(b"x-key") == b"bad"
        headers = [(b"Retry-After", b"20")] if bad else []
        await connection.send(response_bytes(429 if bad else 200, b"", headers))


async def test_key_that_is_refused_cools_and_not_the_destination() -> None:
    """``ejection.key`` holds as for other requests."""
    ejection = {"key": "header:x-key", "respect_retry_after": True}
    async with (
        ScriptedOrigin(refusing) as one,
        ScriptedOrigin() as two,
        serving(pool_app(one.url, two.url, ejection=ejection)) as gateway,
    ):
        first = await ask(gateway, one.url, (b"X-Key", b"bad"))
        again = await ask(gateway, one.url, (b"X-Key", b"bad"))
        other = await ask(gateway, one.url, (b"X-Key", b"good"))

    assert (first.status, again.status, other.status) == (429, 503, 200)
    assert 10 < int(again.one(b"retry-after") or 0) <= 20
    assert (len(one.requests), two.requests) == (2, [])


async def test_pause_that_the_destination_asked_for_is_told() -> None:
    """Not the time of a pool with others."""

    async def pauses(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(response_bytes(429, b"", [(b"Retry-After", b"120")]))

    async with ScriptedOrigin(pauses) as one, ScriptedOrigin() as two:
        app = pool_app(one.url, two.url, ejection={"respect_retry_after": True})
        async with serving(app) as gateway:
            await ask(gateway, one.url)
            reply = await ask(gateway, one.url)

    assert reply.status == 503
    assert 100 < int(reply.one(b"retry-after") or 0) <= 120


async def test_limit_of_the_destination_is_told() -> None:
    """Its window turns in an hour; the queue is for requests that others may serve."""
    async with ScriptedOrigin() as one, ScriptedOrigin() as two:
        limited = {"url": one.url, "max_requests": 1}
        app = pool_app(limited, two.url, limits={"queue": 5}, max_requests_window=3600)  # type: ignore[arg-type]
        async with serving(app) as gateway:
            await ask(gateway, one.url)
            reply = await ask(gateway, one.url)

    assert json.loads(reply.body)["failure"] == "limit_exceeded"
    assert int(reply.one(b"retry-after") or 0) > 3000


async def test_request_waits_for_the_address_and_not_for_an_object() -> None:
    """A reload makes another destination of the address, with another ``host``."""
    held = Held()
    async with ScriptedOrigin(held) as one, ScriptedOrigin() as two:
        app = pool_app(one.url, two.url, limits={"max_in_flight": 1, "queue": 5})
        async with (
            serving(app) as gateway,
            connect(gateway.address) as first,
            connect(gateway.address) as second,
        ):
            await send_to(first, one.url)
            await until(lambda: one.requests)
            await send_to(second, one.url)
            await until(lambda: gateway.balancer.status().queued == 1)
            settings = gateway.balancer.settings
            changed = [{"url": one.url, "host": "other.test"}, two.url]
            values = {**settings.model_dump(exclude_unset=True), "destinations": changed}
            await gateway.balancer.reload(type(settings)(**values))
            held.release.set()
            statuses = [(await client.read_response("GET")).status for client in (first, second)]

    assert statuses == [200, 200]
    assert [received.one(b"host") for received in one.requests][1] == b"other.test"


async def test_newcomer_gets_its_first_probe_before() -> None:
    """As with other requests, while others can be used."""
    probed = asyncio.Event()

    async def slow_to_probe(connection: Connection) -> None:
        while True:
            received = await connection.read_request()
            if received.target == b"/health":
                await probed.wait()
            await connection.send(response_bytes(200, b"ok"))

    async with ScriptedOrigin() as one, ScriptedOrigin(slow_to_probe) as two:
        app = pool_app(one.url, health={"path": "/health", "interval": 0.2})
        async with serving(app) as gateway:
            gateway.balancer.replace_destinations([one.url, two.url])
            early = await ask(gateway, two.url)
            probed.set()
            await until(lambda: all(d.state == "available" for d in gateway.balancer.destinations))
            late = await ask(gateway, two.url)

    assert (early.status, late.status) == (503, 200)


async def test_cookie_binds_nobody_to_it() -> None:
    """The client stays on the destination that the policy picked for it."""
    affinity = {"cookie": "aff", "key": "k" * 32}
    async with (
        ScriptedOrigin() as one,
        ScriptedOrigin() as two,
        serving(pool_app(one.url, two.url, affinity=affinity)) as gateway,
    ):
        named = await ask(gateway, two.url)
        picked = await fetch(gateway.address, target="/billing/x")

    assert named.all(b"set-cookie") == []
    assert len(picked.all(b"set-cookie")) == 1
