"""Sends the client's request body to the destination, and notices the client's disconnect.

The body and the disconnect both come through the server's ``receive``, so one task reads them:
it sends the rest of the body to the exchange and then waits for ``http.disconnect``. The bytes
of a small body are kept, so that another attempt can send them again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final

from starlette.types import Message, Receive

from fastapi_proxy_di.errors import (
    ClientDisconnected,
    ProxyError,
    RequestBodyTimeout,
    RequestBodyTooLarge,
)
from fastapi_proxy_di.transport.protocol import TransportExchange

_AHEAD_BYTES: Final = 65536
"""How many bytes are read ahead while there is no exchange, or while it takes no more."""

_REFUSAL_SECONDS: Final = 1.0
"""How long reading stops after a refusal, so that its head reaches the server first."""

_DISCONNECT: Final = frozenset({"http.disconnect", "websocket.disconnect"})


async def client_left(receive: Receive) -> None:
    """Wait until the client disconnects; drop the messages before."""
    while (await receive())["type"] not in _DISCONNECT:
        pass


class RequestBody:
    """A request body, read from ``receive`` or given whole.

    Attributes:
        length: Length in bytes, ``None`` if it is unknown before the end.
        first: The bytes that the next attempt sends first.
        ended: Whether the whole body has been read.
        expects_continue: Whether the client waits for 100 Continue before it sends the body.
        awaits_client: Whether the next piece has to come from the client.

    Args:
        receive: The ASGI ``receive`` of the server.
        length: Length in bytes by Content-Length, ``None`` if the body is chunked.
        limit: Largest size in bytes, ``None`` for any.
        retain: Number of bytes kept for another attempt.
        expects_continue: Whether the client waits for 100 Continue before it sends the body.
    """

    __slots__ = (
        "_attached",
        "_exchange",
        "_held",
        "_limit",
        "_original",
        "_reading",
        "_receive",
        "_retain",
        "_retained",
        "_size",
        "_stopped",
        "_wait",
        "awaits_client",
        "ended",
        "expects_continue",
        "first",
        "length",
    )

    def __init__(
        self,
        receive: Receive,
        *,
        length: int | None,
        limit: int | None,
        retain: int,
        expects_continue: bool,
    ) -> None:
        self.length: int | None = length
        self.first: bytes = b""
        self.ended: bool = False
        self.expects_continue: bool = expects_continue
        self.awaits_client: bool = False
        self._receive = receive
        self._limit = limit
        self._retain = retain
        self._retained: list[bytes] | None = []
        self._size = 0
        self._original: bytes | None = None
        self._wait: float | None = None
        self._stopped = False
        self._exchange: TransportExchange | None = None
        self._attached: asyncio.Future[None] | None = None
        self._held: deque[bytes] = deque()
        self._reading: asyncio.Task[Message] | None = None
        if length is not None and limit is not None and length > limit:
            raise _too_large(limit)

    @property
    def at_hand(self) -> bytes:
        """The part of ``first`` that is sent with the head; ``attach`` sends the rest of it.

        A large body given whole is sent in pieces, so that each piece counts as activity.
        """
        return self.first[:_AHEAD_BYTES]

    @classmethod
    def whole(cls, receive: Receive, content: bytes, limit: int | None, retain: int) -> RequestBody:
        """Make a body whose content is known already."""
        body = cls(receive, length=len(content), limit=limit, retain=retain, expects_continue=False)
        body._take(content)
        body.first = content
        body.ended = True
        return body

    @property
    def kept(self) -> bool:
        """Whether all that was read so far is kept."""
        if self._original is not None:
            return True
        return self._retained is not None or len(self.first) == self._size

    def replayable(self, *, written: bool) -> bool:
        """Return whether another attempt can send the body.

        If the last attempt has sent some of the body, ``first`` becomes the whole body again.

        Args:
            written: Whether the last attempt has sent any of the body.
        """
        if not written:
            return True
        if not self.ended or self._retained is None:
            return False
        self.first = b"".join(self._retained)
        return True

    def release(self) -> None:
        """Forget what was kept for another attempt, because a response is passed on."""
        self._retained = self._original = None
        self.first = b""

    def given_back(self) -> Receive | None:
        """Return a ``receive`` that gives the body again from its beginning.

        Called once nothing reads from the client any more, after a failed exchange.

        Returns:
            The ``receive``; ``None`` if not all that was read is kept (``replay_bytes``).
        """
        if self._original is not None:
            read = self._original
        elif len(self.first) == self._size:
            read = self.first  # none of it was sent
        elif self._retained is not None:
            read = b"".join(self._retained)
        else:
            return None
        messages: deque[Message] = deque()
        if read or self.ended:
            messages.append({"type": "http.request", "body": read, "more_body": not self.ended})
        late = self._reading
        if late is not None and late.done() and not late.cancelled() and not late.exception():
            messages.append(late.result())  # it arrived just before reading ended
        receive = self._receive

        async def again() -> Message:
            return messages.popleft() if messages else await receive()

        return again

    def replace(self, content: bytes) -> None:
        """Send other content to destinations; ``given_back`` still gives what the client sent.

        Called once the whole body has been read and before anything is sent.
        """
        self._original = self.first
        self.first = content
        self.length = len(content)
        if self._retained is not None:
            self._retained = [content]

    async def prefetch(self, timeout: float | None) -> None:
        """Read the first or next piece, so that it is sent with the head.

        Not called for chunked bodies, whose client may first want to see a response.

        Raises:
            RequestBodyTimeout: No piece came in time.
            ClientDisconnected: The client disconnected.
        """
        try:
            async with asyncio.timeout(timeout):
                message = await self._receive()
        except TimeoutError:
            raise RequestBodyTimeout("the client sent nothing of its body in time") from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        self.first += self._take(message.get("body", b""))
        self.ended = not message.get("more_body", False) or self._size == self.length

    async def read_ahead(self, size: int, timeout: float | None) -> None:
        """Read until ``first`` has ``size`` bytes or the body has ended.

        Called before anything is sent and while no ``pump`` runs.

        Args:
            size: Number of bytes to read at least.
            timeout: Seconds to wait for each piece.

        Raises:
            RequestBodyTimeout: A piece did not come in time.
            RequestBodyTooLarge: The body is over its limit.
            ClientDisconnected: The client disconnected.
        """
        while len(self.first) < size and not self.ended:
            await self.prefetch(timeout)

    @property
    def size(self) -> int:
        """Number of bytes read so far."""
        return self._size

    async def attach(self, exchange: TransportExchange, sent: int, wait: float | None) -> None:
        """Send the rest of ``first`` to ``exchange``, which later gets the rest by ``pump``.

        Args:
            exchange: The transport exchange that takes the body.
            sent: Number of bytes of ``first`` that were sent with the head.
            wait: Seconds to wait for 100 Continue before the body is sent anyway.

        Raises:
            ProxyError: The exchange broke off.
        """
        while sent < len(self.first) and exchange.status < 300:
            late = self.first[sent : sent + _AHEAD_BYTES]
            sent += len(late)
            await exchange.write(late)
        if self.ended and sent == len(self.first):
            exchange.finish()
        self._exchange, self._wait = exchange, wait
        if self._attached is not None and not self._attached.done():
            self._attached.set_result(None)

    async def pump(self) -> None:
        """Send the rest of the body to the exchange; return when the client has disconnected.

        Before there is an exchange, because of a dial or a queue, the pump reads a little
        ahead, because a disconnect is only seen by reading.

        Raises:
            RequestBodyTooLarge: The body is over its limit.
        """
        try:
            if self.expects_continue and not self.ended:
                await self._asked_for()
                if self._stopped:
                    # Reading would make the server send 100 Continue before the refusal, which
                    # takes some turns of the loop to reach the server through middlewares.
                    await asyncio.sleep(_REFUSAL_SECONDS)
            if await self._carry():
                await client_left(self._next_message)
        finally:
            if self._reading is not None:
                self._reading.cancel()

    def stop(self) -> None:
        """Stop sending the body, because the response came before its end."""
        self._stopped = True

    async def _carry(self) -> bool:
        """Send the body to the transport exchange; return false if the client disconnected."""
        while not self._stopped:
            if self._held:
                data = self._held.popleft()
            elif self.ended:
                break
            else:
                if self._exchange is None and len(self.first) >= _AHEAD_BYTES:
                    await self._exchange_there()
                read = await self._read()
                if read is None:
                    return False
                data = read
            exchange = self._exchange
            if exchange is None:
                self.first += data
                continue
            try:
                room = exchange.offer(data)
                if self.ended and not self._held:
                    exchange.finish()
                elif not room and not await self._room(exchange, len(data)):
                    return False
            except ProxyError:
                break  # the exchange's own reader reports it
        return True

    async def _room(self, exchange: TransportExchange, waiting: int) -> bool:
        """Wait until the transport exchange takes more of the body.

        Reads a little ahead meanwhile, because a disconnect is only seen by reading.

        Args:
            exchange: The transport exchange that takes the body.
            waiting: Number of bytes that were offered and may not be sent yet.

        Returns:
            False if the client has disconnected.
        """
        loop = asyncio.get_running_loop()
        draining = loop.create_task(exchange.drain(), name="upload waits for its destination")
        try:
            while not draining.done():
                waits: list[asyncio.Task[Any]] = [draining]
                if waiting + sum(map(len, self._held)) < _AHEAD_BYTES:
                    if self._reading is None:
                        self._reading = loop.create_task(
                            _message(self._receive), name="upload reads ahead"
                        )
                    waits.append(self._reading)
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                if self._reading is not None and self._reading.done():
                    data = await self._read()
                    if data is None:
                        return False
                    self._held.append(data)
            await draining
        finally:
            if not draining.cancel() and not draining.cancelled():
                draining.exception()  # else asyncio logs it as never retrieved
        return True

    async def _read(self) -> bytes | None:
        """Return the next piece of the body, ``None`` if the client has disconnected."""
        self.awaits_client = True
        message = await self._next_message()
        self.awaits_client = False
        if message["type"] == "http.disconnect":
            return None
        data = self._take(message.get("body", b""))
        self.ended = not message.get("more_body", False)
        return data

    async def _next_message(self) -> Message:
        reading, self._reading = self._reading, None
        return await (self._receive() if reading is None else reading)

    async def _exchange_there(self) -> TransportExchange:
        if self._exchange is None:
            self._attached = asyncio.get_running_loop().create_future()
            await self._attached
        assert self._exchange is not None
        return self._exchange

    async def _asked_for(self) -> None:
        """Wait for the destination's 100 or refusal, for ``wait`` seconds at most."""
        exchange = await self._exchange_there()
        try:
            async with asyncio.timeout(self._wait):
                await exchange.continued()
        except TimeoutError:
            pass  # RFC 9110 section 10.1.1: a client must not wait for ever
        self._stopped = self._stopped or exchange.status >= 300

    def _take(self, data: bytes) -> bytes:
        self._size += len(data)
        if self._limit is not None and self._size > self._limit:
            raise _too_large(self._limit)
        if self._retained is not None:
            if self._size <= self._retain:
                self._retained.append(data)
            else:
                self._retained = None
        return data


async def _message(receive: Receive) -> Message:
    return await receive()


def _too_large(limit: int) -> RequestBodyTooLarge:
    return RequestBodyTooLarge(f"the request body is larger than {limit} bytes")
