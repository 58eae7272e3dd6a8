"""Transforms of HTTP requests and responses, in exact bytes on both sides of a gateway.

Long because each transform is tested by the exact bytes on both sides.
"""

from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Request, Response

from fastapi_proxy_di import Balancer, ForwardOptions, Upstream, proxy_lifespan
from fastapi_proxy_di.transforms import (
    CookieDomain,
    CookiePath,
    LocationRewrite,
    MethodChange,
    OutboundRequest,
    OutboundResponse,
    PathPattern,
    PathPrefix,
    PathRemovePrefix,
    QueryParameter,
    RequestHeader,
    RequestHeaderRemove,
    RequestHeaderRouteValue,
    RequestHeadersAllowed,
    ResponseHeader,
    ResponseHeaderRemove,
    ResponseHeadersAllowed,
)
from tests.support.gateways import billing, gateway, gateway_app
from tests.support.http_client import Ending, RawResponse, fetch
from tests.support.origins import ScriptedOrigin, always, response_bytes
from tests.support.servers import run_app

pytestmark = pytest.mark.e2e


def add_tenant(request: OutboundRequest) -> None:
    """Change headers, path and query of a request."""
    request.headers["x-tenant"] = request.inbound.headers.get("x-api-key", "none")
    request.path = "/t" + request.path
    request.set_query("by", "function")


def stamp(response: OutboundResponse) -> None:
    """Add a header to a response."""
    response.headers.append("x-stamp", f"{response.status} {response.inbound.path}")


async def _head(
    target: str = "/billing/x", *pairs: tuple[bytes, bytes], method: str = "GET", **options: Any
) -> bytes:
    """Send one request through a gateway and give the head that reached the origin."""
    async with ScriptedOrigin() as origin, gateway(origin.url, **options) as gate:
        await fetch(gate.address, method, target, pairs)
    return origin.request.head.replace(origin.authority.encode(), b"ORIGIN")


async def _through_gateway(raw: bytes, **options: Any) -> RawResponse:
    async with ScriptedOrigin(always(raw)) as origin, gateway(origin.url, **options) as gate:
        return await fetch(gate.address, target="/billing/x")


async def test_settings_change_the_request_byte_for_byte() -> None:
    """Path, query, method and headers change, and nothing else."""
    head = await _head(
        "/billing/api/a%2Fb;c?q=%20&key=mine",
        (b"X-Drop", b"1"),
        (b"X-Keep", b"\xe4"),
        (b"X-Set", b"forged"),
        method="PUT",
        forwarded={"mode": "off", "via": False},
        transforms=[
            PathRemovePrefix(prefix="/api"),
            PathPrefix(prefix="/v2"),
            QueryParameter(name="key", set="s3 cret"),
            MethodChange(method="PUT", set="PATCH"),
            RequestHeaderRemove(name="x-drop"),
            RequestHeader(name="x-set", set="ours"),
            RequestHeader(name="x-keep", append="more"),
        ],
    )
    assert head == (
        b"PATCH /v2/a%2Fb;c?q=%20&key=s3%20cret HTTP/1.1\r\n"
        b"host: ORIGIN\r\n"
        b"x-keep: \xe4\r\n"
        b"x-set: ours\r\n"
        b"x-keep: more\r\n"
        b"content-length: 0\r\n"
        b"\r\n"
    )


@pytest.mark.parametrize("include", [{}, {"dependencies": [Depends(lambda: None)]}])
async def test_router_takes_functions(include: dict[str, Any]) -> None:
    """With and without dependencies; they run after the upstream's transforms."""
    async with (
        ScriptedOrigin() as origin,
        gateway(
            origin.url,
            router={"transforms": [add_tenant, stamp]},
            include=include,
            transforms=[PathPrefix(prefix="/v2")],
        ) as gate,
    ):
        reply = await fetch(
            gate.address, "POST", "/billing/x?a=1", [(b"X-Api-Key", b"acme")], b"body"
        )

    assert origin.request.target == b"/t/v2/x?a=1&by=function"
    assert origin.request.one(b"x-tenant") == b"acme"
    assert origin.request.body == b"body"
    assert (reply.body, reply.one(b"x-stamp")) == (b"ok", b"200 /x")


