"""Hypothesis on event streams, against a reader of single bytes and against what was written."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from fastapi_proxy_di.wire.event_stream import EventBorders, EventScanner, SseEvent
from tests.fuzz.test_response_parser import cut

_ALPHABET = [b"data", b"event", b"id", b"retry", b":", b" ", b"\n", b"\r", b"\r\n", b"\n\n"]
_ALPHABET += [b"7", b"x", b"\0", b"\xef\xbb\xbf", b"\xef", b"\xc3\xa4", b"\xff"]
_STREAMS = st.lists(st.sampled_from(_ALPHABET), max_size=60).map(b"".join)
_CUTS = st.lists(st.integers(0, 500), max_size=12)
_LIMITS = st.sampled_from([4, 8, 12, 1 << 20])
_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=20)
_ENDS = st.sampled_from(["\n", "\r", "\r\n"])


class Reference:
    """Reads an event stream byte by byte, in the words of the standard."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.events: list[SseEvent] = []
        self.event_id = ""
        self.retry: int | None = None
        self.at_border = True
        self.reset()

    def reset(self) -> None:
        """Begin an event."""
        self.size, self.data, self.event = 0, list[bytes](), b""

    def read(self, data: bytes) -> None:
        """Read a whole stream."""
        self.at_border = data not in {b"\xef", b"\xef\xbb"}
        data = data.removeprefix(b"\xef\xbb\xbf")
        line, last = bytearray(), 0
        for byte in data:
            if byte == 10 and last == 13:
                pass  # of CRLF
            elif byte in {10, 13}:
                self.line(bytes(line))
                self.at_border = not line
                line.clear()
            else:
                line.append(byte)
            last = byte
        self.at_border = self.at_border and not line

    def line(self, line: bytes) -> None:
        """Read a line."""
        if not line:
            if self.data and self.size <= self.limit:
                text = b"\n".join(self.data).decode(errors="replace")
                kind = self.event.decode(errors="replace") or "message"
                self.events.append(SseEvent(text, kind, self.event_id, self.retry))
                self.retry = None
            self.reset()
            return
        if line.startswith(b":"):
            return
        self.size += len(line)
        if self.size > self.limit:
            return
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        match name:
            case b"data":
                self.data.append(value)
            case b"event":
                self.event = value
            case b"id" if b"\0" not in value:
                self.event_id = value.decode(errors="replace")
            case b"retry" if value and all(48 <= digit <= 57 for digit in value):
                self.retry = int(value)
            case _:
                pass


@settings(max_examples=500, deadline=None)
@given(stream=_STREAMS, cuts=_CUTS, limit=_LIMITS)
def test_any_bytes_are_read_as_by_the_reference(stream: bytes, cuts: list[int], limit: int) -> None:
    """Events, skipped events and borders are the same for any pieces."""
    reference = Reference(limit)
    reference.read(stream)
    scanner, whole, borders = EventScanner(limit), EventScanner(limit), EventBorders()
    pieces = cut(stream, cuts)

    events = [event for piece in pieces for event in scanner.feed(piece)]
    for piece in pieces:
        borders.feed(piece)

    whole.feed(stream)
    assert events == reference.events
    assert borders.at_border is reference.at_border
    assert scanner.skipped == whole.skipped


@settings(max_examples=200, deadline=None)
@given(
    lines=st.lists(st.lists(_TEXT, min_size=1, max_size=4), max_size=6),
    end=_ENDS,
    cuts=_CUTS,
)
def test_any_text_arrives_as_it_was_written(
    lines: list[list[str]], end: str, cuts: list[int]
) -> None:
    """Each event has its lines, whatever line end the server uses."""
    stream = "".join(
        "".join(f"data: {line}{end}" for line in event) + f": ping{end}{end}" for event in lines
    )
    scanner = EventScanner()

    events = [event for piece in cut(stream.encode(), cuts) for event in scanner.feed(piece)]

    assert events == [SseEvent("\n".join(event)) for event in lines]
