"""One socket to a destination that speaks HTTP/2: many streams, one for each exchange.

``h2`` does framing, header compression and the state of streams; this file reads and writes its
bytes and passes its events to the exchanges.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import TYPE_CHECKING, Final, cast

from h2.config import H2Configuration
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    InformationalResponseReceived,
    PingAckReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import FrameTooLargeError, ProtocolError
from h2.settings import SettingCodes, Settings

from fastapi_proxy_di.errors import UpstreamConnectError
from fastapi_proxy_di.transport.dialling.dialler import DialledConnection
from fastapi_proxy_di.transport.http2.exchange import Http2Exchange
from fastapi_proxy_di.transport.http2.liveness import Liveness
from fastapi_proxy_di.transport.http2.streams import MalformedResponse, StreamFaultsConnection
from fastapi_proxy_di.transport.protocol import Headers

if TYPE_CHECKING:
    from fastapi_proxy_di.transport.http2.transport import Http2Transport

_STREAM_WINDOW_BYTES: Final = 256 * 1024
"""Bytes that a destination may send on a stream before they are read."""

_CONNECTION_WINDOW_BYTES: Final = 2**30
"""So large that only the window of its own stream makes a destination wait."""

_DEFAULT_WINDOW_BYTES: Final = 65535  # RFC 9113 section 6.9.2
_FRAME_HEAD_BYTES: Final = 9
_GOAWAY: Final = 0x7
_PING: Final = b"liveness"
_MAX_STREAMS: Final = 2**30 - 1
"""Stream identifiers of one connection, RFC 9113 section 5.1.1."""


class Http2Connection(DialledConnection, asyncio.Protocol):
    """The asyncio protocol of one upstream socket.

    Attributes:
        loop: The running loop.
        ready: Done when the destination's settings have arrived.
        idle_since: Loop time at which the last stream ended.
        write_paused: Whether the send buffer of the socket is full.

    Args:
        owner: The transport that has the connection.
        header_limit: Largest head of a response in bytes.
        ping_seconds: Silence before a PING, and time for its response; ``None`` for no PING.
        loop: The running loop.
    """

    def __init__(
        self,
        owner: Http2Transport,
        header_limit: int,
        ping_seconds: float | None,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.loop = loop
        self.ready: asyncio.Future[None] = loop.create_future()
        self.idle_since: float = loop.time()
        self.write_paused: bool = False
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._streams: dict[int, Http2Exchange] = {}
        self._begun = 0
        self._closing = False
        self._frame = bytearray()
        self._last_stream: int | None = None
        self._liveness = Liveness(ping_seconds, loop, ping=self._ping, silent=self._silent)
        config = H2Configuration(client_side=True, header_encoding=None)
        self._h2 = StreamFaultsConnection(config, header_limit)
        self._h2.local_settings = Settings(
            client=True,
            initial_values={
                SettingCodes.ENABLE_PUSH: 0,
                SettingCodes.INITIAL_WINDOW_SIZE: _STREAM_WINDOW_BYTES,
                SettingCodes.MAX_HEADER_LIST_SIZE: header_limit,
            },
        )

    # -- what the transport and the exchanges call ------------------------------------

    @property
    def has_room(self) -> bool:
        """Whether another stream may be opened."""
        return (
            not self._closing
            and not self._liveness.waiting
            and self._begun < _MAX_STREAMS
            and self._h2.open_outbound_streams < self._h2.remote_settings.max_concurrent_streams
        )

    @property
    def fresh(self) -> bool:
        """Whether no stream has been opened yet."""
        return not self._begun

    @property
    def streams(self) -> int:
        """Number of open streams."""
        return len(self._streams)

    def begin(self, headers: Headers, body: bytes, *, more: bool, bodied: bool) -> Http2Exchange:
        """Open a stream.

        Args:
            headers: The headers, pseudo-headers first.
            body: The first piece of the body.
            more: Whether more of the body follows.
            bodied: Whether there is a body, also one of zero bytes.
        """
        stream_id = self._h2.get_next_available_stream_id()
        self._h2.send_headers(stream_id, headers, end_stream=not bodied)
        exchange = Http2Exchange(
            self,
            stream_id,
            reused=self._begun > 0,
            now=self.loop.time(),
        )
        self._begun += 1
        self._streams[stream_id] = exchange
        self._liveness.began()
        if bodied:
            exchange.begin_body(body, more=more)
        self._write()
        return exchange

    def send(self, stream_id: int, data: bytearray, *, end: bool) -> int:
        """Send as much of ``data`` as the windows allow, and the end of the body after all of it.

        Returns:
            Number of bytes sent.
        """
        sent = 0
        try:
            while sent < len(data):
                room = min(
                    self._h2.local_flow_control_window(stream_id), self._h2.max_outbound_frame_size
                )
                if room <= 0:
                    break
                piece = bytes(data[sent : sent + room])
                self._h2.send_data(stream_id, piece)
                sent += len(piece)
            if end and sent == len(data):
                self._h2.end_stream(stream_id)
        except ProtocolError:
            # Reset by the destination, which wants no more of it; ``StreamReset`` follows.
            sent = len(data)
        self._write()
        return sent

    def acknowledge(self, size: int, stream_id: int) -> None:
        """Let the destination send ``size`` more bytes."""
        if size:
            self._h2.acknowledge_received_data(size, stream_id)
            self._write()

    def end(self, exchange: Http2Exchange, *, whole: bool) -> None:
        """End the stream of an exchange; reset it if it is incomplete (RFC 9113 section 6.4)."""
        self._streams.pop(exchange.stream_id, None)
        if not whole:
            with contextlib.suppress(ProtocolError):  # the destination was faster
                self._h2.reset_stream(exchange.stream_id, ErrorCodes.CANCEL)
            self._write()
        self._one_less()

    def doubt(self) -> None:
        """Ask by PING whether the destination is there, because a stream has timed out."""
        if not self._closing:
            self._liveness.doubt()

    def retire(self) -> None:
        """Open no more streams, and close the connection when none is left."""
        self._closing = True
        if not self._streams:
            self.abort()

    async def opened(self) -> None:
        """Wait for the destination's settings."""
        await self.ready

    def abandon(self) -> None:
        self.ready.cancel()
        self.abort()

    def abort(self) -> None:
        """Close the connection at once."""
        self._closing = True
        if self._transport is not None:
            self._transport.abort()

    # -- what asyncio calls -----------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            error = UpstreamConnectError("the destination does not speak HTTP/2 (ALPN)")
            self.ready.set_exception(error)
            return
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(_CONNECTION_WINDOW_BYTES - _DEFAULT_WINDOW_BYTES)
        self._write()

    def data_received(self, data: bytes) -> None:
        self._liveness.heard()
        try:
            events = self._h2.receive_data(self._without_goaway(data))
        except ProtocolError as error:
            self._write()  # GOAWAY
            self._break(f"is not speaking HTTP/2: {error}", error)
            return
        for event in events:
            self._take(event)
        last, self._last_stream = self._last_stream, None
        if last is not None:
            self._go_away(last)
        self._write()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        self._liveness.stop()
        self._owner.lost(self)
        if not self.ready.done():
            self.ready.set_exception(exc or ConnectionResetError("closed as soon as it was open"))
        self._fail_all("closed the connection", exc)

    def pause_writing(self) -> None:
        self.write_paused = True

    def resume_writing(self) -> None:
        self.write_paused = False
        self._flush_all()

    # -- inside -----------------------------------------------------------------------

    def _take(self, event: Event) -> None:
        if isinstance(event, RemoteSettingsChanged):
            if not self.ready.done():
                self.ready.set_result(None)
            self._flush_all()
            return
        if isinstance(event, WindowUpdated) and event.stream_id == 0:
            self._flush_all()
            return
        if isinstance(event, PingAckReceived):
            self._liveness.acknowledged()
            return
        if isinstance(event, MalformedResponse) and event.flow:
            self._h2.acknowledge_received_data(event.flow, event.stream_id)
        exchange = self._streams.get(getattr(event, "stream_id", None) or 0)
        if exchange is None:
            return
        if isinstance(event, ResponseReceived | InformationalResponseReceived):
            exchange.on_headers(event.headers)
        elif isinstance(event, DataReceived):
            exchange.on_data(event.data, event.flow_controlled_length)
        elif isinstance(event, TrailersReceived):
            exchange.on_trailers(event.headers)
        elif isinstance(event, StreamEnded):
            exchange.on_end()
        elif isinstance(event, WindowUpdated):
            exchange.flush()
        elif isinstance(event, StreamReset):
            self._drop(exchange)
            reason = f"reset the stream ({event.error_code})"
            if event.error_code is ErrorCodes.REFUSED_STREAM:
                exchange.on_not_processed(reason)
            else:
                exchange.on_broken(reason)
            self._one_less()
        elif isinstance(event, MalformedResponse):
            self._drop(exchange)
            exchange.on_broken(event.reason, malformed=True)
            self._one_less()

    def _drop(self, exchange: Http2Exchange) -> None:
        """Forget a stream that is reset, and give the connection's window back."""
        del self._streams[exchange.stream_id]
        exchange.give_back()

    def _one_less(self) -> None:
        if not self._streams:
            self.idle_since = self.loop.time()
            self._liveness.idle()
            self._owner.became_idle(self)

    def _without_goaway(self, data: bytes) -> bytes:
        """Take GOAWAY frames out of the received bytes.

        ``h2`` refuses all frames after a GOAWAY, although the destination still responds on
        the streams that it has accepted (RFC 9113 section 6.8).
        """
        self._frame += data
        passed = bytearray()
        while len(self._frame) >= _FRAME_HEAD_BYTES:
            length = int.from_bytes(self._frame[:3], "big")
            if length > self._h2.max_inbound_frame_size:
                raise FrameTooLargeError("a frame is too large")
            end = _FRAME_HEAD_BYTES + length
            if len(self._frame) < end:
                break
            frame = self._frame[:end]
            del self._frame[:end]
            if frame[3] == _GOAWAY:
                self._last_stream = int.from_bytes(frame[9:13], "big") & 0x7FFFFFFF
            else:
                passed += frame
        return bytes(passed)

    def _go_away(self, last: int) -> None:
        """Handle GOAWAY: fail the streams above ``last``, which were not processed, and retire."""
        for stream_id in [one for one in self._streams if one > last]:
            self._streams.pop(stream_id).on_not_processed("ended the connection")
        self._owner.forget(self)
        self.retire()

    def _break(self, reason: str, cause: ProtocolError) -> None:
        if not self.ready.done():
            # No request has been sent, so it may go to another destination.
            error = UpstreamConnectError(f"the destination {reason}")
            error.__cause__ = cause
            self.ready.set_exception(error)
        self._closing = True
        self._fail_all(str(cause), cause, malformed=True)
        self.abort()

    def _fail_all(self, reason: str, cause: Exception | None, *, malformed: bool = False) -> None:
        """Fail all streams; one of them counts against the destination, for the connection."""
        streams, self._streams = self._streams, {}
        counted = False
        for exchange in streams.values():
            failed = exchange.on_broken(reason, cause, malformed=malformed, counts=not counted)
            counted = counted or failed

    def _ping(self) -> None:
        self._h2.ping(_PING)
        self._write()

    def _silent(self) -> None:
        self._closing = True
        self._fail_all("did not respond to a PING", None)
        self.abort()

    def _flush_all(self) -> None:
        for exchange in list(self._streams.values()):
            exchange.flush()

    def _write(self) -> None:
        data = self._h2.data_to_send()
        if data and self._transport is not None:
            self._transport.write(data)
