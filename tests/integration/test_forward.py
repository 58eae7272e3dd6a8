"""``Balancer.forward``: the effect of each argument, and its limits.

Long because each argument has tests of what it sends and of what it refuses.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from fastapi import Depends, FastAPI, Request, Response
from starlette.background import BackgroundTask

from fastapi_proxy_di import Balancer, ProxiedResponse, Upstream, UpstreamTimeout, proxy_lifespan
from tests.support.gateways import billing, until
from tests.support.http_client import RawResponse, connect, fetch, request
from tests.support.origins import Connection, Headers, ScriptedOrigin, always, chunk, response_bytes
from tests.support.servers import run_app

pytestmark = pytest.mark.e2e


Endpoint = Callable[[Balancer, Request], Awaitable[Response]]
_METHODS = ["GET", "POST", "PUT", "DELETE", "HEAD"]


def _app(url: str, endpoint: Endpoint, **settings: Any) -> FastAPI:
    """Make an app whose every path is served by ``endpoint``."""
    app = FastAPI(lifespan=proxy_lifespan, openapi_url=None)
    upstream = Upstream(billing(url, **settings))

    @app.api_route("/{path:path}", methods=_METHODS)
    async def everything(request: Request, balancer: Balancer = Depends(upstream)) -> Response:
        return await endpoint(balancer, request)

    return app


def _forwarding(*args: Any, **kwargs: Any) -> Endpoint:
    """Make an endpoint that forwards with these arguments."""

    async def endpoint(balancer: Balancer, request: Request) -> Response:
        return await balancer.forward(request, *args, **kwargs)

    return endpoint


async def _exchange(
    origin: ScriptedOrigin,
    endpoint: Endpoint,
    method: str = "GET",
    target: str = "/x",
    headers: Headers | None = None,
    body: bytes | None = None,
    **server: Any,
) -> RawResponse:
    async with run_app(_app(origin.url, endpoint), **server) as running:
        return await fetch(running.address, method, target, headers or [], body)


@pytest.mark.parametrize("target", ["/", "/x", "/a%2Fb//c;d?q=%20", "/caf%C3%A9", "/a/..b"])
async def test_path_of_none_is_the_raw_path(target: str) -> None:
    """An ordinary route sends its raw path."""
    async with ScriptedOrigin() as origin:
        await _exchange(origin, _forwarding(), target=target)

    assert origin.request.target == target.encode()


async def test_path_of_none_is_below_root_path() -> None:
    """The server's root_path is not sent."""
    async with ScriptedOrigin() as origin:
        await _exchange(origin, _forwarding(), target="/a%2Fb", root_path="/api")

    assert origin.request.target == b"/a%2Fb"


@pytest.mark.parametrize("path", ["/v2/pay", "/", "/a%2Fb//c;d", "/caf%C3%A9"])
async def test_given_path_is_sent_as_it_is(path: str) -> None:
    """It is percent-encoded already, so nothing is encoded."""
    async with ScriptedOrigin() as origin:
        await _exchange(origin, _forwarding(path), target="/pay")

    assert origin.request.target == path.encode()


@pytest.mark.parametrize(
    ("path", "target", "arguments", "sent"),
    [
        ("/y", "/x?a=1&a=2", {}, "/y?a=1&a=2"),
        ("/y?b=3", "/x?a=1", {}, "/y?b=3&a=1"),
        ("/y?b=3", "/x", {}, "/y?b=3"),
        ("/y", "/x?a=1", {"forward_query": False}, "/y"),
        ("/y?b=3", "/x?a=1", {"forward_query": False}, "/y?b=3"),
        (None, "/x?a=1", {"forward_query": False}, "/x"),
    ],
)
async def test_query_of_the_path_comes_first(
    path: str | None, target: str, arguments: dict[str, Any], sent: str
) -> None:
    """The client's own query follows, unless it is left out."""
    async with ScriptedOrigin() as origin:
        await _exchange(origin, _forwarding(path, **arguments), target=target)

    assert origin.request.target == sent.encode()


async def _raised(
    origin: ScriptedOrigin, kind: type[Exception], *args: Any, **kwargs: Any
) -> Exception:
    """Give the exception of ``forward``; the origin must get no request."""
    caught: list[Exception] = []

    async def endpoint(balancer: Balancer, request: Request) -> Response:
        with pytest.raises(kind) as info:
            await balancer.forward(request, *args, **kwargs)
        caught.append(info.value)
        return Response("raised")

    reply = await _exchange(origin, endpoint)

    assert reply.body == b"raised"
    assert origin.connections == 0
    return caught[0]


