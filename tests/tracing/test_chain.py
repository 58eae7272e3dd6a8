"""One tree of spans for a request through two gateways, whatever happens to the request."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.http_client import Ending, connect, fetch, request
from tests.support.websocket_client import open_websocket
from tests.tracing.chain import Carrier, Chain, Span, Trace, chain

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncIterator[Chain]:
    """Run the chain once for all tests of the module."""
    async with chain() as started:
        yield started


def gateways(upstream: str, *below: str, name: str = "GET") -> list[str]:
    """Give the tree of a request through both gateways; ``below`` the server span of the second."""
    return [
        f"front server {name} /m/{{path}}",
        "  front client GET",
        f"    middle server {name} /{upstream}/{{path}}",
        *(f"      {line}" for line in below),
    ]


def shown(span: Span, *names: str) -> list[object]:
    """Give attributes of a span, ``None`` for those that it has not."""
    return [span.attributes.get(name) for name in names]


def check_durations(trace: Trace) -> None:
    """No span of a gateway outlives its parent."""
    assert trace.outliving() == []


async def test_success(running: Chain) -> None:
    """Five spans, with the attributes of the conventions and ours."""
    client = Carrier()
    target = "/m/plain/echo?sig=secret&s%69g=secret&page=1"
    got = await fetch(running.front.address, target=target, headers=client.headers)

    trace = await running.trace(
        client, gateways("plain", "middle client GET", "  origin server GET /echo")
    )
    check_durations(trace)
    (attempt,) = trace.of("middle")
    url = f"{running.origin.url}/echo?sig=REDACTED&s%69g=REDACTED&page=1"
    assert attempt.attributes == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "proxy.destination": running.origin.url,
        "proxy.pick": "power_of_two_choices",
        "proxy.upstream": "plain",
        "server.address": "127.0.0.1",
        "server.port": running.origin.port,
        "url.full": url,
    }
    assert not attempt.error
    assert got.json()["traceparent"] == f"00-{attempt.trace}-{attempt.id}-01"


async def test_retry_elsewhere(running: Chain) -> None:
    """A refused connection, a 503 and the response are three spans, in order."""
    client = Carrier()
    got = await fetch(running.front.address, target="/m/elsewhere/echo", headers=client.headers)
    assert got.status == 200

    trace = await running.trace(
        client,
        gateways(
            "elsewhere",
            "middle client GET",
            "middle client GET",
            "  origin server GET /status/{status}/{path}",
            "middle client GET",
            "  origin server GET /echo",
        ),
    )
    check_durations(trace)
    attempts = trace.of("middle")
    names = ("http.request.resend_count", "http.response.status_code", "error.type")
    assert [shown(one, *names) for one in attempts] == [
        [None, None, "connect"],
        [1, 503, "503"],
        [2, 200, None],
    ]
    assert [one.error for one in attempts] == [True, True, False]
    assert [one.links for one in attempts] == [[], [], []]
    assert attempts[0].end <= attempts[1].start <= attempts[1].end <= attempts[2].start


async def test_hedged_copy_links_to_the_first(running: Chain) -> None:
    """The slow attempt is given up without an error; the copy has its link."""
    client = Carrier()
    got = await fetch(running.front.address, target="/m/hedged/echo", headers=client.headers)
    assert got.status == 200

    trace = await running.trace(
        client,
        gateways(
            "hedged",
            "middle client GET",
            "  origin server GET /slow/{path}",
            "middle client GET",
            "  origin server GET /echo",
        ),
    )
    check_durations(trace)
    first, copy = trace.of("middle")
    assert (first.links, copy.links) == ([], [first.id])
    assert shown(first, "error.type", "http.response.status_code") == ["cancelled", None]
    assert shown(copy, "error.type", "http.response.status_code") == [None, 200]
    assert [one.error for one in (first, copy)] == [False, False]


@pytest.mark.parametrize(
    ("upstream", "status", "failure", "below"),
    [("dead", 502, "connect", []), ("late", 504, "first_byte_timeout", ["slow"])],
)
async def test_failure_before_a_response(
    running: Chain, upstream: str, status: int, failure: str, below: list[str]
) -> None:
    """The attempt has the failure, and each gateway's spans the status."""
    client = Carrier()
    target = f"/m/{upstream}/x"
    got = await fetch(running.front.address, target=target, headers=client.headers)
    assert got.status == status

    origin = [f"  origin server GET /{name}/{{path}}" for name in below]
    trace = await running.trace(client, gateways(upstream, "middle client GET", *origin))
    check_durations(trace)
    (attempt,) = trace.of("middle")
    assert shown(attempt, "error.type", "http.response.status_code") == [failure, None]
    (outer,) = trace.of("front")
    assert shown(outer, "error.type", "http.response.status_code") == [str(status), status]
    assert (attempt.error, outer.error) == (True, True)


async def test_client_error_of_the_destination(running: Chain) -> None:
    """A 404 is an error of the client's spans, and none of the server's (RFC 9110's sides)."""
    client = Carrier()
    target = "/m/plain/status/404/x"
    await fetch(running.front.address, target=target, headers=client.headers)

    below = ("middle client GET", "  origin server GET /status/{status}/{path}")
    trace = await running.trace(client, gateways("plain", *below))
    (attempt,) = trace.of("middle")
    assert shown(attempt, "error.type", "http.response.status_code") == ["404", 404]
    assert attempt.error
    assert not any(span.error for span in trace.spans if span.kind == "SERVER")


