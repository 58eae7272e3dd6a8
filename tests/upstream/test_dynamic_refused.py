"""Refused addresses, in all spellings, by each way in which code may give one."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest
from fastapi import Depends, FastAPI, Request, Response, WebSocket

from fastapi_proxy_di import Balancer, DestinationNotAllowed, Failure, ForwardOptions, Upstream
from tests.support.dynamic_addresses import NETWORKS, ORIGINS, REFUSED
from tests.support.gateways import Gateway
from tests.support.given import address_of_lease, chosen, given_app, to
from tests.support.http_client import connect, fetch
from tests.support.origins import ScriptedOrigin
from tests.support.websocket_client import shake_hands
from tests.websocket.gateways import serving

pytestmark = pytest.mark.e2e


def app_of(port: int) -> FastAPI:
    """Give an app that takes addresses by options of a mount, and by arguments of endpoints."""
    app = given_app(origins=[one.replace("8888", f"{port}") for one in ORIGINS], networks=NETWORKS)

    @app.get("/argument")
    async def argument(
        request: Request,
        given: ForwardOptions = Depends(chosen),
        billing: Balancer = Depends(Upstream("billing")),
    ) -> Response:
        return await billing.forward(request, "/x", destination=given.destination)

    @app.websocket("/argument")
    async def live_argument(
        websocket: WebSocket,
        given: ForwardOptions = Depends(chosen),
        billing: Balancer = Depends(Upstream("billing")),
    ) -> None:
        await billing.forward_websocket(websocket, "/x", destination=given.destination)

    return app


async def failure(gateway: Gateway, way: str, address: str) -> str:
    """Give the failure of a request, a WebSocket or a lease for an address."""
    if way == "lease":
        with pytest.raises(DestinationNotAllowed) as caught:
            await address_of_lease(gateway.balancer, address)
        return caught.value.failure.value
    target = "/billing/x" if way.endswith("options") else "/argument"
    if way.startswith("WebSocket"):
        async with connect(gateway.address) as client:
            reply = await shake_hands(client, target, to(address))
    else:
        reply = await fetch(gateway.address, target=target, headers=to(address))
    assert reply.status == 502
    return str(json.loads(reply.body)["failure"])


@pytest.mark.parametrize(
    "way", ["HTTP options", "HTTP argument", "WebSocket options", "WebSocket argument", "lease"]
)
async def test_refused_address_reaches_no_listener(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is written like: no look-up, and no connection to an origin that listens."""
    looked_up: list[str] = []

    def look_up(host: str, *arguments: Any, **options: Any) -> Any:
        if not options.get("flags", 0) & socket.AI_NUMERICHOST:
            looked_up.append(host)
        return numeric(host, *arguments, **options)

    numeric = socket.getaddrinfo
    async with ScriptedOrigin() as origin, serving(app_of(origin.port)) as gateway:
        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        for address in REFUSED:
            found = await failure(gateway, way, address.replace("8888", f"{origin.port}"))
            assert found == Failure.REFUSED_ADDRESS.value, address

    assert (origin.connections, looked_up) == (0, [])
