"""``proxy_router(fallback=...)``: requests that one upstream fails go to a second one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pytest
from fastapi import FastAPI, Response
from fastapi.testclient import TestClient

from fastapi_proxy_di import (
    Balancer,
    ForwardOptions,
    SettingsError,
    Upstream,
    UpstreamSettings,
    proxy_router,
)
from tests.support.gateways import Gateway, billing, gateway_app
from tests.support.http_client import RawResponse, fetch
from tests.support.origins import Connection, Headers, ScriptedOrigin, always, response_bytes
from tests.support.servers import dead_port
from tests.websocket.gateways import serving

pytestmark = pytest.mark.e2e


class Archive(UpstreamSettings, name="archive"):
    """Settings of the second upstream."""


def archive(url: str) -> Archive:
    """Settings of the second upstream with one destination."""
    return Archive(destinations=[url])


def with_fallback(
    first: str, second: str, router: dict[str, Any] | None = None, **settings: Any
) -> FastAPI:
    """Build an app whose mount has a second upstream."""
    arguments = {"fallback": archive(second), **(router or {})}
    return gateway_app(first, router=arguments, **settings)


async def ask(
    gateway: Gateway,
    method: str = "GET",
    body: bytes | None = None,
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> RawResponse:
    """Send a request through the gateway."""
    return await fetch(gateway.address, method, "/billing/x?q=1", list(headers), body)


async def closes(connection: Connection) -> None:
    """Read a request, and close without a response."""
    await connection.read_request()


def answering(status: int) -> ScriptedOrigin:
    """An origin that responds with a status."""
    return ScriptedOrigin(always(response_bytes(status, b"first")))


def none_left() -> str:
    """An address where nothing listens."""
    return f"http://127.0.0.1:{dead_port()}"


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_request_that_could_not_be_sent_goes_to_the_second(method: str) -> None:
    """Whatever its method, as the client sent it and below the same mount."""
    body = bytes(200_000) if method == "POST" else None
    async with ScriptedOrigin() as second:
        app = with_fallback(none_left(), second.url, request_headers={"X-First": "secret"})
        async with serving(app) as gateway:
            reply = await ask(gateway, method, body)

    request = second.request
    assert reply.status == 200
    assert (request.method, request.target) == (method.encode(), b"/x?q=1")
    assert request.one(b"x-forwarded-prefix") == b"/billing"
    assert request.all(b"x-first") == []
    assert request.body == (body or b"")


@pytest.mark.parametrize("status", [502, 503, 504])
@pytest.mark.parametrize(
    ("method", "headers", "goes"),
    [
        ("GET", [], True),
        ("POST", [(b"Idempotency-Key", b"k")], True),
        ("POST", [], False),
    ],
)
async def test_response_of_a_listed_status_is_replaced(
    status: int, method: str, headers: Headers, goes: bool
) -> None:
    """If the request may be sent twice; its body is sent again."""
    body = b"hello" if method == "POST" else None
    async with (
        answering(status) as first,
        ScriptedOrigin() as second,
        serving(with_fallback(first.url, second.url, retries={"attempts": 0})) as gateway,
    ):
        reply = await ask(gateway, method, body, headers)
        assert gateway.in_flight == 0

    assert first.request.body == (body or b"")
    assert reply.status == (200 if goes else status)
    assert [one.body for one in second.requests] == ([body or b""] if goes else [])


async def test_request_without_an_available_destination_goes_to_the_second() -> None:
    """Here because the only one drains."""
    async with (
        ScriptedOrigin() as first,
        ScriptedOrigin() as second,
        serving(with_fallback(first.url, second.url)) as gateway,
    ):
        await gateway.balancer.drain(first.url)
        reply = await ask(gateway, "POST", b"hello")

    assert reply.status == 200
    assert (len(first.requests), second.request.body) == (0, b"hello")


@pytest.mark.parametrize(("method", "goes"), [("GET", True), ("POST", False)])
async def test_request_that_was_sent_goes_to_the_second_if_it_may_be_sent_twice(
    method: str, goes: bool
) -> None:
    """The destination closed without a response."""
    async with (
        ScriptedOrigin(closes) as first,
        ScriptedOrigin() as second,
        serving(with_fallback(first.url, second.url, retries={"attempts": 0})) as gateway,
    ):
        reply = await ask(gateway, method, b"hello" if method == "POST" else None)

    assert reply.status == (200 if goes else 502)
    assert len(second.requests) == goes


async def test_status_that_means_not_done_needs_no_repeatable_method() -> None:
    """``retries.refused_statuses`` says so."""
    async with (
        answering(503) as first,
        ScriptedOrigin() as second,
        serving(
            with_fallback(first.url, second.url, retries={"attempts": 0, "refused_statuses": [503]})
        ) as gateway,
    ):
        reply = await ask(gateway, "POST", b"hello")

    assert (reply.status, second.request.body) == (200, b"hello")


async def test_body_that_is_not_kept_goes_nowhere_else() -> None:
    """The client gets the response of the first upstream, or its failure."""
    key = [(b"Idempotency-Key", b"k")]
    async with answering(503) as first, ScriptedOrigin(closes) as closing:
        async with ScriptedOrigin() as second:
            for origin, status in ((first, 503), (closing, 502)):
                async with serving(with_fallback(origin.url, second.url)) as gateway:
                    reply = await ask(gateway, "POST", bytes(200_000), key)
                assert reply.status == status
        assert second.requests == []


async def test_refusals_of_ours_stay() -> None:
    """A limit and a body that is too large are no failures of the upstream."""
    async with ScriptedOrigin() as first, ScriptedOrigin() as second:
        app = with_fallback(first.url, second.url, limits={"max_body_bytes": 3}, max_requests=1)
        async with serving(app) as gateway:
            assert (await ask(gateway, "POST", b"hello")).status == 413
            assert (await ask(gateway)).status == 200
            assert (await ask(gateway)).status == 503

    assert second.requests == []


async def test_other_statuses_stay() -> None:
    """Those that are not listed; a list may name others."""
    async with answering(500) as first, ScriptedOrigin() as second:
        async with serving(with_fallback(first.url, second.url)) as gateway:
            assert (await ask(gateway)).status == 500
        other = with_fallback(first.url, second.url, {"fallback_on": "500-599"})
        async with serving(other) as gateway:
            assert (await ask(gateway)).status == 200
        async with serving(with_fallback(none_left(), second.url, {"fallback_on": "500"})) as only:
            assert (await ask(only)).status == 502


async def test_response_of_the_second_is_the_last_one() -> None:
    """Its failures too: there is one step."""
    async with answering(503) as first, answering(404) as second:
        async with serving(with_fallback(first.url, second.url)) as gateway:
            assert (await ask(gateway)).status == 404
        async with serving(with_fallback(first.url, none_left())) as gateway:
            reply = await ask(gateway)

    assert reply.status == 502
    assert reply.one(b"content-type") == b"application/problem+json"


async def test_options_hold_for_the_second_too() -> None:
    """Except where they send the request to one destination alone."""

    async def chosen(to: str | None = None) -> ForwardOptions:
        return ForwardOptions(headers={"x-tenant": "a"}, destination=to)

    async with answering(503) as first, ScriptedOrigin() as second:
        app = with_fallback(
            first.url,
            second.url,
            {"options": chosen},
            allowed_destinations={"networks": ["127.0.0.0/8"]},
        )
        async with serving(app) as gateway:
            reply = await ask(gateway)
            alone = await fetch(gateway.address, target=f"/billing/x?to={first.url}")

    assert (reply.status, second.request.one(b"x-tenant")) == (200, b"a")
    assert alone.status == 503


async def test_request_for_one_destination_of_the_pool_goes_to_no_other() -> None:
    """Neither after a response that is listed, nor where it drains."""

    async def chosen(to: str | None = None) -> ForwardOptions:
        return ForwardOptions(destination=to)

    async with answering(503) as first, ScriptedOrigin() as second:
        app = with_fallback(first.url, second.url, {"options": chosen})
        async with serving(app) as gateway:
            target = f"/billing/x?to={first.url}"
            alone = await fetch(gateway.address, target=target)
            await gateway.balancer.drain(first.url)
            drained = await fetch(gateway.address, target=target)

    assert (alone.status, alone.body) == (503, b"first")
    assert drained.status == 503
    assert (len(first.requests), second.requests) == (1, [])


async def test_record_names_both(caplog: pytest.LogCaptureFixture) -> None:
    """That of the second upstream says where the request came from."""
    async with answering(503) as first, ScriptedOrigin() as second:
        with caplog.at_level(logging.INFO, "fastapi_proxy_di.access"):
            async with serving(with_fallback(first.url, second.url)) as gateway:
                await ask(gateway)

    records = [one.__dict__ for one in caplog.records if one.name == "fastapi_proxy_di.access"]
    named = [(one["upstream"], one["status"], one["fallback_from"]) for one in records]
    assert named == [("billing", 503, None), ("archive", 200, "billing")]


async def test_stand_ins_of_tests_are_used() -> None:
    """In place of the first upstream, and of the second."""

    class Double:
        """Has the public names that a test needs."""

        async def forward(self, request: object, path: str) -> Response:
            return Response(path)

    async with answering(503) as first:
        app = with_fallback(first.url, none_left())
        app.dependency_overrides[Upstream("archive")] = Double
        async with serving(app) as gateway:
            assert (await ask(gateway)).body == b"/x"
        async with Balancer.from_settings(billing(first.url)) as balancer:
            app.dependency_overrides[Upstream("billing")] = lambda: balancer
            async with serving(app) as gateway:
                assert (await fetch(gateway.running.address, target="/billing/y")).body == b"/y"


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"fallback": "billing"}, "billing cannot be the fallback of itself"),
        ({"fallback": "archive", "http": False}, "only HTTP requests have one"),
        ({"fallback": "archive", "fallback_on": "502,down"}, "fallback_on: 'down' is not"),
        ({"fallback": "archive", "fallback_on": "200"}, "below 400"),
        ({"fallback": "archive", "fallback_on": ""}, "fallback_on"),
    ],
)
def test_fault_is_found_where_the_router_is_made(arguments: dict[str, Any], fault: str) -> None:
    """With the name of the argument."""
    with pytest.raises(ValueError, match=fault):
        proxy_router("billing", **arguments)


def test_circle_is_a_fault_at_start() -> None:
    """Of any length, although a request takes one step."""
    app = FastAPI()
    for one, other in (("a", "b"), ("b", "c"), ("c", "a")):
        settings = type(one, (UpstreamSettings,), {}, name=one)(destinations=["http://a"])
        app.include_router(proxy_router(settings, fallback=other), prefix=f"/{one}")

    fault = "the fallback of 'a' is 'b', which leads back to 'a'"
    with pytest.raises(SettingsError, match=fault), TestClient(app):
        pass
