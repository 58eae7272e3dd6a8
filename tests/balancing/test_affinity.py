"""Affinity: a client stays where it was, whoever asks, and nobody can choose for himself."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket
from starlette.types import Scope

from fastapi_proxy_di.balancing.affinity import Affinity, affinity_of
from fastapi_proxy_di.balancing.hash_key import RequestKey
from fastapi_proxy_di.balancing.round_robin import RoundRobin
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.pools.pool import Pool
from fastapi_proxy_di.settings import AffinitySettings
from tests.pools.samples import pool_of, settings_of
from tests.support.gateways import Gateway, gateway
from tests.support.http_client import Answer, connect, fetch
from tests.support.origins import ScriptedOrigin, always, answer
from tests.support.servers import dead_port, run_app
from tests.websocket.client import open_websocket, shake_hands

KEY = "a long random text"
COOKIE: dict[str, Any] = {"cookie": "stay", "key": KEY}


def scope_of(*cookies: bytes, **more: Any) -> Scope:
    """A request with these Cookie fields."""
    return {"type": "http", "headers": [(b"cookie", value) for value in cookies], **more}


class Bound:
    """Affinity over a pool under ``round_robin``, where each pick goes elsewhere."""

    def __init__(self, pool: Pool, **settings: Any) -> None:
        self.pool = pool
        self.affinity: Affinity = affinity_of(AffinitySettings(**(settings or COOKIE)), pool)
        self.policy = RoundRobin(random=Random(1))

    def pick(self, scope: Scope, tried: tuple[Destination, ...] = ()) -> Destination | None:
        """Select for a request."""
        request = RequestKey(scope, lambda scope: None)
        return self.affinity.select(self.policy, self.pool, request, tried)[0]

    def cookie(self, destination: Destination, scope: Scope | None = None) -> bytes:
        """Give the Set-Cookie field for ``destination``."""
        ((name, value),) = self.affinity.binding.remember(
            scope or scope_of(), b"/billing", destination
        )
        assert name == b"set-cookie"
        return value

    def pair(self, destination: Destination) -> bytes:
        """Give the cookie as the client sends it back."""
        return self.cookie(destination).partition(b";")[0]

    def picks(self, scope: Scope) -> set[Destination | None]:
        """Where ten requests go."""
        return {self.pick(scope) for _ in range(10)}


def test_affinity_keeps_the_client_on_its_destination() -> None:
    """With its cookie always there, without one by the policy."""
    bound = Bound(pool_of(3))
    second = bound.pool.destinations[1]

    assert bound.picks(scope_of(bound.pair(second))) == {second}
    assert bound.picks(scope_of()) == set(bound.pool.destinations)


def test_affinity_finds_its_cookie_among_others() -> None:
    """In one field or several (HTTP/2), and behind a forged one of the same name."""
    bound = Bound(pool_of(3))
    second = bound.pool.destinations[1]
    pair = bound.pair(second)

    assert bound.picks(scope_of(b"a=1; " + pair + b";b=2")) == {second}
    assert bound.picks(scope_of(b"a=1", b"b=2", pair)) == {second}
    assert bound.picks(scope_of(b"stay=forged; " + pair)) == {second}


def test_affinity_is_for_requests_only() -> None:
    """``pick`` and ``lease`` have no client to keep."""
    bound = Bound(pool_of(3))

    picked = {bound.affinity.select(bound.policy, bound.pool)[0] for _ in range(3)}

    assert picked == set(bound.pool.destinations)


def test_affinity_agrees_across_workers_and_restarts() -> None:
    """The same key makes the same cookies, in any order of destinations."""
    one = Bound(pool_of(3))
    other = Bound(Pool("billing", [settings_of(at) for at in (2, 1, 0)], panic=True))
    pair = one.pair(one.pool.destinations[0])

    assert {picked.url for picked in other.picks(scope_of(pair)) if picked} == {
        one.pool.destinations[0].url
    }


def _forgeries() -> Iterator[bytes]:
    bound = Bound(pool_of(3))
    pair = bound.pair(bound.pool.destinations[0])
    yield b"stay="
    yield b"stay"
    yield b"stay=1"
    yield b"stay=http://10.0.0.1"
    yield pair[:-1]
    yield pair[:-1] + (b"A" if pair[-1:] != b"A" else b"B")
    yield pair.partition(b".")[0] + b"."
    yield b"stay=." + pair.partition(b".")[2]
    yield pair.replace(b"stay", b"stays")
    yield b"stay=\xff.\xff"


@pytest.mark.parametrize("forged", list(_forgeries()))
@pytest.mark.parametrize("on_missing", ["redistribute", "fail"])
def test_affinity_ignores_what_it_has_not_signed(forged: bytes, on_missing: str) -> None:
    """Neither a destination nor a refusal follows from it; a new cookie does."""
    bound = Bound(pool_of(3), **COOKIE, on_missing=on_missing)

    assert bound.picks(scope_of(forged)) == set(bound.pool.destinations)
    assert bound.cookie(bound.pool.destinations[0], scope_of(forged))


@pytest.mark.parametrize(
    "other",
    [
        Bound(pool_of(3), cookie="stay", key="another long random text"),
        Bound(Pool("other", [settings_of(at) for at in range(3)], panic=True)),
    ],
    ids=["key", "upstream"],
)
def test_affinity_ignores_cookies_of_others(other: Bound) -> None:
    """Another key's, and another upstream's under the same key."""
    bound = Bound(pool_of(3), **COOKIE, on_missing="fail")
    foreign = scope_of(other.pair(other.pool.destinations[0]))

    assert bound.picks(foreign) == set(bound.pool.destinations)


def test_affinity_cookie_does_not_tell_the_address() -> None:
    """Nor anything else that differs from key to key only by luck."""
    bound = Bound(pool_of(2))
    one, other = (bound.pair(destination) for destination in bound.pool.destinations)

    assert b"10.0" not in one
    assert one != other
    assert len(one) == len(other)


@pytest.mark.parametrize(
    ("more", "prefix", "name", "expected"),
    [
        ({"scheme": "http"}, b"/billing", "stay", b"; Path=/billing; HttpOnly; SameSite=Lax"),
        (
            {"scheme": "https"},
            b"/billing",
            "stay",
            b"; Path=/billing; HttpOnly; SameSite=Lax; Secure",
        ),
        ({"scheme": "wss"}, b"", "stay", b"; Path=/; HttpOnly; SameSite=Lax; Secure"),
        ({"scheme": "ws"}, b"/a;Domain=b", "stay", b"; Path=/; HttpOnly; SameSite=Lax"),
        (
            {"scheme": "https"},
            b"/billing",
            "__Host-stay",
            b"; Path=/; HttpOnly; SameSite=Lax; Secure",
        ),
    ],
)
def test_affinity_cookie_has_its_attributes(
    more: dict[str, Any], prefix: bytes, name: str, expected: bytes
) -> None:
    """Secure as the request, HttpOnly, Lax, below the mount."""
    bound = Bound(pool_of(1), cookie=name, key=KEY)
    ((_, cookie),) = bound.affinity.binding.remember(
        scope_of(**more), prefix, bound.pool.destinations[0]
    )

    assert cookie[cookie.index(b";") :] == expected


def test_affinity_does_not_repeat_a_cookie_that_is_right() -> None:
    """Only a change needs telling; one that is removed is not worth a cookie."""
    bound = Bound(pool_of(2))
    first, second = bound.pool.destinations
    scope = scope_of(bound.pair(first))
    right = bound.affinity.binding.remember(scope, b"", first)
    moved = bound.affinity.binding.remember(scope, b"", second)
    bound.pool.replace([settings_of(0)])
    removed = bound.affinity.binding.remember(scope_of(), b"", second)

    assert (right, len(moved), removed) == ([], 1, [])


def test_affinity_strips_its_own_cookie_alone() -> None:
    """The destination sees the others as they were."""
    strip = Bound(pool_of(1)).affinity.binding.strip
    headers = [
        (b"cookie", b"a=1; stay=x.y;b=2"),
        (b"cookie", b"stay=x.y"),
        (b"cookie", b"c=stay"),
        (b"x", b"stay=1"),
    ]

    assert strip(headers) == [
        (b"cookie", b"a=1;b=2"),
        (b"cookie", b"c=stay"),
        (b"x", b"stay=1"),
    ]


def _take_out(pool: Pool, destination: Destination, how: str) -> None:
    if how == "down":
        pool.set_health(destination, False)
    elif how == "ejected":
        pool.eject(destination, 1e9)
    elif how == "draining":
        pool.drain(destination)
    elif how == "removed":
        pool.replace([one.settings for one in pool.destinations if one is not destination])
    else:
        destination.configure(destination.settings.model_copy(update={"max_in_flight": 1}))
        destination.begin()


WAYS = ["down", "ejected", "draining", "removed", "full"]


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("mode", [COOKIE, {"header": "x-tenant"}], ids=["cookie", "header"])
def test_affinity_redistributes_what_cannot_be_served(how: str, mode: dict[str, Any]) -> None:
    """The others serve; with a header it is always the same one."""
    bound = Bound(pool_of(4), **mode)
    scope: Scope = {"headers": [(b"x-tenant", b"acme")]}
    own = bound.pick(scope)
    assert own is not None
    if "cookie" in mode:
        scope = scope_of(bound.pair(own))
    _take_out(bound.pool, own, how)
    picks = bound.picks(scope)

    assert own not in picks
    assert len(picks) == (3 if "cookie" in mode else 1)


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("mode", [COOKIE, {"header": "x-tenant"}], ids=["cookie", "header"])
def test_affinity_fails_where_no_other_will_do(how: str, mode: dict[str, Any]) -> None:
    """No destination; except that a header falls on another one after a removal."""
    bound = Bound(pool_of(4), **mode, on_missing="fail")
    scope: Scope = {"headers": [(b"x-tenant", b"acme")]}
    own = bound.pick(scope)
    assert own is not None
    if "cookie" in mode:
        scope = scope_of(bound.pair(own))
    _take_out(bound.pool, own, how)
    if how == "removed" and "header" in mode:
        assert bound.pick(scope) in bound.pool.destinations
        return

    assert bound.pick(scope) is None


@pytest.mark.parametrize("on_missing", ["redistribute", "fail"])
def test_affinity_gives_the_clients_own_destination_as_full(on_missing: str) -> None:
    """The caller reports it, whether another one serves or none."""
    bound = Bound(pool_of(2), **COOKIE, on_missing=on_missing)
    first, second = bound.pool.destinations
    scope = scope_of(bound.pair(first))
    _take_out(bound.pool, first, "full")
    request = RequestKey(scope, lambda scope: None)
    bound.policy.pick(bound.pool.available)  # the second one's turn, or the first one's
    picked, full = bound.affinity.select(bound.policy, bound.pool, request)

    assert picked is (second if on_missing == "redistribute" else None)
    assert tuple(full) == (first,)


def test_affinity_stays_in_panic() -> None:
    """When none is available the client's own is as good as any."""
    bound = Bound(pool_of(2), **COOKIE, on_missing="fail")
    first = bound.pool.destinations[0]
    for destination in bound.pool.destinations:
        bound.pool.set_health(destination, False)

    assert bound.picks(scope_of(bound.pair(first))) == {first}


