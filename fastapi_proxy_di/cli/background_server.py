"""Runs a uvicorn server in the running event loop for the duration of a block.

The server handles no signals; the caller decides when it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Generator

import uvicorn


class _Server(uvicorn.Server):
    """A server that installs no signal handlers, and sets an event when it serves."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.serving = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.serving.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


@contextlib.asynccontextmanager
async def serving(config: uvicorn.Config, listening: socket.socket) -> AsyncIterator[None]:
    """Serve within the block; at its end, open responses get uvicorn's graceful timeout.

    Args:
        config: The app and how to serve it.
        listening: A bound socket; the server closes it at the end.

    Raises:
        SystemExit: The app's lifespan failed; uvicorn has logged the reason.
    """
    server = _Server(config)
    running = asyncio.create_task(server.serve(sockets=[listening]), name="gateway server")
    # A server that ends before it serves must end the wait below, too.
    running.add_done_callback(lambda _: server.serving.set())
    try:
        await server.serving.wait()
        if running.done():
            await running
        yield
    finally:
        server.should_exit = True
        await running
