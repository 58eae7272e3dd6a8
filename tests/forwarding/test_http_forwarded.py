"""Forwarding headers describe the client, by the trust rule."""

from typing import Any

import pytest
from fastapi import APIRouter, FastAPI

from fastapi_proxy_di import proxy_router
from tests.support.gateways import billing, gateway
from tests.support.http_client import fetch
from tests.support.origins import Headers, Received, ScriptedOrigin
from tests.support.servers import run_app

pytestmark = pytest.mark.e2e


_FORGED: Headers = [
    (b"Forwarded", b"for=6.6.6.6;proto=https"),
    (b"X-Forwarded-For", b"6.6.6.6"),
    (b"x-forwarded-for", b"7.7.7.7"),
    (b"X-Forwarded-Proto", b"https"),
    (b"X-Forwarded-Host", b"forged.example"),
    (b"X-Forwarded-Prefix", b"/forged"),
    (b"X-Forwarded-Port", b"666"),
    (b"X-Forwarded-Server", b"forged"),
    (b"X-Real-IP", b"6.6.6.6"),
    (b"X_Forwarded_For", b"6.6.6.6"),
    (b"x-forwarded_host", b"forged.example"),
    (b"X_Real_IP", b"6.6.6.6"),
]


async def _seen(
    headers: Headers, *, server: dict[str, Any] | None = None, **forwarded: Any
) -> Received:
    """Give the headers that an origin gets of one GET through a gateway with these settings."""
    async with (
        ScriptedOrigin() as origin,
        gateway(origin.url, forwarded=forwarded, server=server) as gate,
    ):
        await fetch(gate.address, target="/billing/x", headers=headers)
    return origin.request


def _forwarding(received: Received) -> dict[bytes, bytes]:
    """Give the forwarding headers but Via; each may occur only once."""
    pairs = [
        (name.lower(), value)
        for name, value in received.headers
        if name.lower().replace(b"_", b"-").startswith((b"forwarded", b"x-forwarded", b"x-real"))
    ]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


_TRUE = {
    b"x-forwarded-for": b"127.0.0.1",
    b"x-forwarded-proto": b"http",
    b"x-forwarded-host": b"gateway.test",
    b"x-forwarded-prefix": b"/billing",
}


@pytest.mark.parametrize("headers", [[], _FORGED])
async def test_set_describes_the_connection(headers: Headers) -> None:
    """By default the client's own forwarding headers are ignored."""
    assert _forwarding(await _seen(headers)) == _TRUE


async def test_off_sends_no_forwarding_headers() -> None:
    """Not the client's either."""
    assert _forwarding(await _seen(_FORGED, mode="off")) == {}


async def test_append_replaces_headers_of_an_untrusted_peer() -> None:
    """Only peers in ``trusted_proxies`` are trusted."""
    seen = await _seen(_FORGED, mode="append", trusted_proxies=["10.0.0.0/8"])

    assert _forwarding(seen) == _TRUE


async def test_append_extends_a_trusted_peer_s_chain() -> None:
    """The trusted peer's client is first, the peer last."""
    seen = await _seen(
        [(b"X-Forwarded-For", b"1.2.3.4"), (b"X-Forwarded-For", b"5.6.7.8")],
        mode="append",
        trusted_proxies=["127.0.0.0/8"],
    )

    assert b", ".join(seen.all(b"x-forwarded-for")) == b"1.2.3.4, 5.6.7.8, 127.0.0.1"


@pytest.mark.parametrize(
    ("received", "sent"),
    [
        (b"", b"127.0.0.1"),
        (b" , ", b"127.0.0.1"),
        (b"1.2.3.4,", b"1.2.3.4, 127.0.0.1"),
        (b", 1.2.3.4", b"1.2.3.4, 127.0.0.1"),
    ],
)
async def test_append_sends_no_empty_element(received: bytes, sent: bytes) -> None:
    """RFC 9110 section 5.6.1.1: a sender generates none."""
    seen = await _seen(
        [(b"X-Forwarded-For", received)], mode="append", trusted_proxies=["127.0.0.0/8"]
    )

    assert seen.all(b"x-forwarded-for") == [sent]


