"""One request to an in-process app and its answer, message by message.

Both directions hold at most `HIGH_WATER_BYTES`: who produces waits for who consumes. When
the exchange ends early the app is told as by a server: ``http.disconnect``, and ``OSError``
from ``send``; it is not cancelled. What it does after its answer it finishes.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from typing import Any, Final

from fastapi_proxy_di.errors import (
    Failure,
    UpstreamDisconnected,
    UpstreamProtocolError,
)
from fastapi_proxy_di.transport.asgi.inner_app import AsgiApp, Message
from fastapi_proxy_di.transport.protocol import Headers
from fastapi_proxy_di.wire.headers import TOKEN

_logger = logging.getLogger("fastapi_proxy_di.asgi")

HIGH_WATER_BYTES: Final = 65536
"""Bytes held in one direction at which its producer waits."""

_BODYLESS_STATUSES: Final = frozenset({204, 304})
_UNSAFE: Final = re.compile(rb"[\x00\r\n]")


class AsgiExchange:
    """An `TransportExchange` with an app; see there for the meaning of its members.

    Args:
        scope: The app's.
        body: What is at hand of the request's body.
        more: Whether ``write`` and ``finish`` follow.
    """

    def __init__(self, scope: dict[str, Any], body: bytes, *, more: bool) -> None:
        self.status: int = 0
        self.headers: Headers = []
        self.trailers: Headers = []
        self.reused = False
        self.answered: bool = False
        self.complete: bool = False
        self.on_informational: Callable[[int, Headers], None] | None = None
        self._loop = asyncio.get_running_loop()
        self.last_activity: float = self._loop.time()
        self._scope = scope
        self._bodyless = scope.get("method") == "HEAD"
        self._error: BaseException | None = None
        self._gone = False
        # Up: from the client to the app.
        self._upload: list[bytes] = [body] if body else []
        self._upload_size = len(body)
        self._upload_ended = not more
        self._upload_told = False
        self._asked = False
        # Down: from the app to the client.
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._remaining: int | None = None
        self._body_ended = False
        self._sends_trailers = False
        # One signal for each who may wait: the forwarder's two sides and the app's two.
        self._answer_moved = asyncio.Event()
        self._answer_taken = asyncio.Event()
        self._upload_moved = asyncio.Event()
        self._upload_taken = asyncio.Event()

    # -- what the forwarder calls ---------------------------------------------------

    async def head(self) -> None:
        while not self.status:
            await self._answer()

    async def read(self) -> bytes:
        while not self._chunks:
            if self.complete:
                return b""
            await self._answer()
        data = b"".join(self._chunks)
        self._chunks.clear()
        self._buffered = 0
        self._answer_taken.set()
        return data

    async def continued(self) -> None:
        while not self._asked and not self.answered and self._error is None:
            self._upload_taken.clear()
            await self._upload_taken.wait()

    @property
    def stalled_by_reader(self) -> bool:
        return self._buffered > HIGH_WATER_BYTES

    def offer(self, data: bytes) -> bool:
        self._upload.append(data)
        self._upload_size += len(data)
        self._upload_moved.set()
        self.last_activity = self._loop.time()
        if self._error is not None:
            raise self._error
        return self._upload_size <= HIGH_WATER_BYTES

    async def drain(self) -> None:
        while self._upload_size > HIGH_WATER_BYTES and not self._over:
            self._upload_taken.clear()
            await self._upload_taken.wait()
        if self._error is not None:
            raise self._error

    async def write(self, data: bytes) -> None:
        self.offer(data)
        await self.drain()

    def finish(self) -> None:
        self._upload_ended = True
        self._upload_moved.set()

    def fail(self, error: BaseException) -> None:
        if self._error is None and not self.complete:
            self._error = error
        self._leave()

    def close(self) -> None:
        if not self.complete:
            self._leave()

    def detach(self) -> tuple[asyncio.Transport, bytes]:
        raise UpstreamProtocolError("an in-process app has no socket to hand over")

    # -- the app's side -------------------------------------------------------------

    async def run(self, app: AsgiApp) -> None:
        """Call the app; its end is the end of the answer."""
        try:
            await app(self._scope, self._receive, self._send)
        except asyncio.CancelledError:
            self._broken("was stopped with the upstream", None)
            raise
        except Exception as error:
            if not self._gone:
                _logger.exception("an in-process app raised")
            self._broken(f"raised {type(error).__name__}", error)
        else:
            self._broken("returned before its answer was whole", None)

    async def _receive(self) -> Message:
        while not self._over:
            if self._upload or (self._upload_ended and not self._upload_told):
                body = b"".join(self._upload)
                self._upload.clear()
                self._upload_size = 0
                self._upload_told = self._upload_ended
                self._upload_taken.set()
                self.last_activity = self._loop.time()
                return {
                    "type": "http.request",
                    "body": body,
                    "more_body": not self._upload_told,
                }
            self._asked = True
            self._upload_taken.set()
            self._upload_moved.clear()
            await self._upload_moved.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if self._gone:
            raise OSError("the client has left")
        self.last_activity = self._loop.time()
        what: str = message["type"]
        if what == "http.response.start" and not self.status:
            self._begin(message)
        elif what == "http.response.body" and self.status and not self._body_ended:
            self._piece(message)
        elif what == "http.response.trailers" and self._body_ended and not self.complete:
            self.trailers += fields_in(message)
            self.complete = not message.get("more_trailers", False)
        else:
            raise RuntimeError(f"{what!r} must not be sent now")
        self._moved()
        while self._buffered > HIGH_WATER_BYTES and not self._over:
            self._answer_taken.clear()
            await self._answer_taken.wait()
        if self._gone:
            raise OSError("the client has left")

    # -- inside ---------------------------------------------------------------------

    @property
    def _over(self) -> bool:
        """Whether nothing can come of waiting: the answer is whole, or nobody wants it."""
        return self._gone or self.complete

    def _begin(self, message: Message) -> None:
        status: int = message["status"]
        headers = fields_in(message)
        if not 200 <= status <= 599:
            raise self._malformed(f"status {status} is not valid")
        for name, value in headers:
            if not TOKEN.match(name) or _UNSAFE.search(value):
                raise self._malformed(f"the header field {name!r} is not valid")
            if name == b"content-length" and not value.isdigit():
                raise self._malformed("Content-Length is not a number")
        lengths = {int(value) for name, value in headers if name == b"content-length"}
        if len(lengths) > 1:
            raise self._malformed("two different Content-Length fields")
        self._bodyless = self._bodyless or status in _BODYLESS_STATUSES
        if lengths and not self._bodyless:
            self._remaining = lengths.pop()
        self._sends_trailers = bool(message.get("trailers", False))
        self.headers = headers
        self.status = status

    def _piece(self, message: Message) -> None:
        data: bytes = b"" if self._bodyless else bytes(message.get("body", b""))
        more: bool = message.get("more_body", False)
        if self._remaining is not None:
            self._remaining -= len(data)
            if self._remaining < 0 or (self._remaining and not more):
                raise self._malformed("the body is not as long as its Content-Length")
        if data:
            self._chunks.append(data)
            self._buffered += len(data)
        if not more:
            self._body_ended = True
            self.complete = not self._sends_trailers

    def _malformed(self, reason: str) -> Exception:
        failure = Failure.RESPONSE_BODY if self.status else Failure.RESPONSE_MALFORMED
        self.fail(UpstreamProtocolError(f"malformed answer: {reason}", failure=failure))
        return RuntimeError(reason)

    def _broken(self, what: str, cause: Exception | None) -> None:
        """The app is done; if its answer is not, that breaks it."""
        if self._over:
            return
        failure = Failure.RESPONSE_BODY if self.status else Failure.RESPONSE_HEAD
        error = UpstreamDisconnected(f"the in-process app {what}", failure=failure)
        error.__cause__ = cause
        self.fail(error)

    async def _answer(self) -> None:
        """Wait until the app has said more."""
        if self._error is not None:
            raise self._error
        self._answer_moved.clear()
        await self._answer_moved.wait()

    def _moved(self) -> None:
        """The app has said something."""
        self.answered = True
        self._answer_moved.set()
        self._upload_taken.set()
        if self.complete:
            self._upload_moved.set()

    def _leave(self) -> None:
        """Nobody wants the answer any more."""
        self._gone = True
        for signal in (
            self._answer_moved,
            self._answer_taken,
            self._upload_moved,
            self._upload_taken,
        ):
            signal.set()


def fields_in(message: Message) -> Headers:
    """The header fields of a message of the app, names in lower case."""
    return [(bytes(name).lower(), bytes(value)) for name, value in message.get("headers", ())]
