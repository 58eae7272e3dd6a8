"""The client's request body on its way up, and the client's departure.

Both come through the server's ``receive``, so one reader serves both: it carries the rest
of the body to the exchange and then waits for ``http.disconnect``. What has been read of a
small body is retained, so that another attempt can send it again.
"""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.types import Receive

from fastapi_proxy_di.errors import (
    ClientDisconnected,
    ProxyError,
    RequestBodyTimeout,
    RequestBodyTooLarge,
)
from fastapi_proxy_di.transport.transport import Exchange

_DISCONNECT: Final = frozenset({"http.disconnect", "websocket.disconnect"})


async def client_left(receive: Receive) -> None:
    """Wait until the client has left; what it still sends is dropped."""
    while (await receive())["type"] not in _DISCONNECT:
        pass


class RequestBody:
    """A request body, read from ``receive`` or given whole.

    Attributes:
        length: Bytes in all, ``None`` if only its end will tell.
        first: What is at hand for the next attempt.
        ended: Whether ``first`` is all of it.
        pumping: Whether the rest is already on its way to an exchange.

    Args:
        receive: The server's.
        length: From Content-Length, ``None`` when chunked.
        limit: Largest size in bytes, ``None`` for any.
        retain: Bytes kept for another attempt.
        expects_continue: The client waits for 100 before it sends.
    """

    __slots__ = (
        "_limit",
        "_receive",
        "_retain",
        "_retained",
        "_size",
        "_stopped",
        "ended",
        "expects_continue",
        "first",
        "length",
        "pumping",
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
        self.length = length
        self.first = b""
        self.ended = False
        self.pumping = False
        self.expects_continue = expects_continue
        self._receive = receive
        self._limit = limit
        self._retain = retain
        self._retained: list[bytes] | None = []
        self._size = 0
        self._stopped = False
        if length is not None and limit is not None and length > limit:
            raise _too_large(limit)

    @classmethod
    def whole(cls, receive: Receive, content: bytes, limit: int | None) -> RequestBody:
        """A body that is at hand already."""
        body = cls(receive, length=len(content), limit=limit, retain=0, expects_continue=False)
        body.first = content
        body.ended = True
        return body

    @property
    def replayable(self) -> bool:
        """Whether ``first`` still is what a further attempt has to begin with."""
        if not self.pumping:
            return True
        if self.ended and self._retained is not None:
            self.first = b"".join(self._retained)
            return True
        return False

    async def prefetch(self, timeout: float | None) -> None:
        """Read the first piece, so that it travels with the head.

        A declared length means that bytes are on their way; without one the client may
        first want to see an answer, so then nothing is waited for.

        Raises:
            RequestBodyTimeout: Nothing came in time.
            ClientDisconnected: The client left.
        """
        try:
            async with asyncio.timeout(timeout):
                message = await self._receive()
        except TimeoutError:
            raise RequestBodyTimeout("the client sent nothing of its body in time") from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        self.first = message.get("body", b"")
        self._count(self.first)
        self.ended = not message.get("more_body", False) or self._size == self.length

    async def pump(self, exchange: Exchange, wait: float | None) -> None:
        """Carry the rest to ``exchange``; returns when the client has left.

        Args:
            exchange: Where the body goes.
            wait: Seconds to wait for 100 Continue before sending anyway.

        Raises:
            RequestBodyTooLarge: It is over its limit.
        """
        self.pumping = True
        if self.expects_continue:
            try:
                async with asyncio.timeout(wait):
                    await exchange.continued()
            except TimeoutError:
                pass  # RFC 9110 section 10.1.1: a client must not wait for ever
            self._stopped = self._stopped or exchange.status >= 300
        while not self.ended and not self._stopped:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                return
            data = message.get("body", b"")
            self._count(data)
            self.ended = not message.get("more_body", False)
            try:
                await exchange.write(data)
                if self.ended:
                    exchange.finish()
            except ProxyError:
                break  # the exchange's own reader reports it
        await client_left(self._receive)

    def stop(self) -> None:
        """The answer is there and wants no more of the body."""
        self._stopped = True

    def _count(self, data: bytes) -> None:
        self._size += len(data)
        if self._limit is not None and self._size > self._limit:
            raise _too_large(self._limit)
        if self._retained is not None:
            if self._size <= self._retain:
                self._retained.append(data)
            else:
                self._retained = None


def _too_large(limit: int) -> RequestBodyTooLarge:
    return RequestBodyTooLarge(f"the request body is larger than {limit} bytes")
