"""A client's ``X_Key`` is no second ``X-Key`` to a WSGI app, which has one name for both."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest

from fastapi_proxy_di import ForwardOptions
from fastapi_proxy_di.transforms import OutboundRequest
from tests.support.gateways import gateway
from tests.support.http_client import fetch

pytestmark = pytest.mark.e2e


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # as the base has it
        """Log nothing."""


def _environ(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    start_response("200 OK", [("Content-Type", "application/json")])
    yield json.dumps({k: v for k, v in environ.items() if k.startswith("HTTP_")}).encode()


@contextlib.asynccontextmanager
async def wsgi_origin() -> AsyncIterator[str]:
    """Run Python's own WSGI server, whose app responds with the headers that it sees."""
    with make_server("127.0.0.1", 0, _environ, handler_class=_Silent) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            await asyncio.to_thread(server.shutdown)
            thread.join()


def _set_user(request: OutboundRequest) -> None:
    request.headers["X-User-Id"] = "ours"


def _options() -> ForwardOptions:
    return ForwardOptions(headers={"x-user-id": "ours"})


@pytest.mark.parametrize("spelling", [b"X_User_Id", b"x-user_id", b"X-User-Id"])
@pytest.mark.parametrize(
    ("settings", "router", "seen"),
    [
        ({"request_headers": {"X-User-Id": "ours"}}, {}, "ours"),
        ({"remove_request_headers": ["X-User-Id"]}, {}, None),
        (
            {"transforms": [{"kind": "request_header", "name": "X-User-Id", "set": "ours"}]},
            {},
            "ours",
        ),
        ({"transforms": [{"kind": "request_header_remove", "name": "X-User-Id"}]}, {}, None),
        ({"transforms": [{"kind": "request_headers_allowed", "names": ["accept"]}]}, {}, None),
        ({}, {"transforms": [_set_user]}, "ours"),
        ({}, {"options": _options}, "ours"),
    ],
)
async def test_client_cannot_send_a_header_of_the_gateway_with_underscores(
    settings: dict[str, Any], router: dict[str, Any], seen: str | None, spelling: bytes
) -> None:
    """Wherever the gateway sets or removes it."""
    async with wsgi_origin() as url, gateway(url, router=router, **settings) as gate:
        reply = await fetch(gate.address, target="/billing/x", headers=[(spelling, b"forged")])

    assert reply.json().get("HTTP_X_USER_ID") == seen


async def test_other_headers_with_underscores_are_sent() -> None:
    """Those that the gateway leaves alone are the client's own matter."""
    async with wsgi_origin() as url, gateway(url, request_headers={"X-Key": "ours"}) as gate:
        headers = [(b"X_User", b"1"), (b"Proxy_Authorization", b"2"), (b"Content_Length", b"3")]
        reply = await fetch(gate.address, target="/billing/x", headers=headers)

    seen = reply.json()
    assert (seen["HTTP_X_KEY"], seen["HTTP_X_USER"]) == ("ours", "1")
    # Names that the gateway never forwards are not forwarded in this spelling either.
    assert not {"HTTP_PROXY_AUTHORIZATION", "HTTP_CONTENT_LENGTH"} & seen.keys()
