"""A uvicorn server inside a running event loop, for as long as a block lasts.

Signals are none of its business: whoever runs the loop decides when it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Generator

import uvicorn
from starlette.types import ASGIApp


class _Server(uvicorn.Server):
    """Leaves the process's signal handlers alone, and says when it serves."""

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
async def serving(app: ASGIApp, listening: socket.socket, *, grace: int) -> AsyncIterator[None]:
    """Serve an app within the block.

    Args:
        app: The ASGI application; its lifespan runs.
        listening: A bound socket; closed at the end.
        grace: Seconds that open answers may take when the block ends.

    Raises:
        SystemExit: The app's lifespan failed; uvicorn has logged why.
    """
    server = _Server(
        uvicorn.Config(
            app,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            ws="websockets-sansio",
            timeout_graceful_shutdown=grace,
        )
    )
    running = asyncio.create_task(server.serve(sockets=[listening]), name="demo gateway")
    # Without this a server that ends instead of serving would be waited for without end.
    running.add_done_callback(lambda _: server.serving.set())
    try:
        await server.serving.wait()
        if running.done():
            await running
        yield
    finally:
        server.should_exit = True
        await running
