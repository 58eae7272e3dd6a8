"""``Max-Forwards``: the gateway's own response at 0, and requests that ignore it."""

from typing import Any

import pytest
from fastapi import Depends

from tests.support.gateways import gateway
from tests.support.http_client import fetch
from tests.support.origins import ScriptedOrigin

pytestmark = pytest.mark.e2e


INCLUDES: list[dict[str, Any]] = [{}, {"dependencies": [Depends(lambda: None)]}]


@pytest.mark.parametrize("include", INCLUDES)
async def test_trace_at_zero_reflects_the_request_without_secrets(include: dict[str, Any]) -> None:
    """RFC 9110 section 9.3.8: ``message/http``, without sensitive headers."""
    async with ScriptedOrigin() as origin, gateway(origin.url, include=include) as gate:
        reply = await fetch(
            gate.address,
            "TRACE",
            "/billing/a%2Fb?c=%20",
            [
                (b"Max-Forwards", b"0"),
                (b"Via", b"1.1 first"),
                (b"Authorization", b"s3cret"),
                (b"Cookie", b"s3cret"),
                (b"X-Key", b"s3cret"),
                (b"Via", b"1.1 second"),
            ],
        )

    assert (reply.status, reply.one(b"content-type")) == (200, b"message/http")
    assert reply.body == (
        b"TRACE /billing/a%2Fb?c=%20 HTTP/1.1\r\n"
        b"host: gateway.test\r\n"
        b"max-forwards: 0\r\n"
        b"via: 1.1 first\r\n"
        b"via: 1.1 second\r\n"
        b"\r\n"
    )
    assert origin.connections == 0


@pytest.mark.parametrize("include", INCLUDES)
async def test_options_at_zero_gets_an_empty_response(include: dict[str, Any]) -> None:
    """RFC 9110 section 9.3.7 asks for a length of 0."""
    async with ScriptedOrigin() as origin, gateway(origin.url, include=include) as gate:
        reply = await fetch(gate.address, "OPTIONS", "/billing/x", [(b"Max-Forwards", b"00")])

    assert (reply.status, reply.one(b"content-length"), reply.body) == (200, b"0", b"")
    assert origin.connections == 0


async def test_trace_without_a_query_reflects_none() -> None:
    """The request line is reflected byte for byte."""
    async with ScriptedOrigin() as origin, gateway(origin.url) as gate:
        reply = await fetch(gate.address, "TRACE", "/billing", [(b"Max-Forwards", b"0")])
    assert reply.body.startswith(b"TRACE /billing HTTP/1.1\r\n")


@pytest.mark.parametrize("value", [b"-1", b"1.5", b"many", b"", b"9" * 30])
async def test_invalid_max_forwards_is_forwarded(value: bytes) -> None:
    """A value that is not a number is forwarded unchanged."""
    async with ScriptedOrigin() as origin, gateway(origin.url) as gate:
        await fetch(gate.address, "OPTIONS", "/billing/x", [(b"Max-Forwards", value)])
    assert origin.request.one(b"max-forwards") == value


async def test_max_forwards_of_the_apps_own_request_is_kept() -> None:
    """An app that calls its upstream is the sender, not a hop."""
    async with ScriptedOrigin() as origin, gateway(origin.url) as gate:
        await gate.balancer.client.options("/x", headers={"max-forwards": "0"})
    assert origin.request.one(b"max-forwards") == b"0"
