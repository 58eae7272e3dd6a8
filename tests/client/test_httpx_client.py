"""The httpx client of an upstream: the API of httpx over our pool and transports."""

from __future__ import annotations

import asyncio
import gc
import gzip
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from fastapi_proxy_di import (
    ProxyError,
)
from tests.client.upstreams import in_flight, pieces, running, silent
from tests.support.gateways import until
from tests.support.origins import Connection, ScriptedOrigin, always, chunk, response_bytes


async def test_client_adds_no_headers_of_its_own() -> None:
    """Path and query byte for byte, httpx's headers, no forwarding headers, no Via."""
    async with ScriptedOrigin() as origin, running(origin.url + "/base") as balancer:
        reply = await balancer.client.get(
            "/a%2Fb//c;d?x=1&x=%20", headers=[("X-Two", "1"), ("X-Two", "2")]
        )

    assert (reply.status_code, reply.text) == (200, "ok")
    sent = origin.request
    assert sent.target == b"/base/a%2Fb//c;d?x=1&x=%20"
    assert sent.one(b"host") == origin.authority.encode()
    assert sent.all(b"x-two") == [b"1", b"2"]
    assert sent.names == [b"host", b"accept", b"accept-encoding", b"user-agent", b"x-two", b"x-two"]


async def test_client_sets_the_headers_of_the_settings() -> None:
    """The app's own forwarding headers are kept."""
    async with (
        ScriptedOrigin() as origin,
        running(origin.url, request_headers={"x-key": "s3cret"}) as balancer,
    ):
        await balancer.client.get("/", headers={"x-key": "mine", "x-forwarded-for": "10.1.1.1"})

    assert origin.request.all(b"x-key") == [b"s3cret"]
    assert origin.request.all(b"x-forwarded-for") == [b"10.1.1.1"]


async def test_client_sends_a_host_that_the_caller_chose() -> None:
    """A Host other than the upstream's name is sent."""
    async with ScriptedOrigin() as origin, running(origin.url) as balancer:
        await balancer.client.get("/", headers={"host": "tenant.example"})

    assert origin.request.one(b"host") == b"tenant.example"


async def test_client_takes_absolute_urls_below_its_base_url() -> None:
    """SDKs build absolute URLs."""
    async with ScriptedOrigin() as origin, running(origin.url) as balancer:
        url = f"{balancer.client.base_url}v1/x"
        await balancer.client.get(url)

    assert (url, origin.request.target) == ("http://billing/v1/x", b"/v1/x")


@pytest.mark.parametrize(
    "url", ["http://other/", "https://billing/", "http://billing:81/", "http://127.0.0.1/"]
)
async def test_client_reaches_no_other_authority(url: str) -> None:
    """No request leaves the pool."""
    async with ScriptedOrigin() as origin, running(origin.url) as balancer:
        with pytest.raises(httpx.UnsupportedProtocol, match="'billing'"):
            await balancer.client.get(url)

    assert origin.requests == []


async def test_client_follows_no_redirect() -> None:
    """The location of a redirect may be another host."""
    moved = response_bytes(302, headers=[(b"Location", b"http://other/")])
    async with ScriptedOrigin(always(moved)) as origin, running(origin.url) as balancer:
        reply = await balancer.client.get("/")

    assert (reply.status_code, len(origin.requests)) == (302, 1)


async def test_client_keeps_no_cookies() -> None:
    """A cookie of one user is never sent for another."""
    setting = response_bytes(headers=[(b"Set-Cookie", b"session=ada; Path=/")])
    async with ScriptedOrigin(always(setting)) as origin, running(origin.url) as balancer:
        first = await balancer.client.get("/")
        await balancer.client.get("/")
        with pytest.raises(RuntimeError, match="'cookie' header"):
            balancer.client.cookies.set("session", "bob")
        await balancer.client.get("/", headers={"cookie": "session=eve"})

    assert first.cookies["session"] == "ada"
    assert [one.all(b"cookie") for one in origin.requests] == [[], [], [b"session=eve"]]


async def test_client_refuses_a_path_that_climbs() -> None:
    """Encoded dot segments lead above the base path."""
    async with ScriptedOrigin() as origin, running(origin.url + "/base") as balancer:
        with pytest.raises(httpx.LocalProtocolError) as raised:
            await balancer.client.get("/x/%2e%2e/%2e%2e/admin")

    assert isinstance(raised.value.__cause__, ProxyError)
    assert origin.requests == []