async def test_options_of_the_request_apply_after_transforms() -> None:
    """With options and without."""

    def options(request: Request) -> ForwardOptions:
        tenant = request.headers.get("x-choose")
        return ForwardOptions(headers={"x-tenant": tenant} if tenant else None)

    async with (
        ScriptedOrigin() as origin,
        gateway(origin.url, router={"transforms": [add_tenant, stamp], "options": options}) as gate,
    ):
        await fetch(gate.address, target="/billing/x", headers=[(b"X-Choose", b"chosen")])
        reply = await fetch(gate.address, target="/billing/x")

    assert [seen.one(b"x-tenant") for seen in origin.requests] == [b"chosen", b"none"]
    assert reply.one(b"x-stamp") == b"200 /x"


async def test_router_without_transforms_forwards_the_path_unchanged() -> None:
    """Without transforms of its upstream either."""
    app = FastAPI()
    async with (
        ScriptedOrigin() as origin,
        gateway(origin.url, app=app, prefix="/plain") as gate,
    ):
        await fetch(gate.address, target="/plain/x")
    assert origin.request.target == b"/x"


def test_router_refuses_an_unusable_transform() -> None:
    """When the router is made, not on a request."""

    async def waits(request: OutboundRequest) -> None:
        """Wait."""

    with pytest.raises(ValueError, match="waits is async"):
        gateway_app("http://127.0.0.1:1", router={"transforms": [waits]})


async def test_path_parameters_of_the_mount_are_used() -> None:
    """In the path they are encoded again, in a header too; the rest stays raw."""
    async with (
        ScriptedOrigin() as origin,
        gateway(
            origin.url,
            prefix="/{tenant}/billing",
            transforms=[
                PathPattern(pattern="/tenants/{tenant}/{path}"),
                RequestHeaderRouteValue(name="x-tenant", parameter="tenant"),
            ],
        ) as gate,
    ):
        await fetch(gate.address, target="/ac%20me/billing/a%2Fb//c")

    assert origin.request.target == b"/tenants/ac%20me/a%2Fb//c"
    assert origin.request.one(b"x-tenant") == b"ac%20me"
    assert origin.request.one(b"x-forwarded-prefix") == b"/ac%20me/billing"


@pytest.mark.parametrize(
    ("target", "transform"),
    [
        ("/billing/api/../x", PathRemovePrefix(prefix="/api")),
        ("/billing/api/%2e%2e/x", PathRemovePrefix(prefix="/api")),
    ],
)
async def test_path_that_climbs_out_of_a_transform_is_400(
    target: str, transform: PathRemovePrefix
) -> None:
    """No destination is dialled."""
    async with (
        ScriptedOrigin() as origin,
        gateway(origin.url, transforms=[transform, PathPrefix(prefix="/v2")]) as gate,
    ):
        reply = await fetch(gate.address, target=target)
    assert reply.status == 400
    assert origin.connections == 0


async def test_allowed_headers_keep_headers_set_by_the_proxy() -> None:
    """Framing, forwarding headers and ``request_headers`` stay."""
    async with (
        ScriptedOrigin() as origin,
        gateway(
            origin.url,
            request_headers={"x-key": "s3cret", "x-tenant": "settings"},
            transforms=[
                RequestHeadersAllowed(names="accept"),
                RequestHeader(name="x-tenant", set="transform"),
            ],
        ) as gate,
    ):
        await fetch(
            gate.address,
            "POST",
            "/billing/x",
            [(b"Accept", b"a/b"), (b"Cookie", b"c=1"), (b"X-Forwarded-For", b"198.51.100.1")],
            b"body",
        )

    assert origin.request.names == [
        b"host",
        b"accept",
        b"content-length",
        b"x-forwarded-for",
        b"x-forwarded-proto",
        b"x-forwarded-host",
        b"x-forwarded-prefix",
        b"via",
        b"x-key",
        b"x-tenant",
    ]
    assert origin.request.one(b"x-forwarded-for") == b"127.0.0.1"
    assert origin.request.one(b"x-tenant") == b"settings"
    assert origin.request.body == b"body"


