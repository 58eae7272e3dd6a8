"""A TCP link to a server that a test cuts and joins: while it is cut, bytes are held back."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Self

__all__ = ["Link"]


class Link:
    """Forwards the connections to a port, except while it is cut.

    Nothing is closed when it is cut, as in a network that loses what is sent.

    Args:
        port: The port of the server on the loopback.
    """

    def __init__(self, port: int) -> None:
        self.port: int = 0
        self._to = port
        self._joined = asyncio.Event()
        self._joined.set()
        self._copies: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.close()
        for task in self._copies:
            task.cancel()
        await asyncio.gather(*self._copies, return_exceptions=True)

    def cut(self) -> None:
        """Forward nothing from now on."""
        self._joined.clear()

    def join(self) -> None:
        """Forward again, also what was held back."""
        self._joined.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._joined.wait()
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to)
        for source, target in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.create_task(self._copy(source, target), name="a direction of a link")
            self._copies.add(task)
            task.add_done_callback(self._copies.discard)

    async def _copy(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), contextlib.closing(target):
            while piece := await source.read(65536):
                await self._joined.wait()
                target.write(piece)
                await target.drain()
