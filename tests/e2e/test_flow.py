"""Flow through a gateway process: constant memory, and backpressure both ways."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.servers import uvicorn
from tests.support.gateways import until
from tests.support.http_client import connect, fetch, request
from tests.support.origins import Connection, ScriptedOrigin, response_bytes
from tests.support.processes import ROOT, Process

pytestmark = pytest.mark.e2e


_BARE: Final = "tests.e2e.gateway:app"
_KEY: Final = (b"X-Api-Key", b"let-me-in")
_MIB: Final = 1 << 20
_TRANSFER_BYTES: Final = 100 * _MIB
_SLOW: Final = 16
_MOVED_BYTES: Final = 2 * _MIB
"""What a slow side takes before it stops: the gateway has streamed, not only waited."""

_PIECE: Final = bytes(64 * 1024)


@contextlib.asynccontextmanager
async def gateway(app: str, *destinations: str) -> AsyncIterator[Process]:
    """Run one of two apps: the bare mount, or the README's with a dependency in front."""
    readme = str(ROOT / "docs" / "src" / "readme")
    options = ("--app-dir", readme, "--timeout-graceful-shutdown", "0")
    environment = {"UPSTREAM_BILLING_DESTINATIONS": ",".join(destinations)}
    async with uvicorn(app, *options, environment=environment) as server:
        yield server


def memory(server: Process, name: str) -> int:
    """Read the process's memory in bytes: ``VmRSS`` is the current, ``VmHWM`` the peak."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    found = re.search(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


async def standstill(count: Callable[[], int]) -> int:
    """Wait until a counter has stopped, which is the only sign of a transfer that is held back."""
    seen = -1
    while count() != seen:
        seen = count()
        await asyncio.sleep(0.5)
    return seen


class SlowOrigin:
    """Responds to GET with 100 MiB, and reads only 2 MiB of an upload.

    Attributes:
        sent: Bytes of responses that its sockets took.
        uploads: Uploads of which it has the 2 MiB.
    """

    def __init__(self) -> None:
        self.sent = 0
        self.uploads = 0

    async def __call__(self, connection: Connection) -> None:
        received = await connection.read_head()
        if received.method == b"OPTIONS":
            await connection.send(response_bytes())
        elif received.method == b"POST":
            await connection.reader.readexactly(_MOVED_BYTES)
            self.uploads += 1
            # Not reading: what waits in the socket is the kernel's.
            await asyncio.Event().wait()
        else:
            await connection.send(b"HTTP/1.1 200 X\r\nContent-Length: %d\r\n\r\n" % _TRANSFER_BYTES)
            while True:  # more than the length would break the transfer, and the test
                await connection.send(_PIECE)
                self.sent += len(_PIECE)


class SlowClients:
    """Read 2 MiB of a response of 100 MiB, or send 100 MiB of an upload.

    Attributes:
        downloads: Responses of which they have the 2 MiB.
        sent: Bytes of uploads that their sockets took.
    """

    def __init__(self, server: Process) -> None:
        self.downloads = 0
        self.sent = 0
        self._address = server.address

    async def download(self) -> None:
        """Read for a while, then stop."""
        async with connect(self._address) as client:
            await client.send(request("GET", "/billing/x", [_KEY]))
            assert (await client.read_head()).status == 200
            await client.reader.readexactly(_MOVED_BYTES)
            self.downloads += 1
            await asyncio.Event().wait()

    async def upload(self) -> None:
        """Send as fast as the socket allows."""
        async with connect(self._address) as client:
            length = (b"Content-Length", b"%d" % _TRANSFER_BYTES)
            await client.send(request("POST", "/billing/x", [_KEY, length]))
            try:
                while True:  # more than the length would be refused
                    client.writer.write(_PIECE)
                    await client.writer.drain()
                    self.sent += len(_PIECE)
            finally:
                # An orderly close would wait until all of it is taken.
                client.reset()


@pytest.mark.parametrize("app", [_BARE, "app:app"])
@pytest.mark.slow
async def test_memory_stays_constant_with_slow_clients_and_slow_origins(app: str) -> None:
    """16 downloads and 16 uploads of 100 MiB that are held back cost less than 32 MiB at peak."""
    slow = SlowOrigin()
    async with ScriptedOrigin(slow) as origin, gateway(app, origin.url) as server:
        assert (await fetch(server.address, "OPTIONS", "/billing/x", [_KEY])).status == 200
        before = memory(server, "VmRSS")
        clients = SlowClients(server)
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(clients.download()) for _ in range(_SLOW)]
            running += [tasks.create_task(clients.upload()) for _ in range(_SLOW)]
            await until(lambda: clients.downloads == slow.uploads == _SLOW, 30)
            await standstill(lambda: slow.sent + clients.sent)
            peak = memory(server, "VmHWM")
            for task in running:
                task.cancel()

    # The gateway cannot send what the other side does not take.
    assert slow.sent < _SLOW * _TRANSFER_BYTES // 4
    assert clients.sent < _SLOW * _TRANSFER_BYTES // 4
    assert peak - before < 32 * _MIB


def fill(sock: socket.socket) -> int:
    """Send until the socket takes no more for half a second; give the number of bytes sent."""
    sock.settimeout(0.5)
    sent = 0
    with contextlib.suppress(TimeoutError):
        while True:  # a peer that takes more than the length breaks the transfer
            sent += sock.send(_PIECE)
    return sent


def drain(sock: socket.socket, size: int) -> int:
    """Read up to ``size`` bytes; give how many arrived."""
    sock.settimeout(10)
    left = size
    while left and (data := sock.recv(min(left, _MIB))):
        left -= len(data)
    return size - left


def head_of(sock: socket.socket) -> bytes:
    """Read one head, and no byte after it."""
    sock.settimeout(10)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)
        assert byte, head
        head += byte
    return head


def _url(listener: socket.socket) -> str:
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


async def test_send_of_the_origin_blocks_while_the_client_does_not_read() -> None:
    """Once all buffers are full the origin's socket blocks; later every byte arrives."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with gateway(_BARE, _url(listener)) as server:
            took, arrived = await asyncio.to_thread(_hold_response_back, listener, server)

    # Four kernel buffers of some MiB each lie between the two.
    assert 0 < took < _TRANSFER_BYTES // 2
    assert arrived == took


