"""Ids that an upstream issues: sessions stay with the destination that has them."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response, WebSocket

from fastapi_proxy_di import Balancer, Upstream
from tests.balancing.affinities import KEY
from tests.client.upstreams import running
from tests.support.gateways import gateway
from tests.support.http_client import RawResponse, fetch
from tests.support.servers import Running, run_app
from tests.support.websocket_client import open_websocket

pytestmark = pytest.mark.e2e

ISSUED: dict[str, Any] = {"header": "x-session", "issue": True, "key": KEY}


def sessions() -> FastAPI:
    """Give an app with sessions in memory, whose ids it issues in ``x-session``."""
    app = FastAPI()
    known: set[str] = set()

    def issue(request: Request) -> str:
        found = f"{request.scope['server'][1]}-{len(known)}"
        known.add(found)
        return found

    @app.post("/x")
    async def use(
        request: Request, response: Response, x_session: Annotated[str | None, Header()] = None
    ) -> int:
        if x_session is not None and x_session not in known:
            raise HTTPException(404, x_session)
        response.headers["x-session"] = x_session or issue(request)
        return int(request.scope["server"][1])

    @app.websocket("/w")
    async def talk(websocket: WebSocket) -> None:
        found = websocket.headers.get("x-session")
        port = websocket.scope["server"][1]
        issued = [] if found in known else [(b"x-session", f"{port}-w".encode())]
        known.add(f"{port}-w")
        await websocket.accept(headers=issued)
        await websocket.send_text(f"{port} {found}")
        await websocket.close()

    return app


async def _post(address: tuple[str, int], target: str, value: bytes | None = None) -> RawResponse:
    headers = [] if value is None else [(b"X-Session", value)]
    return await fetch(address, "POST", target, headers, b"hello")


def _id(reply: RawResponse) -> bytes:
    value = reply.one(b"x-session")
    assert value is not None
    return value


async def test_session_stays_where_its_id_was_issued() -> None:
    """Mounted and by ``forward``; also through another gateway with the same key."""
    app = FastAPI()

    @app.post("/own")
    async def own(
        request: Request, billing: Annotated[Balancer, Depends(Upstream("billing"))]
    ) -> Response:
        return await billing.forward(request, "/x")

    async with run_app(sessions()) as one, run_app(sessions()) as two:
        urls = (one.url, two.url)
        options: dict[str, Any] = {"policy": "round_robin", "affinity": ISSUED}
        async with (
            gateway(*urls, app=app, **options) as gate,
            gateway(*reversed(urls), **options) as other,
        ):
            begun = [await _post(gate.address, "/billing/x") for _ in range(4)]
            later = [
                [
                    await _post(gate.address, "/billing/x", _id(first)),
                    await _post(gate.address, "/own", _id(first)),
                    await _post(other.address, "/billing/x", _id(first)),
                    await _post(other.address, "/billing/x", _id(first)),
                ]
                for first in begun
            ]

    assert {first.body for first in begun} == {b"%d" % one.port, b"%d" % two.port}
    for first, replies in zip(begun, later, strict=True):
        assert {(reply.status, reply.body) for reply in replies} == {(200, first.body)}
        # Responses repeat the id, with the same mark.
        assert {_id(reply) for reply in replies} == {_id(first)}


async def test_session_by_a_handshake_stays() -> None:
    """The accepted handshake issues the id, later ones send it."""
    async with (
        run_app(sessions()) as one,
        run_app(sessions()) as two,
        gateway(one.url, two.url, policy="round_robin", affinity=ISSUED) as gate,
    ):
        async with open_websocket(gate.address, "/billing/w") as client:
            value = client.response.one(b"x-session") or b""
            first = await client.recv()
        stays = set()
        for _ in range(4):
            headers = [(b"X-Session", value)]
            async with open_websocket(gate.address, "/billing/w", headers) as client:
                stays.add(await client.recv())

    assert isinstance(first, str)
    port = first.split()[0]
    assert value.startswith(f"{port}-w~".encode())
    assert stays == {f"{port} {port}-w"}


@pytest.mark.parametrize("library", ["client", "httpx2_client"])
async def test_session_of_the_apps_own_calls_stays(library: str) -> None:
    """The clients mark and remove as mounts do, and a mark of one is valid for all."""
    async with (
        run_app(sessions()) as one,
        run_app(sessions()) as two,
        running(one.url, two.url, policy="round_robin", affinity=ISSUED) as balancer,
        gateway(one.url, two.url, policy="round_robin", affinity=ISSUED) as gate,
    ):
        client = getattr(balancer, library)
        begun = [await client.post("/x", content=b"hello") for _ in range(2)]
        for first in begun:
            headers = {"X-Session": first.headers["x-session"]}
            calls = [await client.post("/x", headers=headers) for _ in range(3)]
            mounted = await _post(gate.address, "/billing/x", headers["X-Session"].encode())
            assert {(reply.status_code, reply.text) for reply in calls} == {(200, first.text)}
            assert (mounted.status, mounted.body) == (200, first.content)

    assert {first.text for first in begun} == {str(one.port), str(two.port)}


@pytest.mark.parametrize(("on_missing", "status"), [("redistribute", 404), ("fail", 503)])
async def test_session_of_a_draining_destination(on_missing: str, status: int) -> None:
    """Another destination says that it does not know the id, which comes without its mark."""

    def own(server: Running) -> bytes:
        return b"%d" % server.port

    async with (
        run_app(sessions()) as one,
        run_app(sessions()) as two,
        gateway(
            one.url, two.url, policy="first", affinity={**ISSUED, "on_missing": on_missing}
        ) as gate,
    ):
        first = await _post(gate.address, "/billing/x")
        await gate.balancer.drain(one.url)
        gone = await _post(gate.address, "/billing/x", _id(first))
        wrong = await _post(gate.address, "/billing/x", b"x~" + b"a" * 12)

    assert first.body == own(one)
    assert gone.status == status
    if status == 404:
        assert gone.json() == {"detail": _id(first).partition(b"~")[0].decode()}
    assert (wrong.status, wrong.json()) == (404, {"detail": "x~" + "a" * 12})
