"""One request to an in-process app and its response, as ASGI messages.

Each direction buffers at most `BODY_HIGH_WATER_BYTES`; then its sender waits. When the exchange
ends early, the app sees the same as behind a server: ``http.disconnect``, and ``OSError`` from
``send``. The app is not cancelled, so its background tasks run to their end.
"""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any, Final

from fastapi_proxy_di.errors import UpstreamProtocolError
from fastapi_proxy_di.transport.asgi.inner_app import InnerApp, Message
from fastapi_proxy_di.transport.exchange import BODY_HIGH_WATER_BYTES, BaseExchange
from fastapi_proxy_di.transport.protocol import Headers
from fastapi_proxy_di.transport.signal import Signal
from fastapi_proxy_di.wire.headers import TOKEN

_BODYLESS_STATUSES: Final = frozenset({204, 304})
_UNSAFE: Final = re.compile(rb"[\x00\r\n]")


class AsgiExchange(BaseExchange):
    """A `TransportExchange` with an app; see there for the meaning of its members.

    Args:
        scope: The ASGI scope for the app.
        body: The first piece of the request's body, ``b""`` if none has arrived.
        more: Whether ``write`` and ``finish`` follow.
    """

    trailers: Headers
    complete: bool
    last_activity: float

    def __init__(self, scope: dict[str, Any], body: bytes, *, more: bool) -> None:
        self.reused = False
        self._loop = asyncio.get_running_loop()
        self.last_activity = self._loop.time()
        self._scope = scope
        self._bodyless = scope.get("method") == "HEAD"
        self._gone = False
        # Up: from the client to the app.
        self._upload: list[bytes] = [body] if body else []
        self._upload_size = len(body)
        self._upload_ended = not more
        self._end_received = False
        # Down: from the app to the client.
        self._remaining: int | None = None
        self._body_ended = False
        self._sends_trailers = False
        # The forwarder waits for the app to take the upload; the app for more of it, and for
        # the forwarder to take the response.
        self._upload_taken = Signal()
        self._upload_moved = Signal()
        self._response_taken = Signal()

    # -- what the forwarder calls ---------------------------------------------------

    @property
    def stalled_by_reader(self) -> bool:
        return self._buffered > BODY_HIGH_WATER_BYTES

    def offer(self, data: bytes) -> bool:
        self._upload.append(data)
        self._upload_size += len(data)
        self._upload_moved.notify()
        self.last_activity = self._loop.time()
        if self._error is not None:
            raise self._error
        return self._upload_size <= BODY_HIGH_WATER_BYTES

    async def drain(self) -> None:
        while self._upload_size > BODY_HIGH_WATER_BYTES and not self._over:
            await self._upload_taken.wait()
        if self._error is not None:
            raise self._error

    def finish(self) -> None:
        self._upload_ended = True
        self._upload_moved.notify()

    def close(self) -> None:
        if not self.complete:
            self._let_go()
            self._wake()

    def detach(self) -> tuple[asyncio.Transport, bytes]:
        raise UpstreamProtocolError("an in-process app has no socket to hand over")

    # -- the app's side -------------------------------------------------------------

    async def run(self, inner: InnerApp) -> None:
        """Call the app; fail the exchange if the app ends before its response is complete."""
        try:
            await inner.app(self._scope, self._receive, self._send)
        except asyncio.CancelledError:
            self._broken("was stopped with the upstream", None)
            raise
        except Exception as error:  # noqa: BLE001  # whatever the app raises
            if not self._gone:
                inner.log(logging.ERROR, f"raised {type(error).__name__}", error)
            self._broken(f"raised {type(error).__name__}", error)
        else:
            self._broken("returned before its response was complete", None)

    async def _receive(self) -> Message:
        while not self._over:
            if self._upload or (self._upload_ended and not self._end_received):
                body = b"".join(self._upload)
                self._upload.clear()
                self._upload_size = 0
                self._end_received = self._upload_ended
                self._upload_taken.notify()
                self.last_activity = self._loop.time()
                return {
                    "type": "http.request",
                    "body": body,
                    "more_body": not self._end_received,
                }
            self._body_wanted = True
            self._release_body()
            self._upload_taken.notify()
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
            self.trailers = [*self.trailers, *headers_in(message)]
            self.complete = not message.get("more_trailers", False)
        else:
            raise RuntimeError(f"{what!r} must not be sent now")
        self._moved()
        while self._buffered > BODY_HIGH_WATER_BYTES and not self._over:
            await self._response_taken.wait()
        if self._gone:
            raise OSError("the client has left")

    # -- inside ---------------------------------------------------------------------

    @property
    def _over(self) -> bool:
        """Whether the response is complete or has failed."""
        return self._gone or self.complete

    def _begin(self, message: Message) -> None:
        status: int = message["status"]
        headers = headers_in(message)
        if not 200 <= status <= 599:
            raise self._refuse(f"status {status} is not valid")
        for name, value in headers:
            if not TOKEN.match(name) or _UNSAFE.search(value):
                raise self._refuse(f"the header field {name!r} is not valid")
            if name == b"content-length" and not value.isdigit():
                raise self._refuse("Content-Length is not a number")
        lengths = {int(value) for name, value in headers if name == b"content-length"}
        if len(lengths) > 1:
            raise self._refuse("two different Content-Length fields")
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
                raise self._refuse("the body is not as long as its Content-Length")
        if data:
            self._keep(data)
            self._buffered += len(data)
        if not more:
            self._body_ended = True
            self.complete = not self._sends_trailers

    def _refuse(self, reason: str) -> Exception:
        """Fail the exchange, and return the exception that the app's ``send`` raises."""
        self._malformed(reason)
        return RuntimeError(reason)

    def _broken(self, what: str, cause: Exception | None) -> None:
        """Fail the exchange if the app has ended before its response was complete."""
        if self._over:
            return
        self.fail(self._disconnected(f"the in-process app {what}", cause))

    def _moved(self) -> None:
        """Wake the reader of the response: the app has sent a message."""
        self.answered = True
        self._wake()
        self._upload_taken.notify()
        if self.complete:
            self._upload_moved.notify()

    def _take(self) -> bytes:
        data = super()._take()
        self._response_taken.notify()
        return data

    def _let_go(self) -> None:
        self._gone = True
        for signal in (self._upload_taken, self._upload_moved, self._response_taken):
            signal.notify()


def headers_in(message: Message) -> Headers:
    """Give the headers of a message from the app, names in lower case."""
    return [(bytes(name).lower(), bytes(value)) for name, value in message.get("headers", ())]