@pytest.mark.parametrize(
    "path",
    ["", "x", "http://other.example/", "/a b", "/a\r\nX-Evil: 1", "/a\nb", "/caf\xe9", "/a\x00b"],
)
async def test_path_that_is_no_path_is_a_value_error(path: str) -> None:
    """The caller gets it, and no failure of the destination is counted."""
    async with ScriptedOrigin() as origin:
        await _raised(origin, ValueError, path)


@pytest.mark.parametrize("path", ["//other.example/x", "/@other.example", "/:80"])
async def test_path_never_changes_the_authority(path: str) -> None:
    """Any path goes to our destination."""
    async with ScriptedOrigin() as origin:
        await _exchange(origin, _forwarding(path))

    assert origin.request.target == path.encode()
    assert origin.request.one(b"host") == origin.authority.encode()


async def test_method_is_replaced() -> None:
    """``method`` is sent instead of the client's; the body stays."""
    async with ScriptedOrigin() as origin:
        await _exchange(origin, _forwarding(method="PATCH"), "POST", body=b"hello")

    assert (origin.request.method, origin.request.body) == (b"PATCH", b"hello")


@pytest.mark.parametrize("length", [b"", b"Content-Length: 42\r\n"])
async def test_head_by_method_has_no_body(length: bytes) -> None:
    """A GET forwarded as HEAD gives only the head, without a length."""
    head = b"HTTP/1.1 200 OK\r\nX-A: 1\r\n" + length + b"\r\n"
    async with ScriptedOrigin(always(head)) as origin:
        reply = await _exchange(origin, _forwarding(method="HEAD"))

    assert origin.request.method == b"HEAD"
    assert (reply.status, reply.one(b"x-a"), reply.body) == (200, b"1", b"")
    assert reply.whole


@pytest.mark.parametrize(
    "headers",
    [
        {"x-tenant": "acme"},
        {"X-Tenant": "acme"},
        {b"x-tenant": b"acme"},
        [("x-tenant", "acme")],
        [(b"X-Tenant", b"acme")],
    ],
)
async def test_additional_headers_set_by_name(headers: Any) -> None:
    """What the client sent under that name is removed, so that it cannot be forged."""
    forged = [(b"X-Tenant", b"evil"), (b"x-tenant", b"evil"), (b"X-TENANT", b""), (b"x-a", b"1")]
    async with ScriptedOrigin() as origin:
        await _exchange(origin, _forwarding(additional_headers=headers), headers=forged)

    assert origin.request.all(b"x-tenant") == [b"acme"]
    assert origin.request.all(b"x-a") == [b"1"]


async def test_additional_headers_may_repeat() -> None:
    """Pairs of one name are all sent, in order."""
    pairs = [("x-role", "reader"), ("x-role", "writer")]
    async with ScriptedOrigin() as origin:
        await _exchange(
            origin, _forwarding(additional_headers=pairs), headers=[(b"x-role", b"root")]
        )

    assert origin.request.all(b"x-role") == [b"reader", b"writer"]


async def test_additional_header_cannot_be_nominated_away() -> None:
    """The client's Connection only names its own headers."""
    nominated = [(b"Connection", b"X-Tenant"), (b"X-Tenant", b"evil")]
    async with ScriptedOrigin() as origin:
        await _exchange(
            origin, _forwarding(additional_headers={"x-tenant": "acme"}), headers=nominated
        )

    assert origin.request.all(b"x-tenant") == [b"acme"]


async def test_override_headers_replace_all() -> None:
    """The gateway's own headers stay; additional headers are added."""
    async with ScriptedOrigin() as origin:
        await _exchange(
            origin,
            _forwarding(override_headers={"x-only": "1"}, additional_headers={"x-more": "2"}),
            "POST",
            headers=[(b"Authorization", b"secret"), (b"Cookie", b"a=1"), (b"X-Only", b"0")],
            body=b"hello",
        )

    names = set(origin.request.names)
    assert origin.request.all(b"x-only") == [b"1"]
    assert origin.request.all(b"x-more") == [b"2"]
    assert not names & {b"authorization", b"cookie"}
    assert {b"host", b"content-length", b"x-forwarded-for"} <= names
    assert origin.request.body == b"hello"


