"""``forwarded.mode=append`` needs the real peer; a server that replaces it is logged."""

import logging
from typing import Any

import pytest

from tests.support.gateways import gateway
from tests.support.http_client import fetch
from tests.support.origins import Headers, ScriptedOrigin

pytestmark = pytest.mark.e2e


_APPEND = {"mode": "append", "trusted_proxies": ["127.0.0.1"]}
_SAID: Headers = [(b"X-Forwarded-For", b"6.6.6.6")]


@pytest.mark.parametrize(
    ("proxy_headers", "headers", "forwarded", "warnings"),
    [
        (True, _SAID, _APPEND, 1),
        (True, [], _APPEND, 0),
        (False, _SAID, _APPEND, 0),
        (True, _SAID, {"mode": "set"}, 0),
    ],
)
async def test_replaced_peer_is_logged_once(
    proxy_headers: bool,
    headers: Headers,
    forwarded: dict[str, Any],
    warnings: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One WARNING for any number of requests; none for the real peer."""
    async with (
        ScriptedOrigin() as origin,
        gateway(origin.url, server={"proxy_headers": proxy_headers}, forwarded=forwarded) as gate,
    ):
        for _ in range(3):
            reply = await fetch(gate.address, target="/billing/x", headers=headers)
            assert reply.status == 200

    warned = [record for record in caplog.records if "port 0" in record.getMessage()]
    assert [record.levelno for record in warned] == [logging.WARNING] * warnings
    assert [record.__dict__["upstream"] for record in warned] == ["billing"] * warnings
    assert all("--no-proxy-headers" in record.getMessage() for record in warned)