async def test_chain_cannot_be_nominated_away() -> None:
    """``Connection`` of a trusted peer cannot remove the hops before it."""
    chain = [(b"X-Forwarded-For", b"1.2.3.4"), (b"Forwarded", b"for=1.2.3.4")]
    names = b"close, x-forwarded-for, X-Forwarded-Host, forwarded, x-forwarded-proto"
    seen = await _seen(
        [(b"Connection", names), *chain],
        mode="append",
        trusted_proxies=["127.0.0.0/8"],
        rfc7239=True,
    )

    assert seen.one(b"x-forwarded-for") == b"1.2.3.4, 127.0.0.1"
    assert (seen.one(b"forwarded") or b"").startswith(b"for=1.2.3.4, for=127.0.0.1")
    assert seen.one(b"x-forwarded-host") == b"gateway.test"
    assert seen.one(b"x-forwarded-proto") == b"http"


async def test_rfc7239_sends_forwarded() -> None:
    """``Forwarded`` has client, scheme and host."""
    value = _forwarding(await _seen(_FORGED, rfc7239=True))[b"forwarded"]

    parts = {part.strip().replace(b'"', b"") for part in value.split(b";")}
    assert {b"for=127.0.0.1", b"proto=http", b"host=gateway.test"} <= parts
    assert b"6.6.6.6" not in value


async def test_via_names_protocol_and_gateway() -> None:
    """RFC 9110 section 7.6.3: each proxy adds itself at the end."""
    seen = await _seen([(b"Via", b"1.0 fred")])

    entries = b", ".join(seen.all(b"via")).split(b", ")
    assert entries[0] == b"1.0 fred"
    assert entries[1].startswith(b"1.1 ")
    assert len(entries) == 2


async def test_via_can_be_left_out() -> None:
    """``via=false`` adds nothing and keeps the Via of earlier proxies."""
    seen = await _seen([(b"Via", b"1.0 fred")], via=False)

    assert seen.all(b"via") == [b"1.0 fred"]


async def test_prefix_has_root_path_and_mount() -> None:
    """The prefix of a link is the server's root_path followed by the mount."""
    seen = await _seen([], server={"root_path": "/api"})

    assert seen.one(b"x-forwarded-prefix") == b"/api/billing"


async def test_prefix_has_all_nested_includes() -> None:
    """The prefixes of all includes belong to the mount."""
    async with ScriptedOrigin() as origin:
        inner, outer, app = APIRouter(), APIRouter(prefix="/v1"), FastAPI()
        inner.include_router(proxy_router(billing(origin.url)), prefix="/billing")
        outer.include_router(inner, prefix="/shop")
        app.include_router(outer)
        async with run_app(app) as running:
            await fetch(running.address, target="/v1/shop/billing/x")

    assert origin.request.one(b"x-forwarded-prefix") == b"/v1/shop/billing"
    assert origin.request.target == b"/x"


async def test_prefix_has_the_parameters_of_the_mount() -> None:
    """A parameter has its raw value."""
    async with (
        ScriptedOrigin() as origin,
        gateway(origin.url, prefix="/{tenant}/billing") as gate,
    ):
        await fetch(gate.address, target="/ac%6De/billing/x")

    assert origin.request.target == b"/x"
    assert origin.request.one(b"x-forwarded-prefix") in (b"/ac%6De/billing", b"/acme/billing")


async def test_no_prefix_at_the_root() -> None:
    """A mount at the root sends no prefix."""
    async with ScriptedOrigin() as origin, gateway(origin.url, prefix="") as gate:
        await fetch(gate.address, target="/x")

    assert origin.request.target == b"/x"
    assert origin.request.one(b"x-forwarded-prefix") is None