@pytest.mark.parametrize("argument", ["additional_headers", "override_headers"])
@pytest.mark.parametrize(
    "name",
    [
        "Host",
        "content-length",
        "Transfer-Encoding",
        "Connection",
        "Keep-Alive",
        "Upgrade",
        "TE",
        "Proxy-Connection",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "Forwarded",
    ],
)
async def test_naming_a_header_of_ours_is_a_value_error(name: str, argument: str) -> None:
    """Host, framing, hop-by-hop and forwarding headers."""
    async with ScriptedOrigin() as origin:
        error = await _raised(origin, ValueError, **{argument: {name: "1"}})

    assert name.lower() in str(error).lower()


@pytest.mark.parametrize("argument", ["additional_headers", "override_headers"])
@pytest.mark.parametrize(
    "pair",
    [
        ("x-a", "1\r\nX-Evil: 1"),
        ("x-a", "1\n"),
        ("x-a", "\x00"),
        ("x a", "1"),
        ("x-a:", "1"),
        ("", "1"),
    ],
)
async def test_malformed_header_argument_is_a_value_error(
    pair: tuple[str, str], argument: str
) -> None:
    """Else a header could split the request."""
    async with ScriptedOrigin() as origin:
        await _raised(origin, ValueError, **{argument: [pair]})


