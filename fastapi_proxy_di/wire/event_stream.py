"""Reads ``text/event-stream`` as bytes arrive, as the HTML standard says (section 9.2.6).

`EventScanner` gives the events. `EventBorders` only tells where events end, for a fraction of the
time: it decodes nothing and keeps five bytes. Both take the bytes in any pieces, look at each
byte once, and give the same for all pieces. Nothing is changed or checked: what the standard
ignores is ignored here.

A line ends with CR LF, LF or CR. An event ends with an empty line, also if that is a CR whose LF
may follow, so that no event waits for the next one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = [
    "BYTE_ORDER_MARK",
    "MAX_EVENT_BYTES",
    "EventBorders",
    "EventScanner",
    "SseEvent",
    "is_event_stream",
]

MAX_EVENT_BYTES: Final = 1 << 20
"""Bytes of the lines of an event, without comments and line ends; larger events are skipped."""

BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_LINE_ENDS: Final = (b"\n", b"\r")
_COLON: Final = ord(":")
_LONGEST_RETRY: Final = 15
"""Digits of a ``retry`` that is read; ``int`` refuses thousands of digits with an error."""
_NAME_BYTES: Final = 5
"""Bytes of a line that tell whether its field is ``data``: the name and what follows."""


@dataclass(frozen=True, slots=True)
class SseEvent:
    """One event of an event stream.

    Attributes:
        data: The lines of ``data``, joined by line feeds.
        event: The type of the event.
        id: The last ``id`` of the stream so far, which the client would send as
            ``Last-Event-ID``; empty if there is none.
        retry: Milliseconds of a ``retry`` since the event before, ``None`` if there is none.
    """

    data: str
    event: str = "message"
    id: str = ""
    retry: int | None = None


def is_event_stream(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether a message is an event stream, by its headers with names in lower case."""
    for name, value in headers:
        if name == b"content-type":
            return value.partition(b";")[0].strip().lower() == b"text/event-stream"
    return False


class _Lines:
    """Splits pieces of a stream into lines, without the byte order mark at its start."""

    __slots__ = ("_after_cr", "_start")

    def __init__(self) -> None:
        self._start: bytes | None = b""  # None once the stream has more than a mark
        self._after_cr = False

    @property
    def begins(self) -> bool:
        """Whether the stream has begun with a part of a byte order mark, and no more yet."""
        return bool(self._start)

    def split(self, data: bytes) -> list[bytes]:
        """Give the lines of a piece; the last one has not ended yet, and may be empty."""
        if self._start is not None:
            data = self._start + data
            if len(data) < len(BYTE_ORDER_MARK) and BYTE_ORDER_MARK.startswith(data):
                self._start = data
                return [b""]
            self._start = None
            data = data.removeprefix(BYTE_ORDER_MARK)
        if not data:
            return [b""]
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
            if not data:
                self._after_cr = False
                return [b""]
        self._after_cr = data.endswith(b"\r")
        lines = data.splitlines()
        if data.endswith(_LINE_ENDS):
            lines.append(b"")
        return lines


class EventScanner:
    """Gives the events of one stream.

    Args:
        max_event_bytes: Bytes of an event above which it is skipped to its end.

    Attributes:
        skipped: Number of events that were too large.
    """

    __slots__ = (
        "_begun",
        "_comment",
        "_data",
        "_event",
        "_id",
        "_limit",
        "_lines",
        "_pieces",
        "_retry",
        "_room",
        "skipped",
    )

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self.skipped: int = 0
        self._lines: Final = _Lines()
        self._begun = False  # whether a line has begun that has not ended
        self._comment = False  # whether that line is a comment
        self._pieces: Final[list[bytes]] = []  # of that line
        self._limit: Final = max_event_bytes
        self._room = max_event_bytes  # that the event has left; negative while it is skipped
        self._data: Final[list[bytes]] = []
        self._event = b""
        self._id = b""
        self._retry: int | None = None

    def feed(self, data: bytes) -> list[SseEvent]:
        """Take the next bytes of the stream, and give the events that end in them."""
        *ended, rest = self._lines.split(data)
        events: list[SseEvent] = []
        for line in ended:
            if self._begun or line:
                self._add(line)
                self._end_line()
            elif (event := self._end_event()) is not None:
                events.append(event)
        if rest:
            self._add(rest)
        return events

    def _add(self, piece: bytes) -> None:
        """Add a piece to the line, unless that is a comment or its event is too large."""
        if not self._begun:
            self._begun = True
            self._comment = piece[0] == _COLON
        if not self._comment:
            self._room -= len(piece)
            if self._room >= 0:
                self._pieces.append(piece)

    def _end_line(self) -> None:
        self._begun = False
        pieces = self._pieces
        line = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        if self._room < 0:
            return
        name, _, value = line.partition(b":")
        if value.startswith(b" "):
            value = value[1:]
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._event = value
        elif name == b"id":
            if b"\0" not in value:
                self._id = value
        elif name == b"retry" and value.isdigit() and len(value) <= _LONGEST_RETRY:
            self._retry = int(value)

    def _end_event(self) -> SseEvent | None:
        """End the event at an empty line; without a line of ``data`` there was none."""
        event: SseEvent | None = None
        if self._room < 0:
            self.skipped += 1
        elif self._data:
            event = SseEvent(
                b"\n".join(self._data).decode("utf-8", "replace"),
                self._event.decode("utf-8", "replace") or "message",
                self._id.decode("utf-8", "replace"),
                self._retry,
            )
            self._retry = None
        self._room = self._limit
        self._data.clear()
        self._event = b""
        return event


class EventBorders:
    """Tells where the events of one stream end."""

    __slots__ = ("_blank", "_has_data", "_lines", "_rest")

    def __init__(self) -> None:
        self._lines: Final = _Lines()
        self._rest = b""  # the beginning of the line that has not ended
        self._blank = True  # whether the last line that has ended was empty, or there is none
        self._has_data = False

    @property
    def at_border(self) -> bool:
        """Whether the stream is between two events, or has not begun."""
        return self._blank and not self._rest and not self._lines.begins

    def feed(self, data: bytes) -> bool:
        """Take the next bytes of the stream.

        Returns:
            Whether an event with data ends in them.
        """
        *ended, rest = self._lines.split(data)
        found = False
        for line in ended:
            field = self._rest + line[:_NAME_BYTES]
            self._rest = b""
            self._blank = not field
            if self._blank:
                found |= self._has_data
                self._has_data = False
            elif field.startswith(b"data") and field[4:5] in {b"", b":"}:
                self._has_data = True
        self._rest = (self._rest + rest[:_NAME_BYTES])[:_NAME_BYTES]
        return found
