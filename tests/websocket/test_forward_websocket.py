"""``Balancer.forward_websocket``: each argument changes the handshake to the upstream."""

from typing import Any

import pytest
from fastapi import Depends, FastAPI, WebSocket

from fastapi_proxy_di import Balancer, Upstream, proxy_lifespan
from tests.support.gateways import billing
from tests.support.http_client import connect
from tests.support.origins import Received, ScriptedOrigin
from tests.support.websocket_client import Headers, open_websocket, shake_hands
from tests.support.websocket_origin import frames_from, until_left
from tests.websocket.gateways import serving
from tests.websocket.upstreams import EchoApp, echo_server

pytestmark = pytest.mark.e2e


_TARGET = "/rooms/7?token=t"


def _app(url: str, *args: Any, faults: list[Exception] | None = None, **kwargs: Any) -> FastAPI:
    """An app with one endpoint that forwards with these arguments."""
    app = FastAPI(lifespan=proxy_lifespan)
    upstream = Upstream(billing(url))

    @app.websocket("/rooms/{room}")
    async def live(websocket: WebSocket, room: str, balancer: Balancer = Depends(upstream)) -> None:
        try:
            await balancer.forward_websocket(websocket, *args, **kwargs)
        except ValueError as error:
            assert faults is not None
            faults.append(error)
            await websocket.close(1008)

    return app


async def _arriving(
    *args: Any, headers: Headers = (), offer: tuple[str, ...] = (), **kwargs: Any
) -> Received:
    """Open one tunnel, and give the handshake that the upstream got."""
    async with (
        frames_from(until_left) as origin,
        serving(_app(origin.url, *args, **kwargs)) as gateway,
        open_websocket(gateway.address, _TARGET, headers, subprotocols=offer),
    ):
        return origin.request


@pytest.mark.parametrize(
    ("arguments", "target"),
    [
        ({}, b"/rooms/7?token=t"),
        ({"forward_query": False}, b"/rooms/7"),
        ({"path": "/v2/live"}, b"/v2/live?token=t"),
        ({"path": "/v2/live?room=7"}, b"/v2/live?room=7&token=t"),
        ({"path": "/v2/live?room=7", "forward_query": False}, b"/v2/live?room=7"),
    ],
)
async def test_path_and_query_are_the_callers_choice(
    arguments: dict[str, Any], target: bytes
) -> None:
    """A given path is sent unchanged, its query first, followed by the client's or not."""
    received = await _arriving(**arguments)

    assert received.target == target


@pytest.mark.parametrize(
    ("subprotocols", "offer"),
    [(["billing.v1", "billing.v2"], b"billing.v1, billing.v2"), ([], None)],
)
async def test_subprotocols_replace_the_clients_offer(
    subprotocols: list[str], offer: bytes | None
) -> None:
    """Only the given subprotocols are offered; an empty sequence sends no header."""
    received = await _arriving(offer=("theirs",), subprotocols=subprotocols)

    assert received.one(b"sec-websocket-protocol") == offer


async def test_subprotocol_that_the_upstream_chooses_reaches_the_client() -> None:
    """The upstream chooses one of the offered subprotocols."""
    async with (
        echo_server(EchoApp(subprotocols=["billing.v2"])) as upstream,
        serving(_app(upstream.url, subprotocols=["billing.v1", "billing.v2"])) as gateway,
        open_websocket(gateway.address, _TARGET, subprotocols=["other", "billing.v2"]) as client,
    ):
        assert client.subprotocol == b"billing.v2"


async def test_additional_headers_cannot_be_forged() -> None:
    """They replace the client's headers of the same name."""
    received = await _arriving(
        headers=[(b"X-Tenant", b"forged"), (b"x-tenant", b"again"), (b"cookie", b"a=1")],
        additional_headers={"x-tenant": "acme"},
    )

    assert received.all(b"x-tenant") == [b"acme"]
    assert received.one(b"cookie") == b"a=1"


async def test_override_headers_replace_the_clients() -> None:
    """No header of the client is forwarded; handshake and forwarding headers are ours."""
    received = await _arriving(
        headers=[(b"cookie", b"a=1"), (b"origin", b"https://app.example")],
        override_headers=[("authorization", "Bearer ours"), ("x-a", "1"), ("x-a", "2")],
        additional_headers={"x-b": "3"},
    )

    assert not {b"cookie", b"origin"} & set(received.names)
    assert received.one(b"authorization") == b"Bearer ours"
    assert (received.all(b"x-a"), received.one(b"x-b")) == ([b"1", b"2"], b"3")
    assert received.one(b"sec-websocket-version") == b"13"
    assert received.one(b"x-forwarded-for") == b"127.0.0.1"


async def test_open_timeout_replaces_the_settings() -> None:
    """The endpoint chooses the timeout of the handshake."""
    async with ScriptedOrigin(lambda connection: connection.peer_left()) as origin:
        app = _app(origin.url, open_timeout=0.05)
        async with serving(app) as gateway, connect(gateway.address) as client:
            response = await shake_hands(client, _TARGET)

    assert response.status == 504


@pytest.mark.parametrize(
    "arguments",
    [
        {"path": "no-slash"},
        {"subprotocols": ["two words"]},
        {"additional_headers": {"sec-websocket-key": "x"}},
        {"additional_headers": {"upgrade": "h2c"}},
        {"override_headers": {"connection": "close"}},
        {"additional_headers": {"x-forwarded-for": "6.6.6.6"}},
        {"additional_headers": {"x-a": "b\r\nx-evil: 1"}},
    ],
)
async def test_malformed_argument_is_a_value_error(arguments: dict[str, Any]) -> None:
    """The endpoint gets the error, and nothing is dialled."""
    faults: list[Exception] = []
    async with ScriptedOrigin() as origin:
        app = _app(origin.url, faults=faults, **arguments)
        async with serving(app) as gateway, connect(gateway.address) as client:
            response = await shake_hands(client, _TARGET)

    assert response.status == 403
    assert [type(fault) for fault in faults] == [ValueError]
    assert origin.requests == []