async def test_connection_cannot_nominate_headers_set_by_transforms() -> None:
    """Nominated headers are removed before transforms run (RFC 9110 section 7.6.1)."""
    head = await _head(
        "/billing/x",
        (b"X-Tenant", b"forged"),
        (b"Connection", b"x-tenant"),
        transforms=[RequestHeader(name="x-tenant", set="ours")],
    )
    assert head.count(b"x-tenant") == 1
    assert b"x-tenant: ours\r\n" in head


async def test_removed_idempotency_key_prevents_retries() -> None:
    """The headers after transforms decide whether a request may be retried."""
    closing = always(response_bytes(status=503))
    async with (
        ScriptedOrigin(closing) as one,
        ScriptedOrigin(closing) as two,
        gateway(
            one.url,
            two.url,
            retries={"statuses": [503]},
            transforms=[RequestHeaderRemove(name="idempotency-key")],
        ) as gate,
    ):
        await fetch(gate.address, "POST", "/billing/x", [(b"Idempotency-Key", b"1")])
        assert len(one.requests) + len(two.requests) == 1
        await fetch(gate.address, "GET", "/billing/x")
        assert len(one.requests) + len(two.requests) == 3


async def test_changed_method_decides_about_retries() -> None:
    """A POST sent as GET is retried."""
    closing = always(response_bytes(status=503))
    async with (
        ScriptedOrigin(closing) as one,
        ScriptedOrigin(closing) as two,
        gateway(
            one.url,
            two.url,
            retries={"statuses": [503]},
            transforms=[MethodChange(method="POST", set="GET")],
        ) as gate,
    ):
        await fetch(gate.address, "POST", "/billing/x")
    assert [seen.method for seen in one.requests + two.requests] == [b"GET"] * 2