def test_affinity_tries_another_destination_after_a_failure() -> None:
    """Redistributing, a retry goes elsewhere; failing, the dispatcher decides."""
    moving = Bound(pool_of(2))
    fixed = Bound(pool_of(2), **COOKIE, on_missing="fail")
    first, second = moving.pool.destinations
    own = fixed.pool.destinations[0]

    assert moving.pick(scope_of(moving.pair(first)), (first,)) is second
    assert fixed.pick(scope_of(fixed.pair(own)), (own,)) is None


def test_affinity_by_header_spreads_and_barely_moves() -> None:
    """Values fall on all; when one destination goes only its values move."""
    bound = Bound(pool_of(5), header="X-Tenant")
    scopes: list[Scope] = [{"headers": [(b"x-tenant", b"%d" % n)]} for n in range(500)]
    before = [bound.pick(scope) for scope in scopes]
    gone = bound.pool.destinations[2]
    bound.pool.drain(gone)
    after = [bound.pick(scope) for scope in scopes]

    assert {before.count(one) > 40 for one in bound.pool.destinations} == {True}
    assert all((now is was) == (was is not gone) for was, now in zip(before, after, strict=True))
    assert bound.affinity.binding.strip([(b"x-tenant", b"1")]) == [(b"x-tenant", b"1")]
    assert bound.affinity.binding.remember(scopes[0], b"", gone) == []


