"""Count the files of the package that one proxied GET goes through, up to the write to the socket.

    python scripts/request_walk.py            # prints the files in order, fails above the bound
    python scripts/request_walk.py --cold     # the first request, which dials

Files of the observers (``observability``) have a bound of their own and no number: an exchange
tells its observer what happens, and a reader of the forwarding need not know who listens. Without
telemetry there are four: the one that asks who wants to observe, the counts, which are always on,
and tracing and access records, which both say no.

A gateway and its origin run in this process; the profiler of Python notes each function that
runs between the moment when the server calls the app and the first write to the destination.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Final

import uvicorn
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from fastapi_proxy_di import UpstreamSettings, proxy_router

MOST_FILES: Final = 15
MOST_OBSERVERS: Final = 4
_PACKAGE: Final = Path(__file__).parents[1] / "fastapi_proxy_di"
_OBSERVERS: Final = "observability/"
_RESPONSE: Final = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Walk:
    """Notes the files that run for one request.

    Args:
        app: The gateway.
        request: Number of the request to follow, from 1.
    """

    def __init__(self, app: FastAPI, request: int) -> None:
        self.files: list[str] = []
        self.written = False
        self._app = app
        self._until = request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the gateway, with the profiler on for the request to follow."""
        if scope["type"] == "http":
            self._until -= 1
            if self._until == 0:
                sys.setprofile(self._note)
        try:
            await self._app(scope, receive, send)
        finally:
            sys.setprofile(None)

    def _note(self, frame: FrameType, event: str, argument: object) -> None:
        if event != "call":
            return
        code = frame.f_code
        path = Path(code.co_filename)
        if code.co_name == "write" and path.name == "selector_events.py":
            self.written = True
            sys.setprofile(None)
        elif path.is_relative_to(_PACKAGE):
            file = str(path.relative_to(_PACKAGE))
            if file not in self.files:
                self.files.append(file)


async def _origin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError):
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(_RESPONSE)
    writer.close()


def _get_in_thread(port: int, times: int, done: Callable[[], object]) -> None:
    def get() -> None:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        for _ in range(times):
            client.request("GET", "/billing/invoices/7")
            client.getresponse().read()
        client.close()
        done()

    threading.Thread(target=get, name="client", daemon=True).start()


async def walk(*, cold: bool) -> list[str]:
    """Give the package's files that a GET runs before and at the write to the destination.

    Args:
        cold: Follow the first request, which dials, instead of the second.

    Raises:
        RuntimeError: The request reached no destination.
    """
    origin = await asyncio.start_server(_origin, "127.0.0.1", 0)
    port = origin.sockets[0].getsockname()[1]

    class Billing(UpstreamSettings, name="billing"):
        """The upstream that the request goes to."""

    app = FastAPI()
    billing = Billing(destinations=[f"http://127.0.0.1:{port}"])
    app.include_router(proxy_router(billing), prefix="/billing")
    followed = Walk(app, 1 if cold else 2)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(
            followed, loop="asyncio", log_config=None, access_log=False, ws="none"
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve([listening]))
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        _get_in_thread(listening.getsockname()[1], 2, lambda: loop.call_soon_threadsafe(ended.set))
        await ended.wait()
        server.should_exit = True
        await serving
    origin.close()
    if not followed.written:
        raise RuntimeError("the request reached no destination")
    return followed.files


def main() -> int:
    """Print the files; 1 if there are more than the bounds allow."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cold", action="store_true", help="follow the first request, which dials")
    files = asyncio.run(walk(cold=parser.parse_args().cold))
    number = observers = 0
    for file in files:
        if file.startswith(_OBSERVERS):
            observers += 1
            sys.stdout.write(f"   {file}\n")
        else:
            number += 1
            sys.stdout.write(f"{number:2} {file}\n")
    return int(number > MOST_FILES or observers > MOST_OBSERVERS)


if __name__ == "__main__":
    sys.exit(main())