async def test_websocket_is_one_span(running: Chain) -> None:
    """With the messages, the bytes and the reason of its end."""
    client = Carrier()
    target = "/m/plain/live"
    async with open_websocket(running.front.address, target, client.headers) as websocket:
        for text in ("one", "two"):
            await websocket.send(text)
            assert await websocket.recv() == text
        await websocket.close()

    below = ("middle client GET", "  origin server WS /live")
    trace = await running.trace(client, gateways("plain", *below, name="WS"))
    check_durations(trace)
    for service in ("front", "middle"):
        (tunnel,) = trace.of(service)
        ours = {
            name: value
            for name, value in tunnel.attributes.items()
            if name.startswith(("proxy.tunnel", "http.response", "error"))
        }
        assert ours == {
            "http.response.status_code": 101,
            "proxy.tunnel.end.reason": "client_closed",
            "proxy.tunnel.messages.up": 2,
            "proxy.tunnel.messages.down": 2,
            "proxy.tunnel.bytes.up": 6,
            "proxy.tunnel.bytes.down": 6,
        }
        assert not tunnel.error


async def test_stream_that_the_origin_cuts(running: Chain) -> None:
    """Both attempts have the failure of the body beside the status."""
    client = Carrier()
    got = await fetch(running.front.address, target="/m/plain/events/cut", headers=client.headers)
    assert (got.status, got.body, got.ending) == (200, b"data: 1\n\n", Ending.BROKEN)

    below = ("middle client GET", "  origin server GET /events/cut")
    trace = await running.trace(client, gateways("plain", *below))
    check_durations(trace)
    for service in ("front", "middle"):
        (attempt,) = trace.of(service)
        names = ("error.type", "http.response.status_code")
        assert shown(attempt, *names) == ["response_body", 200]
        assert attempt.error


async def test_client_that_leaves(running: Chain) -> None:
    """The spans of all three end, with the failure of the client's side."""
    client = Carrier()
    async with connect(running.front.address) as leaving:
        await leaving.send(request(target="/m/plain/events/endless", headers=client.headers))
        await leaving.read_head()
        await leaving.read_chunk()
        leaving.reset()

    below = ("middle client GET", "  origin server GET /events/endless")
    trace = await running.trace(client, gateways("plain", *below))
    check_durations(trace)
    for service in ("front", "middle"):
        (attempt,) = trace.of(service)
        names = ("error.type", "http.response.status_code")
        assert shown(attempt, *names) == ["client_disconnected", 200]


@pytest.mark.parametrize("library", ["client", "httpx2"])
async def test_call_within_a_request(running: Chain, library: str) -> None:
    """A call of the app itself is below the request's span."""
    client = Carrier()
    got = await fetch(running.front.address, target=f"/m/{library}", headers=client.headers)
    assert got.status == 200

    trace = await running.trace(
        client,
        [
            "front server GET /m/{path}",
            "  front client GET",
            f"    middle server GET /{library}",
            "      middle client GET",
            "        origin server GET /echo",
        ],
    )
    check_durations(trace)
    (attempt,) = trace.of("middle")
    assert attempt.attributes["url.full"] == f"{running.origin.url}/echo"


async def test_lease_within_a_request(running: Chain) -> None:
    """Sends nothing, so its span is an internal one, without a method and URL."""
    client = Carrier()
    await fetch(running.front.address, target="/m/lease", headers=client.headers)

    trace = await running.trace(
        client,
        [
            "front server GET /m/{path}",
            "  front client GET",
            "    middle server GET /lease",
            "      middle internal lease",
        ],
    )
    check_durations(trace)
    (lease,) = trace.of("middle", "INTERNAL")
    assert lease.attributes == {
        "proxy.destination": running.origin.url,
        "proxy.pick": "power_of_two_choices",
        "proxy.upstream": "plain",
        "server.address": "127.0.0.1",
        "server.port": running.origin.port,
    }


async def test_job_outside_of_requests(running: Chain) -> None:
    """Begins a trace of its own."""
    client = Carrier()
    got = await fetch(running.front.address, target="/m/job", headers=client.headers)
    _, trace_id, span_id, _ = got.json()["traceparent"].split("-")
    assert trace_id != client.trace

    def of_job(spans: list[Span]) -> Trace:
        return Trace([one for one in spans if one.trace == trace_id], "")

    trace = await running.until(of_job, ["middle client GET", "  origin server GET /echo"])
    assert trace.of("middle")[0].id == span_id


async def test_b3_as_the_global_propagator() -> None:
    """The same tree, and no other trace header than B3's."""
    client = Carrier("b3")
    async with chain("b3") as running:
        target = "/m/elsewhere/echo"
        got = await fetch(running.front.address, target=target, headers=client.headers)
        trace = await running.trace(
            client,
            gateways(
                "elsewhere",
                "middle client GET",
                "middle client GET",
                "  origin server GET /status/{status}/{path}",
                "middle client GET",
                "  origin server GET /echo",
            ),
        )

    last = trace.of("middle")[-1]
    assert got.json()["b3"] == f"{last.trace}-{last.id}-1"
    assert "traceparent" not in got.json()
