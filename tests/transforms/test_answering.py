"""A request transform that returns a ``Response`` responds by itself; nothing is sent."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import pytest
from fastapi.responses import JSONResponse, Response, StreamingResponse

from fastapi_proxy_di.transforms import OutboundRequest, OutboundResponse
from tests.support.gateways import gateway
from tests.support.http_client import connect, fetch
from tests.support.origins import ScriptedOrigin
from tests.support.websocket_client import shake_hands

pytestmark = pytest.mark.e2e


def only_reports(request: OutboundRequest) -> Response | None:
    """Refuse what is not below ``/reports``, and change what is."""
    if not request.path.startswith("/reports"):
        return JSONResponse({"detail": "no such report"}, 404, {"x-by": "transform"})
    request.headers["x-seen"] = "yes"
    return None


def later(request: OutboundRequest) -> None:
    """Mark a request; it does not run behind a transform that responds."""
    request.headers["x-later"] = "yes"


def stamp(response: OutboundResponse) -> None:
    """Mark a response of the upstream."""
    response.headers.append("x-stamp", "yes")


async def test_transform_responds_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    """With its own status, headers and body; other requests go on."""
    caplog.set_level(logging.INFO, "fastapi_proxy_di.access")
    arguments = {"transforms": [only_reports, later, stamp]}
    async with ScriptedOrigin() as origin, gateway(origin.url, router=arguments) as running:
        refused = await fetch(running.address, "POST", "/billing/x", body=b"hello")
        served = await fetch(running.address, target="/billing/reports/7")
        assert running.in_flight == 0

    assert (refused.status, refused.body) == (404, b'{"detail":"no such report"}')
    assert refused.one(b"x-by") == b"transform"
    assert refused.all(b"x-stamp") == []
    assert (served.status, served.one(b"x-stamp")) == (200, b"yes")
    assert [one.target for one in origin.requests] == [b"/reports/7"]
    assert origin.request.one(b"x-later") == b"yes"
    records = [one.__dict__ for one in caplog.records if one.name == "fastapi_proxy_di.access"]
    ends = [(one["status"], one["ended_by"], one["destination"]) for one in records]
    assert ends == [(404, "complete", None), (200, "complete", origin.url)]


async def test_response_may_be_a_stream() -> None:
    """As any response of Starlette."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"one "
        yield b"two"

    def streams(request: OutboundRequest) -> Response:
        return StreamingResponse(pieces())

    async with (
        ScriptedOrigin() as origin,
        gateway(origin.url, router={"transforms": [streams]}) as running,
    ):
        reply = await fetch(running.address, target="/billing/x")

    assert (reply.status, reply.body, origin.connections) == (200, b"one two", 0)


@pytest.mark.parametrize("server", [{}, {"ws": "wsproto"}])
async def test_handshake_is_refused_with_it(server: dict[str, str]) -> None:
    """Where the server can send a response; nothing is dialled."""
    arguments = {"transforms": [only_reports]}
    async with (
        ScriptedOrigin() as origin,
        gateway(origin.url, router=arguments, server=server) as running,
        connect(running.address) as client,
    ):
        refusal = await shake_hands(client, "/billing/live")

    assert (refusal.status, refusal.body) == (404, b'{"detail":"no such report"}')
    assert origin.connections == 0
