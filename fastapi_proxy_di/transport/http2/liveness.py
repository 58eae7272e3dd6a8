"""Decides when a connection is asked by PING whether its other end is there.

A network that drops packets without a word leaves a connection that looks open. Go's client
(``ReadIdleTimeout``, ``PingTimeout``) and gRPC's keepalive notice it in the same way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context


class Liveness:
    """Sends a PING after silence or a timeout, and reports one without a response.

    There is one timer for a connection, however many streams it carries. Silence counts from
    the last bytes received, or from the first stream opened after them if none was open then. A
    stream that ends without a byte, because its client has left, does not end the silence: else
    clients that leave early, one after another, would all be sent to a lost connection. Go's
    client sends a PING with RST_STREAM as well; here that would keep new streams off a healthy
    connection, for one round trip, whenever a client leaves.

    Args:
        seconds: Silence before a PING, and time for its response; ``None`` for no PING.
        loop: The running loop.
        ping: Sends a PING.
        silent: Called if there was no response in time.

    Attributes:
        waiting: Whether a PING has no response yet.
    """

    def __init__(
        self,
        seconds: float | None,
        loop: asyncio.AbstractEventLoop,
        *,
        ping: Callable[[], None],
        silent: Callable[[], None],
    ) -> None:
        self.waiting: bool = False
        self._seconds = seconds
        self._loop = loop
        self._ping = ping
        self._silent = silent
        self._silent_since = loop.time()
        self._idle = True
        self._unanswered = False  # no bytes have arrived since a stream was opened
        self._timer: asyncio.TimerHandle | None = None

    def began(self) -> None:
        """Note that the connection has a new stream, whose silence is watched."""
        if self._idle:
            self._idle = False
            if not self._unanswered:
                self._silent_since = self._loop.time()
            if self._timer is None:
                self._start()
        self._unanswered = True

    def heard(self) -> None:
        """Note that bytes have arrived."""
        self._silent_since = self._loop.time()
        self._unanswered = False

    def idle(self) -> None:
        """Note that the connection has no stream.

        Silence means nothing then, unless no bytes have arrived since a stream was opened.
        """
        self._idle = True

    def doubt(self) -> None:
        """Send a PING at once, because a stream has timed out."""
        if self._seconds is not None and not self.waiting:
            self._ask()

    def acknowledged(self) -> None:
        """Note the response to the PING."""
        self.waiting = False
        self._start()

    def stop(self) -> None:
        """End the watch, because the connection has closed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start(self, after: float = 0.0) -> None:
        """Look again when ``seconds`` have passed, of which ``after`` have passed already."""
        self.stop()
        if self._seconds is not None:
            wait = self._seconds - after
            self._timer = self._loop.call_later(wait, self._look, context=Context())

    def _look(self) -> None:
        self._timer = None
        if self.waiting:
            self._silent()
        elif (self._unanswered or not self._idle) and self._seconds is not None:
            quiet = self._loop.time() - self._silent_since
            if quiet < self._seconds:
                self._start(quiet)
            else:
                self._ask()

    def _ask(self) -> None:
        self.waiting = True
        self._start()
        self._ping()
