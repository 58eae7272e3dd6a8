"""Affinity through a gateway: HTTP and WebSocket clients keep their destination."""

from __future__ import annotations

import pytest
from fastapi import FastAPI, WebSocket

from tests.balancing.affinities import COOKIE, scope_of
from tests.support.gateways import Gateway, gateway
from tests.support.http_client import RawResponse, connect, fetch
from tests.support.origins import ScriptedOrigin, always, response_bytes
from tests.support.servers import dead_port, run_app
from tests.support.websocket_client import open_websocket, shake_hands

pytestmark = pytest.mark.e2e


def _named(name: bytes) -> ScriptedOrigin:
    return ScriptedOrigin(always(response_bytes(body=name)))


def _cookie_of(reply: RawResponse) -> bytes:
    cookie = reply.one(b"set-cookie")
    assert cookie is not None
    return cookie.partition(b";")[0]


async def _again(gate: Gateway, before: RawResponse) -> RawResponse:
    """Send a request with the cookie of the response ``before``."""
    headers = [(b"Cookie", _cookie_of(before))]
    return await fetch(gate.address, target="/billing/x", headers=headers)


@pytest.mark.parametrize("policy", ["round_robin", "hash"])
async def test_affinity_sets_its_cookie_once(policy: str) -> None:
    """Later responses have no cookie, and the destination never gets it."""
    async with (
        _named(b"one") as one,
        _named(b"two") as two,
        gateway(one.url, two.url, policy=policy, affinity=COOKIE) as gate,
    ):
        first = await fetch(gate.address, target="/billing/x")
        cookie = _cookie_of(first)
        stays = [
            await fetch(
                gate.address, "POST", "/billing/x", [(b"Cookie", b"a=1; " + cookie)], b"hello"
            )
            for _ in range(6)
        ]

    assert b"Path=/billing; HttpOnly; SameSite=Lax" in (first.one(b"set-cookie") or b"")
    assert {reply.body for reply in stays} == {first.body}
    assert [reply.one(b"set-cookie") for reply in stays] == [None] * 6
    seen = [got.one(b"cookie") for origin in (one, two) for got in origin.requests]
    assert set(seen) == {None, b"a=1"}


async def test_affinity_survives_a_restart() -> None:
    """Another gateway with the same key accepts the cookie."""
    async with _named(b"one") as one, _named(b"two") as two:
        async with gateway(one.url, two.url, affinity=COOKIE) as gate:
            first = await fetch(gate.address, target="/billing/x")
        async with gateway(two.url, one.url, policy="round_robin", affinity=COOKIE) as gate:
            stays = [await _again(gate, first) for _ in range(4)]

    assert {reply.body for reply in stays} == {first.body}


async def test_affinity_moves_with_a_new_cookie_when_its_destination_drains() -> None:
    """The response sets the cookie of the new destination."""
    async with (
        _named(b"one") as one,
        _named(b"two") as two,
        gateway(one.url, two.url, policy="first", affinity=COOKIE) as gate,
    ):
        first = await fetch(gate.address, target="/billing/x")
        await gate.balancer.drain(one.url)
        moved = await _again(gate, first)
        gate.balancer.undrain(one.url)
        stays = await _again(gate, moved)

    assert (first.body, moved.body, stays.body) == (b"one", b"two", b"two")


async def test_affinity_fails_when_its_destination_drains() -> None:
    """With ``on_missing=fail`` that client gets 503, others are served."""
    async with (
        _named(b"one") as one,
        _named(b"two") as two,
        gateway(
            one.url, two.url, policy="first", affinity={**COOKIE, "on_missing": "fail"}
        ) as gate,
    ):
        first = await fetch(gate.address, target="/billing/x")
        await gate.balancer.drain(one.url)
        refused = await _again(gate, first)
        other = await fetch(gate.address, target="/billing/x")

    assert (refused.status, other.status) == (503, 200)
    assert int(refused.one(b"retry-after") or 0) >= 1


async def test_affinity_moves_when_its_destination_refuses() -> None:
    """The retry goes to another destination and sets a new cookie."""
    dead = f"http://127.0.0.1:{dead_port()}"
    async with (
        _named(b"one") as one,
        gateway(dead, one.url, policy="first", affinity=COOKIE) as gate,
    ):
        binding = gate.balancer._running.rules.http._binding
        assert binding is not None
        ((_, cookie),) = binding.remember([], scope_of(), b"", gate.balancer.destinations[0])
        pair = cookie.partition(b";")[0]
        reply = await fetch(gate.address, target="/billing/x", headers=[(b"Cookie", pair)])

    assert (reply.status, reply.body) == (200, b"one")
    assert _cookie_of(reply) != pair


async def test_affinity_sets_its_cookie_by_a_handshake() -> None:
    """Clients that send it stay, and the destination never gets it."""
    app = FastAPI()

    @app.websocket("/x")
    async def who(websocket: WebSocket) -> None:
        await websocket.accept()
        server = websocket.scope["server"][1]
        await websocket.send_text(f"{server} {websocket.headers.get('cookie')}")
        await websocket.close()

    async with (
        run_app(app) as one,
        run_app(app) as two,
        gateway(one.url, two.url, policy="round_robin", affinity=COOKIE) as gate,
    ):
        async with open_websocket(gate.address, "/billing/x") as client:
            cookie = (client.response.one(b"set-cookie") or b"").decode()
            first = await client.recv()
        stays, repeated = set(), set()
        for _ in range(4):
            headers = [(b"Cookie", f"a=1; {cookie.partition(';')[0]}".encode())]
            async with open_websocket(gate.address, "/billing/x", headers) as client:
                stays.add(await client.recv())
                repeated.add(client.response.one(b"set-cookie"))

    assert cookie.endswith("; Path=/billing; HttpOnly; SameSite=Lax")
    assert isinstance(first, str)
    assert first.endswith(" None")
    assert stays == {f"{first.split()[0]} a=1"}
    assert repeated == {None}


async def test_affinity_sets_its_cookie_by_a_refused_handshake() -> None:
    """A login page behind a 401 may also keep state."""
    async with (
        ScriptedOrigin(always(response_bytes(401, b"who?"))) as origin,
        gateway(origin.url, affinity=COOKIE) as gate,
        connect(gate.address) as client,
    ):
        refusal = await shake_hands(client, "/billing/x")

    assert refusal.status == 401
    assert (refusal.one(b"set-cookie") or b"").startswith(b"stay=")
