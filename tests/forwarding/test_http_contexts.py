"""What a request leaves in context variables is not kept by the connections that it has used."""

from __future__ import annotations

import asyncio
import gc
import ssl
import weakref
from contextvars import Context, ContextVar
from pathlib import Path
from typing import Any

import pytest
import trustme
from fastapi import FastAPI
from starlette.types import Message

from fastapi_proxy_di import Upstream
from tests.support.gateways import gateway_app
from tests.support.origins import Connection, Script, ScriptedOrigin, always, response_bytes
from tests.transport.http2.peer import respond_to_all, scripted
from tests.transport.loops import on_every_loop

MIB = 1024 * 1024


class Session:
    """What an app keeps for each request, such as a session of a database."""


SESSION: ContextVar[Session] = ContextVar("session")


async def used_session(app: FastAPI) -> weakref.ref[Session]:
    """Send a GET with a session in its context; give a weak reference to the session."""
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/billing/x",
        "raw_path": b"/billing/x",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"gateway.test")],
        "client": ("192.0.2.7", 4711),
        "server": ("gateway.test", 80),
    }
    statuses: list[int] = []

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError  # pragma: no cover - waits for ever

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])
        await asyncio.sleep(0)  # a client that is slower than the destination

    async def serve() -> weakref.ref[Session]:
        session = Session()
        _ = SESSION.set(session)
        await app(scope, receive, send)
        return weakref.ref(session)

    # Without ``asyncio.timeout``, whose timer stays in the loop until it is due.
    session = await asyncio.create_task(serve(), context=Context())
    assert statuses == [200]
    return session


async def is_gone(session: weakref.ref[Session]) -> bool:
    """Whether a session is not kept; by what is cancelled, it may be kept for a few turns."""
    for _ in range(3):
        await asyncio.sleep(0)
    gc.collect()
    return session() is None


async def slow(connection: Connection) -> None:
    """Respond to each request after it has lasted long enough to be watched."""
    while True:
        await connection.read_request()
        await asyncio.sleep(0.05)
        await connection.send(response_bytes(body=b"ok"))


def idle(app: FastAPI) -> int:
    """Give the number of idle connections to the destination."""
    (destination,) = Upstream("billing").of(app).destinations
    return Upstream("billing").of(app)._running.transports.connections(destination)[1]


QUICK = always(response_bytes(body=b"ok"))
LARGE = always(response_bytes(body=b"x" * MIB))


@pytest.mark.parametrize("script", [QUICK, slow, LARGE], ids=["quick", "watched", "paused"])
@pytest.mark.parametrize("encrypted", [False, True], ids=["http", "https"])
@on_every_loop
async def test_idle_connection_keeps_nothing_of_its_requests(
    script: Script, encrypted: bool, tmp_path: Path
) -> None:
    """Neither of the request that has opened it, nor of one that has used it again."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    tls = {"ca_file": str(tmp_path / "ca.pem")} if encrypted else {}
    async with ScriptedOrigin(script, tls=context if encrypted else None) as origin:
        app = gateway_app(origin.url, tls=tls)
        async with app.router.lifespan_context(app):
            for _ in range(2):
                session = await used_session(app)
                assert await is_gone(session)
                assert idle(app) == 1

    assert origin.connections == 1


@on_every_loop
async def test_idle_http2_connection_keeps_nothing_of_its_requests() -> None:
    """Neither do its timers, for PING and for the end of its idle time."""
    async with scripted(respond_to_all) as (url, peers):
        app = gateway_app(url, http_version="2", timeouts={"ping": 60})
        async with app.router.lifespan_context(app):
            for _ in range(2):
                session = await used_session(app)
                assert await is_gone(session)
                assert idle(app) == 1

    assert len(peers) == 1