def test_affinity_by_header_keeps_to_the_first_tier_that_can_serve() -> None:
    """The reserve serves when the first tier cannot, each value at one place there too."""
    pool = Pool("billing", [settings_of(at, tier=at // 2) for at in range(4)], panic=True)
    bound = Bound(pool, header="x-tenant")
    scopes: list[Scope] = [{"headers": [(b"x-tenant", b"%d" % n)]} for n in range(100)]
    first = {bound.pick(scope) for scope in scopes}
    for destination in pool.destinations[:2]:
        pool.drain(destination)
    spilled = [bound.pick(scope) for scope in scopes]

    assert first == set(pool.destinations[:2])
    assert set(spilled) == set(pool.destinations[2:])
    assert [bound.pick(scope) for scope in scopes] == spilled


def test_affinity_by_header_does_not_follow_slow_start() -> None:
    """Lesser weights for a while move no value, not even when the pool changes meanwhile."""
    pool = pool_of(3)
    bound = Bound(pool, header="x-tenant")
    scopes: list[Scope] = [{"headers": [(b"x-tenant", b"%d" % n)]} for n in range(100)]
    before = [bound.pick(scope) for scope in scopes]
    pool.replace([one.settings for one in pool.destinations])
    pool.set_weight(pool.destinations[0], 0.1)

    assert [bound.pick(scope) for scope in scopes] == before


def test_affinity_by_header_leaves_others_to_the_policy() -> None:
    """A request without the header is anybody's."""
    bound = Bound(pool_of(3), header="x-tenant")

    assert bound.picks({"headers": [(b"x-other", b"1")]}) == set(bound.pool.destinations)


# -- on real sockets ------------------------------------------------------------------------


def _named(name: bytes) -> ScriptedOrigin:
    return ScriptedOrigin(always(answer(body=name)))


def _cookie_of(reply: Answer) -> bytes:
    cookie = reply.one(b"set-cookie")
    assert cookie is not None
    return cookie.partition(b";")[0]


async def _again(gate: Gateway, before: Answer) -> Answer:
    """The client comes back with the cookie it was given."""
    headers = [(b"Cookie", _cookie_of(before))]
    return await fetch(gate.address, target="/billing/x", headers=headers)


@pytest.mark.parametrize("policy", ["round_robin", "hash"])
async def test_affinity_over_http(policy: str) -> None:
    """The first answer brings the cookie, the next ones need none, nothing of it goes up."""
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
    """Another gateway with the same key knows the cookie."""
    async with _named(b"one") as one, _named(b"two") as two:
        async with gateway(one.url, two.url, affinity=COOKIE) as gate:
            first = await fetch(gate.address, target="/billing/x")
        async with gateway(two.url, one.url, policy="round_robin", affinity=COOKIE) as gate:
            stays = [await _again(gate, first) for _ in range(4)]

    assert {reply.body for reply in stays} == {first.body}


async def test_affinity_moves_with_a_new_cookie_when_its_destination_drains() -> None:
    """The client is told where it belongs now."""
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
    """With ``on_missing=fail`` that client waits, others are served."""
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
    """Health does not know yet; the retry goes elsewhere and the cookie with it."""
    dead = f"http://127.0.0.1:{dead_port()}"
    async with (
        _named(b"one") as one,
        gateway(dead, one.url, policy="first", affinity=COOKIE) as gate,
    ):
        binding = gate.balancer._assembly.http._binding
        assert binding is not None
        ((_, cookie),) = binding.remember(scope_of(), b"", gate.balancer.destinations[0])
        pair = cookie.partition(b";")[0]
        reply = await fetch(gate.address, target="/billing/x", headers=[(b"Cookie", pair)])

    assert (reply.status, reply.body) == (200, b"one")
    assert _cookie_of(reply) != pair


async def test_affinity_over_websocket_handshakes() -> None:
    """The 101 brings the cookie; with it a client stays, and nothing of it goes up."""
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
            cookie = (client.answer.one(b"set-cookie") or b"").decode()
            first = await client.recv()
        stays, repeated = set(), set()
        for _ in range(4):
            headers = [(b"Cookie", f"a=1; {cookie.partition(';')[0]}".encode())]
            async with open_websocket(gate.address, "/billing/x", headers) as client:
                stays.add(await client.recv())
                repeated.add(client.answer.one(b"set-cookie"))

    assert cookie.endswith("; Path=/billing; HttpOnly; SameSite=Lax")
    assert isinstance(first, str)
    assert first.endswith(" None")
    assert stays == {f"{first.split()[0]} a=1"}
    assert repeated == {None}


async def test_affinity_cookie_comes_with_a_refused_handshake() -> None:
    """A login page behind a 401 is stateful as well."""
    async with (
        ScriptedOrigin(always(answer(401, b"who?"))) as origin,
        gateway(origin.url, affinity=COOKIE) as gate,
        connect(gate.address) as client,
    ):
        refusal = await shake_hands(client, "/billing/x")

    assert refusal.status == 401
    assert (refusal.one(b"set-cookie") or b"").startswith(b"stay=")
