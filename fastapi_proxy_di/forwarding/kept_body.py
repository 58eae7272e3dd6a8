"""The body of a response as the app reads it: decoded, and kept to be sent as it came."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Iterator
from typing import TYPE_CHECKING, Final

from fastapi_proxy_di.errors import AnswerTooLarge, Failure, ProxyError, UpstreamProtocolError
from fastapi_proxy_di.transport.protocol import Headers
from fastapi_proxy_di.wire.content_coding import decoded_copy
from fastapi_proxy_di.wire.headers import list_members

if TYPE_CHECKING:
    from fastapi_proxy_di.forwarding.response import BodySource

__all__ = ["KeptBody"]


class KeptBody:
    """The body of one response, of which the app reads a decoded copy first.

    As a `BodySource` it gives the pieces that were read, as they came, and then the others.

    Args:
        source: Where the body is read.
        headers: The headers that the destination sent, names in lower case.

    Attributes:
        failure: Why the response broke off while the app read it, ``None`` if it did not.
    """

    def __init__(self, source: BodySource, headers: Headers) -> None:
        self.failure: ProxyError | None = None
        self._source: Final = source
        self._headers: Final = headers
        self._copy: Final = decoded_copy(headers)
        self._received: Final[deque[bytes]] = deque()
        self._received_bytes = 0
        self._ended = False
        self._decoding: Iterator[bytes] = iter(())
        self._decoded: list[bytes] = []
        self._decoded_bytes = 0

    @property
    def complete(self) -> bool:
        """Whether the whole body was given, after ``read``."""
        return self._ended and not self._received

    @property
    def trailers(self) -> Headers:
        """The trailers, after the end of the body."""
        return self._source.trailers

    async def read(self) -> bytes:
        """Give the next piece of the body as it came; ``b""`` at its end.

        Raises:
            ProxyError: The response broke off, also if that was while the app read it.
        """
        if self._received:
            return self._received.popleft()
        if self.failure is not None:
            raise self.failure
        return await self._receive()

    async def content(self, limit: int) -> bytes:
        """Read the whole body and give it decoded; the same again if it was read before.

        Args:
            limit: Most bytes that are read, decoded or not.

        Raises:
            AnswerTooLarge: The body is longer. What was read is kept.
            ProxyError: The response broke off, or its coding cannot be decoded.
        """
        while max(self._decoded_bytes, self._received_bytes) <= limit:
            piece = await self._next()
            if piece is None:
                self._decoded = [b"".join(self._decoded)]
                return self._decoded[0]
            self._decoded.append(piece)
            self._decoded_bytes += len(piece)
        raise AnswerTooLarge(f"the body of the response is larger than {limit} bytes")

    async def pieces(self) -> AsyncGenerator[bytes]:
        """Give the decoded body piece by piece, and keep nothing of it.

        Raises:
            ProxyError: The response broke off, or its coding cannot be decoded.
        """
        decoded, self._decoded = self._decoded, []
        for piece in decoded:
            yield piece
        while (next_piece := await self._next()) is not None:
            self._received.clear()
            yield next_piece

    async def _next(self) -> bytes | None:
        """Give the next decoded piece, ``None`` at the end."""
        copy = self._copy
        if copy is None:
            codings = b", ".join(list_members(self._headers, b"content-encoding"))
            raise _undecodable(f"its content-encoding {codings.decode('latin-1')!r} is unknown")
        while True:
            for piece in self._decoding:
                return piece
            if copy.failed:
                raise _undecodable("it is malformed")
            if self._ended:
                return None
            if self.failure is not None:
                raise self.failure
            received = await self._receive()
            self._received.append(received)
            self._received_bytes += len(received)
            self._decoding = copy.feed(received)

    async def _receive(self) -> bytes:
        try:
            received = await self._source.read()
        except ProxyError as error:
            self.failure = error
            raise
        self._ended = self._source.complete
        return received


def _undecodable(why: str) -> UpstreamProtocolError:
    return UpstreamProtocolError(
        f"the body of the response cannot be decoded: {why}", failure=Failure.RESPONSE_BODY
    )
