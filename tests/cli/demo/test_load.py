"""The clients of the demo, against an upstream without a gateway, and against broken upstreams."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator, Callable

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_proxy_di.cli.background_server import serving
from fastapi_proxy_di.cli.demo import load as load_module
from fastapi_proxy_di.cli.demo.load import Load
from fastapi_proxy_di.cli.demo.tally import Break, Kind, Tally
from fastapi_proxy_di.cli.demo.upstream import DemoUpstream

pytestmark = pytest.mark.e2e


@contextlib.asynccontextmanager
async def loaded(app: ASGIApp, *kinds: Kind) -> AsyncIterator[Load]:
    """One worker of each kind against the app."""
    listening = socket.create_server(("127.0.0.1", 0))
    load = Load(listening.getsockname()[1], dict.fromkeys(kinds, 1))
    async with (
        asyncio.timeout(20),
        serving(uvicorn.Config(app, ws="websockets-sansio"), listening),
        load,
    ):
        yield load


async def until(happened: Callable[[], object]) -> None:
    """Let the loop run until something is true."""
    while not happened():  # noqa: ASYNC110 - the load has no event for each count
        await asyncio.sleep(0)


def responding(status: int, body: bytes) -> ASGIApp:
    """Make an app that gives every request one response and refuses every WebSocket."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = [(b"content-length", b"%d" % len(body))]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        else:
            await send({"type": "websocket.close"})

    return app


async def broken(app: ASGIApp, kind: Kind) -> Break:
    """Give the break of the first request of a kind."""
    async with loaded(app, kind) as load:
        await until(lambda: load.tally.breaks)
    return load.tally.breaks[0]


async def test_load_serves_every_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """All five kinds are served, and the upstream is noted."""
    monkeypatch.setattr(load_module, "_EVENTS", 2)
    monkeypatch.setattr(load_module, "_ECHOES", 2)
    async with loaded(DemoUpstream("q").app, *Kind) as load:
        await load.served_by(os.getpid())
        await until(lambda: len(load.tally.served) == len(Kind))

    assert load.tally.breaks == []
    assert load.tally.pids == {"q": os.getpid()}
    assert all(load.tally.milliseconds(kind, 0.5) for kind in Kind)


@pytest.mark.parametrize("kind", [Kind.GET, Kind.POST, Kind.UPLOAD])
async def test_load_counts_a_wrong_status(kind: Kind) -> None:
    """The reason has the text of the response."""
    first = await broken(responding(502, b"no origin"), kind)

    assert (first.kind, first.destination) == (kind, None)
    assert first.reason == "status 502: no origin"
    assert first.at >= first.began


async def test_load_counts_a_stream_that_never_began() -> None:
    """A refused stream was not under way, so no outage excuses it."""
    first = await broken(responding(503, b""), Kind.EVENTS)

    assert (first.reason, first.under_way) == ("status 503", False)


async def test_load_counts_a_stream_that_ends_early() -> None:
    """A complete response before the last event is a break."""
    first = await broken(responding(200, b"data: 1\n\n"), Kind.EVENTS)

    assert first.reason == "ended after 1 of 40 events"
    assert first.under_way


async def test_load_counts_a_refused_websocket() -> None:
    """A refused handshake was not under way."""
    first = await broken(responding(200, b""), Kind.WEBSOCKET)

    assert "403" in first.reason
    assert not first.under_way


async def test_load_counts_the_response_of_another_request() -> None:
    """A response with another order is a failure."""
    first = await broken(responding(200, json.dumps({"order": {}}).encode()), Kind.POST)

    assert first.reason == "another order: {'order': {}}"


async def test_load_counts_a_short_upload() -> None:
    """An upload that did not arrive whole is a failure."""
    first = await broken(responding(200, b'{"bytes": 1}'), Kind.UPLOAD)

    assert first.reason == "1 bytes arrived of 327680"


async def test_load_counts_the_echo_of_another_message() -> None:
    """A wrong echo is a failure."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": "other"})
            await receive()
            await receive()

    first = await broken(app, Kind.WEBSOCKET)

    assert first.reason == "another message: other"
    assert first.under_way


async def test_load_raises_the_error_of_a_worker() -> None:
    """A bug of a worker is raised at the end of the block."""
    with pytest.raises(json.JSONDecodeError):
        async with loaded(responding(200, b"no json"), Kind.GET) as load:
            await asyncio.wait(load._tasks)


async def test_load_leaves_the_error_of_its_block_alone() -> None:
    """The error of the block hides that of a worker."""
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the block is the subject
        async with loaded(responding(200, b"no json"), Kind.GET) as load:
            await asyncio.wait(load._tasks)
            raise ZeroDivisionError


def test_load_begins_with_an_empty_tally() -> None:
    """No request is counted before the start."""
    assert isinstance(Load(9).tally, Tally)
    assert Load(9).tally.served == {}
