"""Requests that an HTTP/2 destination says it has not processed, sent again by the gateway."""

from __future__ import annotations

import pytest
from h2.errors import ErrorCodes

from fastapi_proxy_di import Balancer, ProxyError
from fastapi_proxy_di.errors import Failure
from fastapi_proxy_di.forwarding.retries import MAX_REFUSALS
from tests.support.gateways import billing
from tests.transport.http2.peer import Peer, respond_to_all, scripted

_STRICT = {"consecutive": 1}


async def refuse(peer: Peer) -> None:
    """Refuse every request."""
    while True:
        stream, _ = await peer.request()
        peer.h2.reset_stream(stream, ErrorCodes.REFUSED_STREAM)
        peer.flush()


async def test_refused_post_goes_to_another_connection_without_counting() -> None:
    """RFC 9113 section 8.7: REFUSED_STREAM; no attempt and no budget is used, nobody ejected."""

    async def script(peer: Peer) -> None:
        await (refuse if len(peers) == 1 else respond_to_all)(peer)

    async with (
        scripted(script) as (url, peers),
        Balancer.from_settings(
            billing(
                url,
                "http://127.0.0.1:1",
                policy="first",
                http_version="2",
                ejection=_STRICT,
                retries={"attempts": 0},
            )
        ) as balancer,
    ):
        reply = await balancer.client.post("/x", content=b"body")
        available = len(balancer.available)

    assert (reply.status_code, reply.content, len(peers), available) == (200, b"ok", 2, 2)


async def test_refusal_leaves_the_attempts_for_other_retries() -> None:
    """A refused GET that then gets a listed status is still tried elsewhere."""

    async def script(peer: Peer) -> None:
        if len(peers) == 1:
            await refuse(peer)
        stream, _ = await peer.request()
        peer.respond(stream, 503)
        peer.send(stream, b"", end=True)

    async with (
        scripted(script) as (url, peers),
        scripted(respond_to_all) as (other, _),
        Balancer.from_settings(
            billing(
                url,
                other,
                policy="first",
                http_version="2",
                retries={"attempts": 1, "statuses": [503], "backoff": 0},
            )
        ) as balancer,
    ):
        reply = await balancer.client.get("/x")

    assert (reply.status_code, len(peers)) == (200, 2)


async def test_destination_that_refuses_twice_is_left_for_another() -> None:
    """The first refusal may be the end of a connection; the second one is about the destination."""
    async with (
        scripted(refuse) as (bad, refused),
        scripted(respond_to_all) as (good, _),
        Balancer.from_settings(
            billing(bad, good, policy="first", http_version="2", ejection=_STRICT)
        ) as balancer,
    ):
        reply = await balancer.client.post("/x", content=b"body")
        available = len(balancer.available)

    assert (reply.content, len(refused), available) == (b"ok", 2, 2)


async def test_destination_that_refuses_for_ever_ends_the_request() -> None:
    """The number of connections is bounded, and the failure is clear."""
    async with (
        scripted(refuse) as (url, peers),
        Balancer.from_settings(billing(url, http_version="2")) as balancer,
    ):
        with pytest.raises(ProxyError, match="before it processed the request") as raised:
            await balancer.client.post("/x", content=b"body")

    assert raised.value.failure is Failure.NOT_PROCESSED
    assert len(peers) == 1 + MAX_REFUSALS


async def test_refusal_after_the_head_is_a_cut_response() -> None:
    """A destination that has responded has processed the request."""

    async def script(peer: Peer) -> None:
        stream, _ = await peer.request()
        peer.respond(stream)
        peer.h2.reset_stream(stream, ErrorCodes.REFUSED_STREAM)
        peer.flush()
        await peer.left()

    async with (
        scripted(script) as (url, peers),
        Balancer.from_settings(billing(url, http_version="2")) as balancer,
    ):
        with pytest.raises(ProxyError) as raised:
            await balancer.client.get("/x")

    assert (raised.value.failure, len(peers)) == (Failure.RESPONSE_BODY, 1)