async def test_client_sends_bytes_with_their_length() -> None:
    """Content of known length is sent with its length."""
    async with ScriptedOrigin() as origin, running(origin.url) as balancer:
        await balancer.client.post("/", content=b"hello")
        await balancer.client.post("/")

    assert [one.body for one in origin.requests] == [b"hello", b""]
    assert [one.one(b"content-length") for one in origin.requests] == [b"5", b"0"]


async def test_client_corrects_a_length_that_does_not_fit() -> None:
    """Else bytes could be taken for the next request."""
    async with ScriptedOrigin() as origin, running(origin.url) as balancer:
        await balancer.client.post("/", content=b"hello", headers={"content-length": "2"})
        await balancer.client.post("/", content=b"hey", headers={"transfer-encoding": "chunked"})

    assert [one.body for one in origin.requests] == [b"hello", b"hey"]
    assert [one.one(b"content-length") for one in origin.requests] == [b"5", b"3"]


async def test_client_streams_a_body_in_chunks() -> None:
    """A stream without a length is chunked, one with a length is not."""
    async with ScriptedOrigin() as origin, running(origin.url) as balancer:
        await balancer.client.post("/", content=pieces(b"a" * 10, b"", b"b" * 5))
        await balancer.client.post("/", content=pieces(b"abc"), headers={"content-length": "3"})

    assert [one.body for one in origin.requests] == [b"a" * 10 + b"b" * 5, b"abc"]
    assert [one.chunked for one in origin.requests] == [True, False]


async def test_client_frames_a_stream_that_has_no_framing() -> None:
    """A request built by hand may name neither length nor coding."""
    async with ScriptedOrigin() as origin, running(origin.url) as balancer:
        client = balancer.client
        request = client.build_request("POST", "/", content=pieces(b"abc"))
        del request.headers["transfer-encoding"]
        await client.send(request)

    assert (origin.request.chunked, origin.request.body) == (True, b"abc")


async def test_client_waits_for_100_continue() -> None:
    """The body is sent when the upstream asks for it."""
    asked: list[int] = []

    async def script(connection: Connection) -> None:
        received = await connection.read_head()
        asked.append(connection.reader._buffer.__len__())  # type: ignore[attr-defined]
        await connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await connection.read_body(received)
        await connection.send(response_bytes(body=b"ok"))

    async with ScriptedOrigin(script) as origin, running(origin.url) as balancer:
        reply = await balancer.client.put("/", content=b"x", headers={"expect": "100-continue"})

    assert (reply.text, asked, origin.request.body) == ("ok", [0], b"x")


async def test_client_stops_an_upload_that_a_response_ends() -> None:
    """The caller gets a refusal although the body has no end."""

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 1000
            await asyncio.sleep(0)

    async def refuse(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(response_bytes(413, headers=[(b"Connection", b"close")]))
        await connection.peer_left()

    async with ScriptedOrigin(refuse) as origin, running(origin.url) as balancer:
        reply = await balancer.client.post("/", content=endless())
        await origin.all_left()
        left = in_flight(balancer)

    assert (reply.status_code, left) == (413, 0)


async def test_client_raises_the_error_of_the_body() -> None:
    """The caller gets the exception of its own generator."""

    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise LookupError("no more")

    async with ScriptedOrigin() as origin, running(origin.url) as balancer:
        with pytest.raises(LookupError, match="no more"):
            await balancer.client.post("/", content=broken())
        left = in_flight(balancer)
        failures = balancer.destinations[0].failures

    assert (left, failures) == (0, 0)


@pytest.mark.parametrize("streamed", [False, True])
async def test_client_respects_the_limit_of_bodies(streamed: bool) -> None:
    """The upstream's limits apply to the app's own calls."""
    content: Any = pieces(b"x" * 11) if streamed else b"x" * 11
    async with (
        ScriptedOrigin() as origin,
        running(origin.url, limits={"max_body_bytes": 10}) as balancer,
    ):
        with pytest.raises(httpx.LocalProtocolError, match="larger than 10"):
            await balancer.client.post("/", content=content)
        assert in_flight(balancer) == 0


async def test_client_streams_a_response() -> None:
    """Each piece arrives before the next is sent."""
    go_on = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await connection.send(chunk(b"one"))
        await go_on.wait()
        await connection.send(chunk(b"two") + chunk(b""))

    seen = []
    async with ScriptedOrigin(script) as origin, running(origin.url) as balancer:
        async with balancer.client.stream("GET", "/") as reply:
            busy = in_flight(balancer)
            async for piece in reply.aiter_raw():
                seen.append(piece)
                go_on.set()
        free = in_flight(balancer)

    assert (seen, busy, free) == ([b"one", b"two"], 1, 0)


async def test_client_decodes_an_encoded_response() -> None:
    """Content-Encoding is kept, so httpx's decoders work."""
    packed = response_bytes(body=gzip.compress(b"hello"), headers=[(b"Content-Encoding", b"gzip")])
    async with ScriptedOrigin(always(packed)) as origin, running(origin.url) as balancer:
        reply = await balancer.client.get("/")

    assert (reply.text, reply.headers["content-encoding"]) == ("hello", "gzip")


async def test_client_reuses_connections_and_gives_head_no_body() -> None:
    """Two calls one after the other share a connection."""
    length = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"
    async with ScriptedOrigin(always(length)) as origin, running(origin.url) as balancer:
        first = await balancer.client.head("/")
        await balancer.client.head("/")

    assert (first.content, first.headers["content-length"]) == (b"", "7")
    assert (origin.connections, len(origin.requests)) == (1, 2)


async def test_client_frees_a_response_that_is_closed_early() -> None:
    """Leaving a stream ends the upstream's side at once."""

    async def endless(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"x")
        )
        await connection.peer_left()

    async with ScriptedOrigin(endless) as origin, running(origin.url) as balancer:
        async with balancer.client.stream("GET", "/") as reply:
            assert reply.status_code == 200
        await origin.all_left()
        assert in_flight(balancer) == 0


