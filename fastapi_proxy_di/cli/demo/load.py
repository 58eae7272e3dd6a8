"""The clients of the demo: they keep every kind of exchange under way through the gateway.

Each worker is one task with one connection; it makes one exchange after another and counts
each in the ``Tally``. Headers of the response say which upstream served it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from types import TracebackType
from typing import Any, Final, Self

import h11

from fastapi_proxy_di.cli.demo.load_http import HttpConnection, ResponseHead
from fastapi_proxy_di.cli.demo.load_websocket import LoadWebSocket, WebSocketEnded
from fastapi_proxy_di.cli.demo.tally import Break, Kind, Tally
from fastapi_proxy_di.wire.quoting import quoted

WORKERS: Final[Mapping[Kind, int]] = {
    Kind.GET: 6,
    Kind.POST: 3,
    Kind.UPLOAD: 2,
    Kind.EVENTS: 3,
    Kind.WEBSOCKET: 3,
}
_TIMEOUT_SECONDS: Final = 10.0
_PAUSE_SECONDS: Final = 0.02
_UPLOAD_PIECE: Final = b"x" * 8192
_UPLOAD_PIECES: Final = 40
_EVENTS: Final = 40
_ECHOES: Final = 40


class Failed(Exception):
    """The response is not the expected one; the text says why."""


class Progress:
    """Progress of one exchange, for the ``Break`` if it breaks."""

    def __init__(self) -> None:
        self.began: float = time.monotonic()
        self.response_began: float | None = None  # set for streams only, at the head
        self.destination: str | None = None
        self.under_way = False


class Load:
    """Runs the workers within ``async with``.

    Args:
        port: Port of the gateway on 127.0.0.1.
        workers: Number of clients of each kind.
    """

    def __init__(self, port: int, workers: Mapping[Kind, int] = WORKERS) -> None:
        self.tally: Tally = Tally()
        self._port = port
        self._workers = workers
        self._numbers = itertools.count(1)
        self._tasks: list[asyncio.Task[None]] = []
        self._awaited: dict[int, asyncio.Event] = {}

    async def __aenter__(self) -> Self:
        bodies: dict[Kind, Callable[[], Coroutine[Any, Any, None]]] = {
            Kind.GET: self._get,
            Kind.POST: self._post,
            Kind.UPLOAD: self._upload,
            Kind.EVENTS: self._events,
            Kind.WEBSOCKET: self._websocket,
        }
        self._tasks = [
            asyncio.create_task(bodies[kind](), name=f"demo load: {kind.value} {number}")
            for kind, count in self._workers.items()
            for number in range(count)
        ]
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        ends = await asyncio.gather(*self._tasks, return_exceptions=True)
        for end in ends:
            if exc is None and isinstance(end, Exception):
                raise end  # a bug of a worker must not go unnoticed

    async def served_by(self, pid: int) -> None:
        """Wait until a process has served one of the load's requests."""
        await self._awaited.setdefault(pid, asyncio.Event()).wait()

    async def _get(self) -> None:
        connection = HttpConnection(self._port)
        with contextlib.closing(connection):
            while True:
                async with self._counted(Kind.GET, connection) as progress:
                    response = await connection.send("GET", "/?delay=0.01")
                    await self._whole(connection, response, progress)
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _post(self) -> None:
        connection = HttpConnection(self._port)
        with contextlib.closing(connection):
            while True:
                number = next(self._numbers)
                order = json.dumps({"number": number}).encode()
                headers = [
                    ("content-type", "application/json"),
                    ("content-length", str(len(order))),
                    # Allows the gateway to send the request again.
                    ("idempotency-key", f"order-{number}"),
                ]
                async with self._counted(Kind.POST, connection) as progress:
                    response = await connection.send("POST", "/orders", headers, _once(order))
                    given = await self._whole(connection, response, progress)
                    _expect(given["order"] == {"number": number}, f"another order: {given}")
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _upload(self) -> None:
        connection = HttpConnection(self._port)
        size = _UPLOAD_PIECES * len(_UPLOAD_PIECE)
        with contextlib.closing(connection):
            while True:
                headers = [
                    ("content-length", str(size)),
                    ("idempotency-key", f"upload-{next(self._numbers)}"),
                ]
                async with self._counted(Kind.UPLOAD, connection) as progress:
                    body = _slowly(progress)
                    response = await connection.send("POST", "/upload", headers, body)
                    given = await self._whole(connection, response, progress)
                    _expect(given["bytes"] == size, f"{given['bytes']} bytes arrived of {size}")
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _events(self) -> None:
        connection = HttpConnection(self._port)
        with contextlib.closing(connection):
            while True:
                async with self._counted(Kind.EVENTS, connection) as progress:
                    response = await connection.send(
                        "GET", f"/events?count={_EVENTS}&interval=0.05"
                    )
                    self._note_upstream(response.headers, progress)
                    _expect(response.status == 200, f"status {response.status}")
                    progress.response_began = time.monotonic()
                    progress.under_way = True
                    events = 0
                    async for data in connection.body():
                        events += data.count(b"data: ")
                    _expect(events == _EVENTS, f"ended after {events} of {_EVENTS} events")

    async def _websocket(self) -> None:
        while True:
            websocket = LoadWebSocket(self._port, "/echo")
            try:
                async with self._counted(Kind.WEBSOCKET) as progress:
                    await websocket.open()
                    self._note_upstream(websocket.headers, progress)
                    progress.response_began = time.monotonic()
                    progress.under_way = True
                    for number in range(_ECHOES):
                        await websocket.send(f"message {number}")
                        echo = await websocket.receive()
                        expected = f"{progress.destination}: message {number}"
                        _expect(echo == expected, f"another message: {echo}")
                        await asyncio.sleep(0.05)
            finally:
                await websocket.close()

    async def _whole(
        self, connection: HttpConnection, response: ResponseHead, progress: Progress
    ) -> dict[str, Any]:
        """Read a JSON response to its end."""
        progress.destination = response.headers.get("x-demo-upstream")
        progress.under_way = progress.under_way or progress.destination is not None
        body = await connection.read()
        text = body.decode(errors="replace")
        _expect(response.status == 200, f"status {response.status}: {text}")
        self._note_upstream(response.headers, progress)
        document: dict[str, Any] = json.loads(body)
        return document

    def _note_upstream(self, headers: Mapping[str, str], progress: Progress) -> None:
        """Note the upstream that served, if the response names one (the gateway's own do not)."""
        name, pid = headers.get("x-demo-upstream"), int(headers.get("x-demo-pid", 0))
        if name is not None:
            progress.destination = name
            self.tally.served_by(name, pid)
            self._awaited.setdefault(pid, asyncio.Event()).set()

    @contextlib.asynccontextmanager
    async def _counted(
        self, kind: Kind, connection: HttpConnection | None = None
    ) -> AsyncIterator[Progress]:
        """Count one exchange: served at the end of the block, broken if the block raises."""
        progress = Progress()
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                yield progress
        except (OSError, TimeoutError, h11.ProtocolError, WebSocketEnded, Failed) as error:
            reason = quoted(str(error)) or type(error).__name__
            self.tally.breaks.append(
                Break(
                    kind,
                    progress.destination,
                    progress.began,
                    time.monotonic(),
                    progress.under_way,
                    reason,
                )
            )
            if connection is not None:
                connection.close()
            # So that the load does not spin when the gateway is gone.
            await asyncio.sleep(_PAUSE_SECONDS)
        else:
            self.tally.add(kind, (progress.response_began or time.monotonic()) - progress.began)


def _expect(right: bool, otherwise: str) -> None:
    """Check a response.

    Raises:
        Failed: ``right`` is false.
    """
    if not right:
        raise Failed(otherwise)


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


async def _slowly(progress: Progress) -> AsyncIterator[bytes]:
    """Give an upload that takes a while, so that some are under way when an upstream is killed."""
    for _ in range(_UPLOAD_PIECES):
        yield _UPLOAD_PIECE
        progress.under_way = True
        await asyncio.sleep(0.01)
