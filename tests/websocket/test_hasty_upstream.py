"""An upstream that sends its 101, a message, a close frame and FIN while the loop is busy.

TLS hands all of that over in one turn of the loop, so the connection is lost before the waiter
of the 101 runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import trustme
from websockets.utils import accept_key

from tests.support.websocket_client import Closed, open_websocket
from tests.support.websocket_frames import CLOSE, TEXT, frame
from tests.transport.loops import on_every_loop
from tests.websocket.gateways import no_tunnel_left, tunnels

pytestmark = pytest.mark.e2e

_BUSY_SECONDS: Final = 0.03
_UPGRADES: Final = 4


@contextlib.contextmanager
def _hasty_upstream(
    loop: asyncio.AbstractEventLoop, message: bytes, tls: ssl.SSLContext | None
) -> Iterator[str]:
    """Run an upstream in a thread; give its address."""

    def serve() -> None:
        for _ in range(_UPGRADES):
            connection, _ = listener.accept()
            if tls is not None:
                connection = tls.wrap_socket(connection, server_side=True)
            _hurry(connection, loop, message)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, name="hasty upstream", daemon=True)
        thread.start()
        scheme = "http" if tls is None else "https"
        yield f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(10)


def _hurry(connection: socket.socket, loop: asyncio.AbstractEventLoop, message: bytes) -> None:
    """Read the handshake, and send everything within one blocked turn of ``loop``."""
    request = b""
    while b"\r\n\r\n" not in request:
        request += connection.recv(65536)
    lines = request.lower().split(b"\r\n")
    (start,) = (i for i, line in enumerate(lines) if line.startswith(b"sec-websocket-key: "))
    key = request.split(b"\r\n")[start].partition(b": ")[2]
    head = (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept_key(key.decode()).encode()
    )
    busy = threading.Event()

    def block() -> None:
        busy.set()
        time.sleep(_BUSY_SECONDS)

    loop.call_soon_threadsafe(block)
    assert busy.wait(10)
    connection.sendall(head + frame(TEXT, message) + frame(CLOSE, b"\x0f\xa1done"))
    if isinstance(connection, ssl.SSLSocket):
        # The gateway may abort the connection without a close_notify of its own.
        with contextlib.suppress(OSError):
            connection.unwrap()
    connection.close()


@on_every_loop
@pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])
@pytest.mark.parametrize("size", [4, 200_000])
async def test_upstream_that_closes_while_the_loop_is_busy_is_read_to_its_end(
    secure: bool, size: int, tmp_path: Path
) -> None:
    """Message and code reach the client, and the destination has no failure (RFC 6455 5.5.1)."""
    authority = trustme.CA()
    roots = tmp_path / "roots.pem"
    authority.cert_pem.write_to_path(str(roots))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    message = b"x" * size
    with _hasty_upstream(asyncio.get_running_loop(), message, context if secure else None) as url:
        async with tunnels(url, tls={"ca_file": roots}) as gateway:
            for _ in range(_UPGRADES):
                async with open_websocket(gateway.address) as client:
                    assert await client.recv() == message.decode()
                    assert await client.recv() == Closed(4001, "done")
            await no_tunnel_left(gateway)
            (destination,) = gateway.balancer.destinations
            assert destination.failures == 0
            assert gateway.balancer.status().tunnel_ends == {"upstream_closed": _UPGRADES}