@pytest.mark.parametrize(
    ("body", "sent", "media_type"),
    [
        (b"raw", b"raw", None),
        (b"", b"", None),
        ("caf\xe9", "caf\xe9".encode(), b"text/plain; charset=utf-8"),
        ({"a": 1}, b'{"a":1}', b"application/json"),
        ([1, None], b"[1,null]", b"application/json"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_override_body_is_sent_with_its_length(
    body: Any, sent: bytes, media_type: bytes | None, method: str
) -> None:
    """Instead of the client's; a type is added if the caller gives none."""
    async with ScriptedOrigin() as origin:
        reply = await _exchange(
            origin, _forwarding(override_body=body), method, body=b"a much longer body"
        )

    assert reply.status == 200
    assert origin.request.body.replace(b" ", b"") == sent.replace(b" ", b"")
    assert origin.request.one(b"content-length") == str(len(origin.request.body)).encode()
    assert not origin.request.chunked
    if media_type is not None:
        assert (origin.request.one(b"content-type") or b"").split(b";")[0] == media_type.split(
            b";"
        )[0]


async def test_override_body_replaces_a_chunked_upload() -> None:
    """The client's framing is dropped, and its connection stays usable."""
    async with (
        ScriptedOrigin() as origin,
        run_app(_app(origin.url, _forwarding(override_body=b"ours"))) as running,
        connect(running.address) as client,
    ):
        for _ in range(2):
            await client.send(
                request("POST", "/x", [(b"Transfer-Encoding", b"chunked")])
                + chunk(b"theirs")
                + chunk(b"")
            )
            reply = await client.read_response()
            assert reply.status == 200

    assert [seen.body for seen in origin.requests] == [b"ours", b"ours"]
    assert [seen.chunked for seen in origin.requests] == [False, False]


async def test_override_body_keeps_a_given_type() -> None:
    """A content-type that is there stays."""
    arguments = {"override_body": {"a": 1}, "additional_headers": {"content-type": "x/y"}}
    async with ScriptedOrigin() as origin:
        await _exchange(origin, _forwarding(**arguments), "POST", body=b"x")

    assert origin.request.all(b"content-type") == [b"x/y"]


async def test_override_host_is_sent() -> None:
    """``override_host`` only changes the Host header."""
    async with ScriptedOrigin() as origin:
        await _exchange(origin, _forwarding(override_host="shop.example"))

    assert origin.request.all(b"host") == [b"shop.example"]


async def test_timeout_replaces_the_total() -> None:
    """``timeout`` limits the whole exchange."""
    caught: list[UpstreamTimeout] = []

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.peer_left()

    async def endpoint(balancer: Balancer, request: Request) -> Response:
        with pytest.raises(UpstreamTimeout) as info:
            await balancer.forward(request, timeout=0.1)
        caught.append(info.value)
        return Response("late")

    async with ScriptedOrigin(script) as origin:
        reply = await _exchange(origin, endpoint)
        await origin.all_left()

    assert reply.body == b"late"
    assert caught[0].status == 504


async def test_response_can_be_read_and_changed() -> None:
    """``forward`` returns at the head, so the caller may read status and headers."""

    async def endpoint(balancer: Balancer, request: Request) -> Response:
        response = await balancer.forward(request)
        response.headers["x-seen"] = response.headers["x-a"]
        return response

    raw = response_bytes(
        201, b"made", [(b"X-A", b"1"), (b"Set-Cookie", b"a"), (b"Set-Cookie", b"b")]
    )
    async with ScriptedOrigin(always(raw)) as origin:
        reply = await _exchange(origin, endpoint)

    assert (reply.status, reply.body, reply.one(b"x-seen")) == (201, b"made", b"1")
    assert reply.all(b"set-cookie") == [b"a", b"b"]


async def _endless_404(connection: Connection) -> None:
    """Respond 404 with a body that never ends."""
    await connection.read_request()
    await connection.send(b"HTTP/1.1 404 X\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"x"))
    await connection.peer_left()


@pytest.mark.parametrize("closes", [False, True])
async def test_response_that_is_not_returned_is_closed(closes: bool) -> None:
    """At the end of the request at the latest, for example after a fallback on 404."""
    in_flight: list[int] = []

    async def endpoint(balancer: Balancer, request: Request) -> Response:
        response = await balancer.forward(request)
        assert response.status_code == 404
        assert isinstance(response, ProxiedResponse)
        if closes:
            await response.aclose()
        in_flight.append(sum(d.in_flight for d in balancer.destinations))
        return Response("fallen back")

    async with ScriptedOrigin(_endless_404) as origin:
        app = _app(origin.url, endpoint)
        async with run_app(app) as running:
            for _ in range(5):
                reply = await fetch(running.address, target="/x")
                assert reply.body == b"fallen back"
            await origin.all_left()
            balancer = Upstream("billing").of(app)
            await until(lambda: sum(d.in_flight for d in balancer.destinations) == 0)

    assert in_flight == ([0] * 5 if closes else [1] * 5)


async def test_response_is_closed_when_the_endpoint_raises() -> None:
    """Also after ``forward``."""

    async def endpoint(balancer: Balancer, request: Request) -> Response:
        await balancer.forward(request)
        raise RuntimeError("after all")

    async with ScriptedOrigin(_endless_404) as origin:
        reply = await _exchange(origin, endpoint)
        await origin.all_left()

    assert reply.status == 500


async def test_two_upstream_calls_in_one_endpoint() -> None:
    """The first response may be dropped for a second one."""

    async def endpoint(balancer: Balancer, request: Request) -> Response:
        response = await balancer.forward(request, "/first")
        assert response.status_code == 200
        return await balancer.forward(request, "/second")

    async with ScriptedOrigin() as origin:
        reply = await _exchange(origin, endpoint)

    assert reply.status == 200
    assert [seen.target for seen in origin.requests] == [b"/first", b"/second"]


async def test_disconnect_gives_an_empty_499(caplog: pytest.LogCaptureFixture) -> None:
    """No exception and no traceback."""
    arrived, returned = asyncio.Event(), asyncio.Event()
    statuses: list[int] = []

    async def script(connection: Connection) -> None:
        await connection.read_request()
        arrived.set()
        await connection.peer_left()

    def noted(response: Response) -> Response:
        statuses.append(response.status_code)
        returned.set()
        return response

    async def endpoint(balancer: Balancer, request: Request) -> Response:
        # In one line: CPython 3.11 traces no further line of a coroutine in such a case.
        return noted(await balancer.forward(request))

    async with (
        ScriptedOrigin(script) as origin,
        run_app(_app(origin.url, endpoint)) as running,
        connect(running.address) as client,
    ):
        await client.send(request(target="/x"))
        await arrived.wait()
        client.close()
        await asyncio.wait_for(returned.wait(), 10)
        await origin.all_left()

    assert statuses == [499]
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []


async def test_background_task_runs_after_the_response() -> None:
    """As on any response of an endpoint."""
    done: list[int] = []

    async def endpoint(balancer: Balancer, request: Request) -> Response:
        response = await balancer.forward(request)
        response.background = BackgroundTask(done.append, response.status_code)
        return response

    async with ScriptedOrigin() as origin:
        reply = await _exchange(origin, endpoint)

    assert (reply.status, done) == (200, [200])


async def test_headers_may_be_replaced_whole() -> None:
    """An endpoint may assign ``raw_headers``, as it may ``status_code``."""

    async def endpoint(balancer: Balancer, request: Request) -> Response:
        response = await balancer.forward(request)
        response.raw_headers = [(b"content-length", b"2"), (b"x-own", b"yes")]
        return response

    async with ScriptedOrigin() as origin, run_app(_app(origin.url, endpoint)) as running:
        reply = await fetch(running.address, target="/x")

    assert (reply.one(b"x-own"), reply.body) == (b"yes", b"ok")
