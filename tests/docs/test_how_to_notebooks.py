"""The how-to "One notebook per user": a hub with a hundred servers that start and stop."""

from __future__ import annotations

import asyncio
import contextlib
import json
from types import ModuleType

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from fastapi_proxy_di import Upstream
from fastapi_proxy_di.testing import reply, stand_in
from tests.docs.conftest import Snippet
from tests.support.gateways import until
from tests.support.http_client import RawResponse, fetch
from tests.support.origins import Connection, PeerLeft, ScriptedOrigin, response_bytes
from tests.support.servers import run_app
from tests.support.websocket_client import open_websocket
from tests.support.websocket_frames import TEXT
from tests.support.websocket_origin import FramePeer, accepting

PLACE = "alice.notebooks.svc:8888/user/alice"
USERS = [f"user-{number}" for number in range(100)]


def test_hub_is_tested_with_a_stand_in(snippet: Snippet) -> None:
    """As the page says: the address is a destination of the test."""
    hub = snippet("how_to/notebooks.py")
    hub.SESSIONS["of-alice"] = "alice"
    with (
        stand_in(hub.app, hub.Notebooks, {PLACE: reply()}) as notebooks,
        TestClient(hub.app, cookies={"session": "of-alice"}) as client,
    ):
        stopped = client.get("/user/alice/tree")
        hub.SERVERS["alice"] = hub.Server(f"http://{PLACE}", "t0ken")
        running = client.get("/user/alice/tree")
        of_bob = client.get("/user/bob/tree")

    assert [one.status_code for one in (stopped, running, of_bob)] == [404, 200, 403]
    (received,) = notebooks.received
    assert received.path == "/user/alice/tree"
    assert received.headers["authorization"] == "token t0ken"
    assert "cookie" not in received.headers


class Notebook:
    """The server of one user: says whose it is, by HTTP and by WebSocket."""

    def __init__(self, user: str) -> None:
        self.user = user
        self.origin = ScriptedOrigin(self._serve)

    async def _serve(self, connection: Connection) -> None:
        cookie = b"theirs=%s; Domain=hub.test; Path=/" % self.user.encode()
        while True:
            received = await connection.read_request()
            if received.one(b"upgrade"):
                await connection.send(accepting(received))
                peer = FramePeer(connection.reader, connection.writer)
                with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                    while (frame := await peer.read())[0] == TEXT:
                        peer.send(TEXT, self.user.encode() + b": " + frame[1])
                raise PeerLeft
            body = json.dumps({"of": self.user}).encode()
            await connection.send(response_bytes(200, body, [(b"Set-Cookie", cookie)]))


class Hub:
    """The gateway with the servers of all users."""

    def __init__(self, module: ModuleType, address: tuple[str, int]) -> None:
        self._module = module
        self._address = address
        self.notebooks: list[Notebook] = []
        self._running: dict[str, tuple[Notebook, contextlib.AsyncExitStack]] = {}

    async def start(self, user: str) -> None:
        """Start the server of a user, at a port of its own."""
        notebook, stack = Notebook(user), contextlib.AsyncExitStack()
        await stack.enter_async_context(notebook.origin)
        self.notebooks.append(notebook)
        self._running[user] = notebook, stack
        server = self._module.Server(f"{notebook.origin.url}/user/{user}", f"token-of-{user}")
        self._module.SERVERS[user] = server
        self._module.SESSIONS[f"session-of-{user}"] = user

    async def stop(self, user: str) -> None:
        """Stop the server of a user; the hub learns that only later."""
        await self._running.pop(user)[1].aclose()

    async def stop_all(self) -> None:
        """Stop all servers."""
        for user in tuple(self._running):
            await self.stop(user)

    async def get(self, user: str, of: str | None = None) -> RawResponse:
        """Ask for the page of a user, or for that of another one."""
        return await fetch(
            self._address,
            target=f"/user/{of or user}/tree",
            headers=[(b"Cookie", f"session=session-of-{user}".encode())],
        )

    async def say(self, user: str) -> object:
        """Say hello to the server of a user by WebSocket, and give what it says."""
        cookie = (b"Cookie", f"session=session-of-{user}".encode())
        async with open_websocket(self._address, f"/user/{user}/live", [cookie]) as client:
            await client.send("hello")
            return await client.recv()

    async def use(self, user: str) -> None:
        """Use the server of a user by HTTP and WebSocket; check that it is the right one."""
        response = await self.get(user)
        assert (response.status, json.loads(response.body)) == (200, {"of": user})
        assert response.one(b"set-cookie") == f"theirs={user}; Path=/".encode()
        assert await self.say(user) == f"{user}: hello"


@pytest.mark.e2e
@pytest.mark.slow
async def test_hundred_notebooks_start_and_stop(
    snippet: Snippet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each user reaches the own server alone, and no server gets what is not its own."""
    allowed = "UPSTREAM_NOTEBOOKS_ALLOWED_DESTINATIONS__NETWORKS"
    monkeypatch.setenv(allowed, "127.0.0.0/8")
    monkeypatch.setenv("UPSTREAM_NOTEBOOKS_REQUEST_HEADERS", '{"X-Hub-Secret": "of-the-hub"}')
    monkeypatch.setenv("UPSTREAM_NOTEBOOKS_LIMITS__IDLE_SECONDS", "0.1")
    module = snippet("how_to/notebooks.py")
    app: FastAPI = module.app
    async with run_app(app, ws="websockets-sansio") as running:
        hub = Hub(module, running.address)
        balancer = Upstream("notebooks").of(app)
        try:
            for user in USERS:
                await hub.start(user)
            await asyncio.gather(*map(hub.use, USERS))
            assert (await hub.get("user-1", of="user-2")).status == 403

            for user in USERS[::2]:
                await hub.stop(user)
            gone = await asyncio.gather(*map(hub.get, USERS[::2]))
            assert {one.status for one in gone} == {502}
            await asyncio.gather(*map(hub.use, USERS[1::2]))

            for user in USERS[::2]:
                await hub.start(user)
            await asyncio.gather(*map(hub.use, USERS))
            assert balancer.destinations == ()
            await until(lambda: balancer.status().dynamic_destinations == 0)
        finally:
            await hub.stop_all()

    assert len(hub.notebooks) == 150
    for notebook in hub.notebooks:
        own = f"token-of-{notebook.user}".encode()
        for received in notebook.origin.requests:
            assert received.target.startswith(f"/user/{notebook.user}/".encode())
            assert received.one(b"authorization") == b"token " + own
            rest = received.head.replace(own, b"")
            assert b"of-" not in rest
            assert b"cookie" not in received.names
