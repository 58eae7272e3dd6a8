"""How header names are written in requests to HTTP/1.1 destinations."""

import pytest

from tests.support.gateways import gateway
from tests.support.http_client import connect, fetch
from tests.support.origins import ScriptedOrigin
from tests.support.websocket_client import shake_hands

pytestmark = pytest.mark.e2e

_NAMES = {
    "lower": [b"host", b"x-request-id", b"content-length", b"x-forwarded-for"],
    "title": [b"Host", b"X-Request-Id", b"Content-Length", b"X-Forwarded-For"],
}


@pytest.mark.parametrize("case", _NAMES)
async def test_header_case_is_that_of_the_setting(case: str) -> None:
    """RFC 9110 section 5.1: names have no case, but some firmware compares bytes."""
    async with ScriptedOrigin() as origin, gateway(origin.url, header_case=case) as gate:
        reply = await fetch(
            gate.address, "POST", "/billing/x", [(b"X-REQUEST-id", b"UP and down")], b"body"
        )

    names = [name for name, _ in origin.request.headers]
    assert reply.status == 200
    assert set(_NAMES[case]) <= set(names)
    assert origin.request.one(b"x-request-id") == b"UP and down"


async def test_header_case_counts_for_handshakes() -> None:
    """The values stay as they are."""
    async with (
        ScriptedOrigin() as origin,
        gateway(origin.url, header_case="title") as gate,
        connect(gate.address) as client,
    ):
        await shake_hands(client, "/billing/live")

    assert (b"Upgrade", b"websocket") in origin.request.headers
    assert (b"Sec-Websocket-Version", b"13") in origin.request.headers