async def test_method_changed_to_head_sends_no_body() -> None:
    """The client gets no length of a body that does not come."""
    script = always(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
    async with (
        ScriptedOrigin(script) as origin,
        gateway(origin.url, transforms=[MethodChange(method="GET", set="HEAD")]) as gate,
    ):
        reply = await fetch(gate.address, target="/billing/x")
    assert (reply.status, reply.body, reply.ending) == (200, b"", Ending.LAST_CHUNK)


async def test_settings_change_the_response() -> None:
    """Cookies one by one, Location through the mount, headers by status."""
    raw = response_bytes(
        302,
        b"moved",
        [
            (b"Set-Cookie", b"a=1; Path=/; Domain=api.test"),
            (b"X-Powered-By", b"php"),
            (b"Location", b"/next?a=%2F"),
            (b"Set-Cookie", b"b=2;  Expires=Wed, 21 Oct 2026 07:28:00 GMT"),
        ],
    )
    reply = await _through_gateway(
        raw,
        transforms=[
            CookieDomain(),
            CookiePath(),
            LocationRewrite(),
            ResponseHeaderRemove(name="x-powered-by"),
            ResponseHeader(name="x-frame-options", set="DENY"),
            ResponseHeader(name="x-error", set="1", when="failure"),
        ],
    )
    assert reply.status == 302
    assert [pair for pair in reply.headers if pair[0] not in (b"date", b"server")] == [
        (b"set-cookie", b"a=1; Path=/billing"),
        (b"location", b"/billing/next?a=%2F"),
        (b"set-cookie", b"b=2;  Expires=Wed, 21 Oct 2026 07:28:00 GMT"),
        (b"content-length", b"5"),
        (b"x-frame-options", b"DENY"),
    ]
    assert reply.body == b"moved"


@pytest.mark.parametrize("preserve_host", [False, True])
async def test_location_with_the_destinations_address(preserve_host: bool) -> None:
    """An upstream names itself by the ``Host`` it got."""
    async with ScriptedOrigin() as origin:
        named = b"gateway.test" if preserve_host else origin.authority.encode()
        raw = response_bytes(301, headers=[(b"Location", b"http://" + named + b"/base/x")])
        async with (
            ScriptedOrigin(always(raw)) as redirecting,
            gateway(
                (redirecting if preserve_host else origin).url + "/base",
                preserve_host=preserve_host,
                transforms=[LocationRewrite()],
            ) as gate,
        ):
            origin._script = always(raw)
            reply = await fetch(gate.address, target="/billing/y")
    assert reply.one(b"location") == b"/billing/x"


async def test_response_headers_of_the_settings_apply_after_transforms() -> None:
    """No allow-list removes them, no transform doubles them."""
    reply = await _through_gateway(
        response_bytes(body=b"ok", headers=[(b"ETag", b"1")]),
        response_headers={"x-own": "settings"},
        transforms=[
            ResponseHeadersAllowed(names=()),
            ResponseHeader(name="x-own", append="transform"),
        ],
    )
    names = [name for name in reply.names if name not in (b"date", b"server")]
    assert names == [b"content-length", b"x-own"]
    assert reply.one(b"x-own") == b"settings"


async def test_affinity_cookie_is_not_rewritten() -> None:
    """Only cookies of the upstream are."""
    reply = await _through_gateway(
        response_bytes(body=b"ok", headers=[(b"Set-Cookie", b"a=1; Path=/")]),
        affinity={"cookie": "stay", "key": "k" * 32},
        transforms=[CookiePath(set="/changed")],
    )
    upstreams, ours = reply.all(b"set-cookie")
    assert upstreams == b"a=1; Path=/changed"
    assert b"/changed" not in ours


async def test_request_transform_that_raises_gives_500() -> None:
    """No destination is dialled."""

    def broken(request: OutboundRequest) -> None:
        request.headers["host"] = "evil.test"

    async with (
        ScriptedOrigin() as origin,
        gateway(origin.url, router={"transforms": [broken]}) as gate,
    ):
        reply = await fetch(gate.address, target="/billing/x")
    assert reply.status == 500
    assert origin.connections == 0


async def test_response_transform_that_raises_gives_500() -> None:
    """The exchange ends, and no failure is counted against the destination."""

    def broken(response: OutboundResponse) -> None:
        raise RuntimeError("broken")

    async with (
        ScriptedOrigin() as origin,
        gateway(origin.url, router={"transforms": [broken]}) as gate,
    ):
        reply = await fetch(gate.address, target="/billing/x")
        (destination,) = gate.balancer.destinations
        assert (gate.in_flight, destination.failures) == (0, 0)
    assert reply.status == 500


async def test_arguments_of_forward_apply_after_transforms() -> None:
    """The upstream's transforms apply to ``forward``, but not to ``client``."""
    async with ScriptedOrigin(always(response_bytes(body=b"ok"))) as origin:
        settings = billing(
            origin.url,
            transforms=[
                PathPrefix(prefix="/v2"),
                RequestHeader(name="x-a", set="transform"),
                RequestHeader(name="x-b", set="transform"),
                ResponseHeader(name="x-c", set="transform"),
            ],
        )
        app = FastAPI(lifespan=proxy_lifespan)
        dependency = Upstream(settings)

        @app.get("/pay")
        async def pay(
            request: Request, balancer: Annotated[Balancer, Depends(dependency)]
        ) -> Response:
            await balancer.client.get("/own")
            return await balancer.forward(
                request, "/pay?own=1", additional_headers={"x-b": "caller"}
            )

        async with run_app(app) as running:
            reply = await fetch(running.address, target="/pay?a=2", headers=[(b"X-B", b"client")])

    own, forwarded = origin.requests
    assert (own.target, own.one(b"x-a")) == (b"/own", None)
    assert forwarded.target == b"/v2/pay?own=1&a=2"
    assert (forwarded.one(b"x-a"), forwarded.one(b"x-b")) == (b"transform", b"caller")
    assert reply.one(b"x-c") == b"transform"
