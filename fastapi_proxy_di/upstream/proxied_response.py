"""The response that ``Balancer.forward`` gives: a Starlette ``Response``."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final

from starlette.background import BackgroundTask
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from fastapi_proxy_di.forwarding.response import LocalResponse, UpstreamResponse
from fastapi_proxy_di.transport.protocol import Headers

__all__ = ["ProxiedResponse"]

_LIMIT: Final = 1_048_576


class ProxiedResponse(Response):
    """An upstream's response whose head has arrived; its body is streamed when it is sent.

    ``status_code`` and ``headers`` may be changed before it is sent. A response that is not sent
    is closed at the end of the request; ``aclose`` closes it at once.
    """

    def __init__(self, response: UpstreamResponse | LocalResponse) -> None:
        self._response = response
        self.status_code: int = response.status
        self.raw_headers: Headers = response.headers
        self.background: BackgroundTask | None = None
        self._content: bytes | None = None

    @property
    def body(self) -> bytes:  # type: ignore[override]  # Starlette has an attribute
        """The body, decoded.

        Raises:
            AttributeError: It was not read; as with a ``StreamingResponse`` there is no body yet.
        """
        if self._content is None:
            raise AttributeError(
                "the body of a proxied response is a stream; `await response.read()` reads it"
            )
        return self._content

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response to the client; called by Starlette."""
        self._response.status = self.status_code
        self._response.headers = self.raw_headers
        await self._response(scope, receive, send)
        if self.background is not None:
            await self.background()

    async def read(self, limit: int = _LIMIT) -> bytes:
        """Read the whole body, which is still sent as it came if the response is returned.

        A body in gzip or deflate is decoded, and one in br or zstd where a library is installed.
        A second call gives the same. Timeouts hold while the body is read.

        Args:
            limit: Most bytes that are read, decoded or not; by default 1 MiB.

        Raises:
            AnswerTooLarge: The body is longer. What was read is kept, and sent if the response is
                returned.
            ProxyError: The response broke off, or cannot be decoded.
            RuntimeError: The response has been sent or closed.
        """
        if self._content is None:
            if isinstance(self._response, LocalResponse):
                self._content = self._response.body
            else:
                self._content = await self._response.kept().content(limit)
        return self._content

    async def iter_bytes(self) -> AsyncGenerator[bytes]:
        """Read the body piece by piece, decoded as in ``read``, instead of sending the response.

        The response is closed at the end. To end early, close the iterator
        (``contextlib.aclosing``) or the response.

        Raises:
            ProxyError: The response broke off, or cannot be decoded.
            RuntimeError: The response has been sent or closed.
        """
        if isinstance(self._response, LocalResponse):
            yield self._response.body
            return
        try:
            async for piece in self._response.kept().pieces():
                yield piece
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Drop the response and end its exchange at once."""
        await self._response.aclose()
