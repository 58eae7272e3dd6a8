"""Makes ``h2`` end one stream for a malformed response, and leave the connection open.

``h2`` raises ``ProtocolError`` for faults of a stream and of the connection alike, and closes the
connection for both. A malformed response is a fault of its stream (RFC 9113 section 8.1.1), and so
is a head over the limit (section 10.5.1). The header block is decoded before the stream sees it, so
the state of header compression stays right.

To decode a head that is refused costs time and memory, so the decoder has a limit of its own, eight
times as large. Where a head is larger still, the rest of it is not decoded and the connection ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import Event, InformationalResponseReceived, ResponseReceived
from h2.exceptions import InvalidBodyLengthError, ProtocolError, StreamClosedError
from h2.stream import H2Stream, StreamClosedBy, StreamState
from hyperframe.frame import RstStreamFrame

from fastapi_proxy_di.transport.http2.encoder import PlainEncoder

if TYPE_CHECKING:
    from h2.connection import AllowedStreamIDs
    from hpack import Encoder
    from hpack.struct import Header
    from hyperframe.frame import Frame

_SWITCHING_PROTOCOLS: Final = b"101"
_WITHOUT_BODY: Final = frozenset({b"204", b"304"})
"""Statuses whose responses have no body (RFC 9110 section 6.4.1)."""
_DECODED_HEADS: Final = 8
"""The decoder's limit, as a multiple of the largest head. The decoder adds 32 bytes to each field
(RFC 7541 section 4.1) where the limit adds 4: what is within the limit is never over the
decoder's."""


class MalformedResponse(Event):
    """A response was malformed, and its stream is reset.

    Args:
        stream_id: Identifier of the stream.
        reason: What is wrong, without anything that the destination sent.
        flow: Bytes of the connection's window that the refused frame used.
    """

    def __init__(self, stream_id: int, reason: str, flow: int) -> None:
        self.stream_id: int = stream_id
        self.reason: str = reason
        self.flow: int = flow


class StreamFaultsConnection(H2Connection):
    """An ``H2Connection`` whose own streams end alone, with a `MalformedResponse`.

    Args:
        config: As for ``H2Connection``.
        header_limit: Largest head of a response, and largest trailers, in bytes.
    """

    def __init__(self, config: H2Configuration, header_limit: int) -> None:
        super().__init__(config)
        self._header_limit = header_limit
        self.encoder: Encoder = PlainEncoder()
        self.decoder.max_header_list_size = _DECODED_HEADS * header_limit

    def _begin_new_stream(self, stream_id: int, allowed_ids: AllowedStreamIDs) -> H2Stream:
        # h2 has no setting for the class of streams.
        super()._begin_new_stream(stream_id, allowed_ids)
        stream = _Stream(
            stream_id,
            config=self.config,
            inbound_window_size=self.local_settings.initial_window_size,
            outbound_window_size=self.remote_settings.initial_window_size,
        )
        stream.header_limit = self._header_limit
        stream.max_outbound_frame_size = self.max_outbound_frame_size
        self.streams[stream_id] = stream
        return stream


class _Stream(H2Stream):
    """A stream that resets itself for a malformed response."""

    header_limit: int

    def receive_headers(
        self, headers: Iterable[Header], end_stream: bool, header_encoding: bool | str | None
    ) -> tuple[list[Frame], list[Event]]:
        try:
            frames, events = super().receive_headers(headers, end_stream, header_encoding)
            if end_stream:
                self._track_content_length(0, end_stream=True)  # h2 does so for DATA alone
        except StreamClosedError:
            raise  # the frame was sent before the destination knew of the end of the stream
        except InvalidBodyLengthError as error:
            return self._malformed(_wrong_length(error), 0)
        except ProtocolError:
            # h2's text may quote the value of a header, which may be a secret.
            return self._malformed("a header breaks RFC 9113 section 8", 0)
        if sum(len(name) + len(value) + 4 for name, value in headers) > self.header_limit:
            limit = f"limits.max_response_header_bytes={self.header_limit}"
            return self._malformed(f"the header is over {limit}", 0)
        head = events[0]
        if isinstance(head, ResponseReceived | InformationalResponseReceived):
            fault = _head_fault(head.headers)
            if fault:
                return self._malformed(fault, 0)
        return frames, events

    def receive_data(
        self, data: bytes, end_stream: bool, flow_control_len: int
    ) -> tuple[list[Frame], list[Event]]:
        try:
            return super().receive_data(data, end_stream, flow_control_len)
        except StreamClosedError:
            raise
        except InvalidBodyLengthError as error:
            return self._malformed(_wrong_length(error), flow_control_len)
        except ProtocolError as error:
            return self._malformed(str(error), flow_control_len)

    def _initialize_content_length(self, headers: Iterable[Header]) -> None:
        """Read the length of the body from the head.

        h2 would read it again from trailers, and would expect a body of a 304, whose
        Content-Length is that of a body that is not sent (RFC 9110 section 15.4.5).
        """
        status = next((value for name, value in headers if name == b":status"), None)
        if status in _WITHOUT_BODY:
            self._expected_content_length = 0
        elif status is not None:
            super()._initialize_content_length(headers)

    def _malformed(self, reason: str, flow: int) -> tuple[list[Frame], list[Event]]:
        # Not by ``reset_stream``, which refuses a stream that the fault or its end has closed. By
        # ``stream_closed_by``, h2 knows that frames which are under way are no fault.
        self.state_machine.state = StreamState.CLOSED
        self.state_machine.stream_closed_by = StreamClosedBy.SEND_RST_STREAM
        reset = RstStreamFrame(self.stream_id)
        reset.error_code = ErrorCodes.PROTOCOL_ERROR
        return [reset], [MalformedResponse(self.stream_id, reason, flow)]


def _wrong_length(error: InvalidBodyLengthError) -> str:
    return f"a body of {error.actual_length} bytes instead of {error.expected_length}"


def _head_fault(headers: Iterable[Header]) -> str:
    """Say what is wrong with a head that ``h2`` accepts; empty if nothing is."""
    names = [name for name, _ in headers]
    if names.count(b"content-length") > 1:
        return "more than one Content-Length"
    status = dict(headers)[b":status"]
    if len(status) != 3 or not status.isdigit() or not b"100" <= status <= b"599":
        return "the status is not a number from 100 to 599"
    if status == _SWITCHING_PROTOCOLS:
        return "status 101 does not exist in HTTP/2 (RFC 9113 section 8.6)"
    return ""
