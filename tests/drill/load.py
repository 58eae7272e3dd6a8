"""Steady load on one address: GETs, POSTs, event streams and WebSockets, each one recorded.

GETs and POSTs are sent by the clock, whether or not earlier ones have ended (an open loop), so
that a slow response does not delay the requests after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

from tests.support.http_client import Client, Ending, connect, request
from tests.support.websocket_client import WebSocketClient, shake_hands

MESSAGES: Final = 10
MESSAGE_SECONDS: Final = 0.1
_IDLE_SECONDS: Final = 2.0
_POST_BODY: Final = b"x" * 200


@dataclass(frozen=True, slots=True)
class Record:
    """One request or tunnel of a client.

    Attributes:
        kind: ``get``, ``post``, ``sse`` or ``ws``.
        started: Monotonic seconds.
        seconds: How long it took.
        outcome: ``ok``, a status, or what else the client saw.
        served_by: Port of the destination that responded, ``None`` if none did.
    """

    kind: str
    started: float
    seconds: float
    outcome: str
    served_by: int | None

    @property
    def failed(self) -> bool:
        """Whether the client got an error."""
        return self.outcome != "ok"


@dataclass(slots=True)
class Load:
    """The clients.

    Attributes:
        ports: Of the gateways on this machine. With several, each request has a connection of its
            own, so that all of their processes get some.
        gets: GETs a second.
        posts: POSTs a second.
        streams: Event streams at any time; as many WebSockets.
        records: Everything that has ended.
    """

    ports: list[int]
    gets: float
    posts: float
    streams: int
    records: list[Record] = field(default_factory=list)
    _idle: list[tuple[float, Client]] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send the load until the end of the block, then wait for what is under way."""
        stop = asyncio.Event()
        loops = [
            asyncio.create_task(self._by_the_clock(self._get, self.gets, stop)),
            asyncio.create_task(self._by_the_clock(self._post, self.posts, stop)),
            *(asyncio.create_task(self._again(self._sse, stop)) for _ in range(self.streams)),
            *(asyncio.create_task(self._again(self._ws, stop)) for _ in range(self.streams)),
        ]
        try:
            yield
        finally:
            stop.set()
            await asyncio.gather(*loops)
            await asyncio.gather(*self._tasks)
            for _, client in self._idle:
                client.close()

    async def _by_the_clock(
        self, send: Callable[[], Coroutine[Any, Any, None]], rate: float, stop: asyncio.Event
    ) -> None:
        due = time.monotonic()
        while not stop.is_set():
            due += 1 / rate
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), max(0.0, due - time.monotonic()))
            task = asyncio.create_task(send())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _again(
        self, carry: Callable[[], Coroutine[Any, Any, None]], stop: asyncio.Event
    ) -> None:
        while not stop.is_set():
            await carry()
            await asyncio.sleep(0.05)  # a client that is refused at once does not spin

    async def _get(self) -> None:
        await self._ask("get", request(target="/item"))

    async def _post(self) -> None:
        await self._ask("post", request("POST", "/order", body=_POST_BODY))

    async def _sse(self) -> None:
        await self._ask("sse", request(target="/events"))

    async def _ask(self, kind: str, raw: bytes) -> None:
        started = time.monotonic()
        served_by: int | None = None
        client: Client | None = None
        try:
            client = await self._connection()
            await client.send(raw)
            reply = await client.read_response()
            named = reply.one(b"x-served-by")
            served_by = None if named is None else int(named)
            if reply.ending is Ending.BROKEN:
                outcome = "broken off"
            else:
                outcome = "ok" if reply.status == 200 else str(reply.status)
                if len(self.ports) == 1 and reply.one(b"connection") != b"close":
                    self._idle.append((time.monotonic(), client))
                    client = None
        except (OSError, EOFError) as error:  # pragma: no cover - a gateway that fails itself
            outcome = type(error).__name__
        if client is not None:
            client.close()
        self._note(kind, started, outcome, served_by)

    @property
    def _address(self) -> tuple[str, int]:
        self.ports.append(self.ports.pop(0))
        return "127.0.0.1", self.ports[0]

    async def _connection(self) -> Client:
        # uvicorn closes what has been idle for five seconds; that race would be our own.
        young = time.monotonic() - _IDLE_SECONDS
        while self._idle:
            since, client = self._idle.pop()
            if since > young:
                return client
            client.close()
        reader, writer = await asyncio.open_connection(*self._address)
        return Client(reader, writer)

    async def _ws(self) -> None:
        started = time.monotonic()
        served_by: int | None = None
        outcome = "ok"
        try:
            async with connect(self._address) as client:
                response = await shake_hands(client, "/echo")
                if response.status == 101:
                    served_by = int(response.one(b"x-served-by") or b"0")
                    outcome = await _talk(WebSocketClient(client, response))
                else:
                    outcome = str(response.status)
        except (OSError, EOFError) as error:
            outcome = "broken off" if served_by is not None else type(error).__name__
        self._note("ws", started, outcome, served_by)

    def _note(self, kind: str, started: float, outcome: str, served_by: int | None) -> None:
        self.records.append(Record(kind, started, time.monotonic() - started, outcome, served_by))


async def _talk(client: WebSocketClient) -> str:
    """Exchange a few messages; give ``ok``, or how the WebSocket ended before."""
    for number in range(MESSAGES):
        await client.send(str(number))
        async with asyncio.timeout(5):
            if await client.recv() != str(number):
                return "broken off"
        await asyncio.sleep(MESSAGE_SECONDS)
    await client.close()
    return "ok"
