"""Reads and builds the frames of one WebSocket as bytes, as the client, after the handshake.

Turns bytes into whole messages and messages into bytes: masks, fragments, compression, close
codes, pongs. Pure: no sockets, no event loop, no clock. Plain short frames are read and built
here, all others by the ``Protocol`` of ``websockets``, of which only documented names are used,
so that every supported version works.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from typing import Final, cast

from websockets.exceptions import PayloadTooBig
from websockets.extensions.base import Extension
from websockets.frames import Frame, Opcode
from websockets.protocol import CLIENT, OPEN, Protocol

try:
    from websockets.speedups import apply_mask
except ImportError:  # built without C
    from websockets.utils import apply_mask

from fastapi_proxy_di.errors import UpstreamProtocolError
from fastapi_proxy_di.wire.close import Close

__all__ = ["FrameCodec"]

_TEXT: Final = Opcode.TEXT
_BINARY: Final = Opcode.BINARY
_CONT: Final = Opcode.CONT
_CLOSE: Final = Opcode.CLOSE

# Frames that are built and read here: FIN, no extension, at most a 16-bit length.
_PLAIN_BYTES: Final = 65_536
_PLAIN_TEXT: Final = 0x80 | Opcode.TEXT
_PLAIN: Final = frozenset({_PLAIN_TEXT, 0x80 | Opcode.BINARY})
_PACK_SHORT: Final = struct.Struct("!BB").pack
_PACK_MEDIUM: Final = struct.Struct("!BBH").pack


class FrameCodec:
    """Reads and builds the frames of one WebSocket.

    Args:
        max_message_bytes: Longest message received; ``None`` is no limit. A longer one ends the
            WebSocket with 1009.
        extensions: The agreed compression; empty for none.

    Attributes:
        received_bytes: Payload of all messages received, uncompressed.
        end: The close code and reason, once the peer's close frame or a fault ended it. Nothing
            is read after it.
        error: The fault, ``None`` after a close frame.
        plain: Whether the last bytes were messages only, so that nothing has to be sent.
    """

    __slots__ = (
        "_fragments",
        "_fragments_are_text",
        "_frame_rest",
        "_head",
        "_plain_limit",
        "_protocol",
        "end",
        "error",
        "plain",
        "received_bytes",
    )

    def __init__(
        self, *, max_message_bytes: int | None = None, extensions: Sequence[Extension] = ()
    ) -> None:
        self.received_bytes: int = 0
        self.end: Close | None = None
        self.error: UpstreamProtocolError | None = None
        self.plain: bool = True
        self._protocol = Protocol(CLIENT, state=OPEN, max_size=max_message_bytes)
        # Its debug log would hold the messages themselves.
        self._protocol.debug = False
        self._protocol.extensions = list(extensions)
        self._plain_limit = min(_PLAIN_BYTES, max_message_bytes or _PLAIN_BYTES)
        self._fragments: list[bytes] = []
        self._fragments_are_text = False
        # The position of ``Protocol`` in the frame that it reads: the beginning of a frame's
        # head, or how many bytes of a frame are missing.
        self._head = b""
        self._frame_rest = 0

    # -- what comes in ----------------------------------------------------------------

    def receive(self, data: bytes) -> list[str | bytes]:
        """Read bytes; give the messages that they complete, text as ``str``.

        Pongs and close frames that have to be sent are given by ``to_send``.
        """
        messages: list[str | bytes] = []
        if not self._frame_rest and not self._head and not self._fragments:
            data = data[self._read_plain(data, messages) :]
        self.plain = not data
        if data and self.end is None:
            self._read_any(data, messages)
        return messages

    def _read_plain(self, data: bytes, messages: list[str | bytes]) -> int:
        """Read the whole, unfragmented, uncompressed, short frames that ``data`` starts with.

        Most messages are of this kind. For one of 256 bytes ``Protocol`` needs 2.5 us, this
        method 0.5 us. All other frames, also faulty ones, are left to ``Protocol``.

        Returns:
            How many bytes have been read.
        """
        position, size, limit = 0, len(data), self._plain_limit
        while size - position > 3:
            first, length, start = data[position], data[position + 1], position + 2
            if length == 126:
                length = data[start] << 8 | data[start + 1]
                start += 2
            elif length > 126:
                break
            end = start + length
            if first not in _PLAIN or length > limit or end > size:
                break
            self._message(data[start:end], first == _PLAIN_TEXT, messages)
            if self.end is not None:
                break
            position = end
        return position

    def _read_any(self, data: bytes, messages: list[str | bytes]) -> None:
        """Read any frames and pieces of frames by ``Protocol``."""
        protocol = self._protocol
        self._follow(data)
        protocol.receive_data(data)
        # Requests and responses are events of the handshake only.
        for frame in cast("list[Frame]", protocol.events_received()):
            opcode = frame.opcode
            if opcode is _TEXT or opcode is _BINARY:
                if frame.fin:
                    self._message(cast("bytes", frame.data), opcode is _TEXT, messages)
                else:
                    self._fragments_are_text = opcode is _TEXT
                    self._fragments.append(cast("bytes", frame.data))
            elif opcode is _CONT:
                self._fragments.append(cast("bytes", frame.data))
                if frame.fin:
                    whole = b"".join(self._fragments)
                    self._fragments.clear()
                    self._message(whole, self._fragments_are_text, messages)
            elif opcode is _CLOSE:
                # The protocol has echoed it already.
                received = protocol.close_rcvd
                assert received is not None
                self.end = Close(int(received.code), received.reason)
            if self.end is not None:
                return
        if protocol.parser_exc is not None:
            self._fault(protocol.parser_exc)

    def _follow(self, data: bytes) -> None:
        """Follow the frames in ``data`` by their lengths, to know whether it ends between two."""
        position = self._frame_rest
        data = self._head + data
        size = len(data)
        self._head = b""
        while position < size:
            head = data[position : position + 10]
            length = head[1] & 0x7F if len(head) > 1 else 0
            start = 2 + (2 if length == 126 else 8 if length == 127 else 0)
            if len(head) < start:
                self._head = head
                self._frame_rest = 0
                return
            if length > 125:
                length = int.from_bytes(head[2:start])
            position += start + length
        self._frame_rest = position - size

    def _message(self, payload: bytes, text: bool, messages: list[str | bytes]) -> None:
        message: str | bytes
        if text:
            try:
                message = payload.decode()
            except UnicodeDecodeError as fault:
                # RFC 6455 §8.1.
                self._protocol.fail(1007, "invalid UTF-8")
                self._fault(fault)
                return
        else:
            # Some versions of websockets give a bytearray; ASGI wants bytes.
            message = bytes(payload)
        self.received_bytes += len(payload)
        messages.append(message)

    def _fault(self, fault: Exception) -> None:
        """Store the fault that ended reading; ``Protocol`` has written the close frame already."""
        error = UpstreamProtocolError("the upstream broke the WebSocket protocol")
        end = Close(1002, "upstream protocol error")
        if isinstance(fault, PayloadTooBig):
            error = UpstreamProtocolError("a WebSocket message is over max_message_bytes")
            end = Close(1009, "message too big")
        elif isinstance(fault, UnicodeDecodeError):
            error = UpstreamProtocolError("a WebSocket text is not UTF-8")
            end = Close(1007, "invalid UTF-8")
        error.__cause__ = fault
        self.end, self.error = end, error

    # -- what goes out ----------------------------------------------------------------

    def to_send(self) -> list[bytes]:
        """Give the frames made by reading, ``ping`` or ``close``; each frame is given once."""
        return self._protocol.data_to_send()

    def message(self, data: str | bytes) -> tuple[bytes, int]:
        """Build the frame of a message; give the frame and the size of its payload."""
        if isinstance(data, str):
            data = data.encode()
            opcode = _TEXT
        else:
            opcode = _BINARY
        size = len(data)
        if size < _PLAIN_BYTES and not self._protocol.extensions:
            mask = os.urandom(4)
            head = (
                _PACK_SHORT(0x80 | opcode, 0x80 | size)
                if size < 126
                else _PACK_MEDIUM(0x80 | opcode, 0xFE, size)
            )
            return b"".join((head, mask, apply_mask(data, mask))), size
        if opcode is _TEXT:
            self._protocol.send_text(data)
        else:
            self._protocol.send_binary(data)
        return b"".join(self._protocol.data_to_send()), size

    def ping(self) -> None:
        """Make a ping without a payload."""
        self._protocol.send_ping(b"")

    def close(self, close: Close) -> None:
        """Make our close frame; no message may follow."""
        self._protocol.send_close(close.code, close.reason)