async def test_client_frees_a_response_that_is_never_closed() -> None:
    """A dropped response keeps neither its connection nor its count."""

    async def endless(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
        await connection.peer_left()

    async with ScriptedOrigin(endless) as origin, running(origin.url) as balancer:
        request = balancer.client.build_request("POST", "/", content=pieces(b"x"))
        reply = await balancer.client.send(request, stream=True)
        # Long enough for the exchange to be watched, so that there is more to clean up.
        await until(lambda: any("client of" in t.get_name() for t in asyncio.all_tasks()))
        del reply, request
        gc.collect()
        await origin.all_left()
        assert in_flight(balancer) == 0


async def test_client_call_that_is_cancelled_ends_the_exchange() -> None:
    """The upstream's side is closed, and no failure is counted."""
    async with ScriptedOrigin(silent) as origin, running(origin.url) as balancer:
        call = asyncio.create_task(balancer.client.get("/"))
        await until(lambda: origin.requests)
        await until(lambda: any("client of" in t.get_name() for t in asyncio.all_tasks()))
        call.cancel()
        await asyncio.wait((call,))
        await origin.all_left()
        state = (in_flight(balancer), balancer.destinations[0].failures)

    assert (call.cancelled(), state) == (True, (0, 0))


async def test_client_is_one_and_survives_being_closed() -> None:
    """SDKs close the client that they get; others still use it."""
    async with ScriptedOrigin() as origin, running(origin.url) as balancer:
        client = balancer.client
        async with client as entered:
            await entered.get("/")
        await client.aclose()
        reply = await balancer.client.get("/")
        same = balancer.client is client

    assert (same, reply.status_code) == (True, 200)
    with pytest.raises(RuntimeError, match="closed"):
        await client.get("/")


async def test_client_has_httpx_auth_and_hooks() -> None:
    """Event hooks and auth of httpx work."""
    seen: list[int] = []

    async def hook(reply: httpx.Response) -> None:
        seen.append(reply.status_code)

    async with ScriptedOrigin() as origin, running(origin.url) as balancer:
        balancer.client.event_hooks = {"response": [hook]}
        await balancer.client.get("/", auth=("ada", "s3cret"))

    assert seen == [200]
    assert origin.request.one(b"authorization") == b"Basic YWRhOnMzY3JldA=="


async def test_client_requests_are_hashed_like_any_other() -> None:
    """The policy ``hash`` keeps one path on one destination."""
    async with (
        ScriptedOrigin() as one,
        ScriptedOrigin() as two,
        running(one.url, two.url, policy="hash", hash_key="path") as balancer,
    ):
        for _ in range(6):
            await balancer.client.get("/same")

    assert sorted([len(one.requests), len(two.requests)]) == [0, 6]


async def test_client_requests_are_hedged_like_any_other() -> None:
    """A second copy of a slow request goes to another destination, and its response is used."""
    async with (
        ScriptedOrigin(silent) as slow,
        ScriptedOrigin() as quick,
        running(slow.url, quick.url, policy="first", retries={"hedge_after": 0.02}) as balancer,
    ):
        reply = await balancer.client.get("/")
        await slow.all_left()
        left = in_flight(balancer)

    assert (reply.text, len(slow.requests), left) == ("ok", 1, 0)