def _hold_response_back(listener: socket.socket, server: Process) -> tuple[int, int]:
    listener.settimeout(10)
    with socket.create_connection(server.address) as client:
        client.sendall(request("GET", "/billing/x"))
        origin, _ = listener.accept()
        with origin:
            head_of(origin)
            origin.sendall(b"HTTP/1.1 200 X\r\nContent-Length: %d\r\n\r\n" % _TRANSFER_BYTES)
            took = fill(origin)
            head_of(client)
            return took, drain(client, took)


async def test_send_of_the_client_blocks_while_the_origin_does_not_read() -> None:
    """Once all buffers are full the client's socket blocks; later every byte arrives."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with gateway(_BARE, _url(listener)) as server:
            took, arrived = await asyncio.to_thread(_hold_upload_back, listener, server)

    assert 0 < took < _TRANSFER_BYTES // 2
    assert arrived == took


def _hold_upload_back(listener: socket.socket, server: Process) -> tuple[int, int]:
    listener.settimeout(10)
    length = (b"Content-Length", b"%d" % _TRANSFER_BYTES)
    with socket.create_connection(server.address) as client:
        # Content-Length promises bytes, so the gateway dials when the first has come.
        client.sendall(request("POST", "/billing/x", [length]) + b"x")
        origin, _ = listener.accept()
        with origin:
            head_of(origin)
            took = 1 + fill(client)
            return took, drain(origin, took)
