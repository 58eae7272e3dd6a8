"""The scanner of event streams: the rules of the HTML standard, for any pieces of the bytes."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterable

import pytest

from fastapi_proxy_di.wire.event_stream import EventBorders, EventScanner, SseEvent


def scanned(pieces: Iterable[bytes], limit: int = 1 << 20) -> list[SseEvent]:
    """Give all events of the pieces."""
    scanner = EventScanner(limit)
    return [event for piece in pieces for event in scanner.feed(piece)]


def all_cuts(data: bytes) -> Iterable[list[bytes]]:
    """Give the data in one piece, in two and in three at all places, and byte by byte."""
    yield [data[at : at + 1] for at in range(len(data))]
    for first in range(len(data) + 1):
        for second in range(first, len(data) + 1):
            yield [data[:first], data[first:second], data[second:]]


STREAMS = {
    "the example of stocks": (
        b"data: YHOO\ndata: +2\ndata: 10\n\n",
        [SseEvent("YHOO\n+2\n10")],
    ),
    "the example of comments and ids": (
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event",
        [SseEvent("first event", id="1"), SseEvent("second event")],
    ),
    "the example of empty data": (
        b"data\n\ndata\ndata\n\ndata:",
        [SseEvent(""), SseEvent("\n")],
    ),
    "one space is removed": (
        b"data:a\n\ndata: a\n\ndata:  a\n\n",
        [*[SseEvent("a")] * 2, SseEvent(" a")],
    ),
    "CR": (b"event: x\rdata: a\r\rdata: b\r\r", [SseEvent("a", "x"), SseEvent("b")]),
    "CRLF": (b"event: x\r\ndata: a\r\n\r\ndata: b\r\n\r\n", [SseEvent("a", "x"), SseEvent("b")]),
    "mixed": (
        b"data: a\r\ndata: b\rdata: c\n\r\ndata: d\n\r",
        [SseEvent("a\nb\nc"), SseEvent("d")],
    ),
    "a byte order mark": (b"\xef\xbb\xbfdata: a\n\n", [SseEvent("a")]),
    "a second mark is part of the name": (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", []),
    "a part of a mark": (b"\xef\xbbdata: a\n\ndata: b\n\n", [SseEvent("b")]),
    "an event without data is none": (b"event: x\n\ndata: a\n\n", [SseEvent("a")]),
    "an id with NUL is ignored": (
        b"id: 1\ndata: a\n\nid: 2\0\ndata: b\n\n",
        [SseEvent("a", id="1"), SseEvent("b", id="1")],
    ),
    "an id stays until the next": (
        b"id: 1\n\ndata: a\n\ndata: b\nid: \n\n",
        [SseEvent("a", id="1"), SseEvent("b")],
    ),
    "retry has digits only": (
        b"retry: 15\n\ndata: a\n\nretry: 1x\ndata: b\n\nretry:" + b"9" * 30 + b"\ndata: c\n\n",
        [SseEvent("a", retry=15), SseEvent("b"), SseEvent("c")],
    ),
    "names are whole and case matters": (b"datas: a\nDATA: b\n data: c\nevents: x\n\n", []),
    "UTF-8 may be broken": (b"data: \xc3\xa4\xff\xe2\x82\nevent: \xff\n\n", [SseEvent("ä��", "�")]),
    "an event that has not ended": (b"data: a\n", []),
}


@pytest.mark.parametrize(("data", "expected"), STREAMS.values(), ids=STREAMS)
def test_scanner_follows_the_standard(data: bytes, expected: list[SseEvent]) -> None:
    """In one piece, in three pieces at all places, and byte by byte."""
    for pieces in all_cuts(data):
        assert scanned(pieces) == expected, pieces


def test_cr_then_lf_then_lf_in_three_pieces() -> None:
    """CR ends the line at once, the first LF belongs to it, the second one ends the event."""
    scanner, borders = EventScanner(), EventBorders()

    assert scanner.feed(b"data: a\r") == []
    assert scanner.feed(b"\n") == []
    assert scanner.feed(b"\n") == [SseEvent("a")]
    assert [borders.feed(piece) for piece in (b"data: a\r", b"\n", b"\n")] == [False, False, True]


def test_event_that_ends_with_cr_does_not_wait() -> None:
    """An LF may follow, which then belongs to the empty line and begins no other."""
    scanner = EventScanner()

    assert scanner.feed(b"data: a\r\n\r") == [SseEvent("a")]
    assert scanner.feed(b"\ndata: b\n\n") == [SseEvent("b")]


@pytest.mark.parametrize(
    "large", [b"data: 0123456789\n", b"data: 01\ndata: 01\n", b"x: 01234567890\n"]
)
def test_large_event_is_skipped_to_its_end(large: bytes) -> None:
    """Neither its fields count nor those behind the limit; the next event does."""
    data = b"data: a\n\n" + large + b"event: x\nid: 1\nretry: 5\n\ndata: 01234567\n\n"

    for pieces in all_cuts(data):
        scanner = EventScanner(14)
        events = [event for piece in pieces for event in scanner.feed(piece)]
        assert events == [SseEvent("a"), SseEvent("01234567")], pieces
        assert scanner.skipped == 1


def test_comment_does_not_make_an_event_large() -> None:
    """However long it is, and in whatever pieces it comes."""
    data = b": 0123456789\n:::\ndata: 01234567\n: 0123456789\n\n"

    for pieces in all_cuts(data):
        assert scanned(pieces, limit=14) == [SseEvent("01234567")], pieces


def test_large_event_takes_no_more_memory_than_its_limit() -> None:
    """64 MiB of one line, and of a comment, at little more than 1 MiB."""
    piece = bytes(65536)
    scanner, borders = EventScanner(), EventBorders()
    tracemalloc.start()
    try:
        for start in (b"data: ", b": "):
            scanner.feed(start)
            borders.feed(start)
            for _ in range(1024):
                scanner.feed(piece)
                borders.feed(piece)
            scanner.feed(b"\n\n")
            borders.feed(b"\n\n")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 2 << 20
    assert scanner.feed(b"data: a\n\n") == [SseEvent("a")]


@pytest.mark.parametrize("make", [EventScanner, EventBorders])
def test_scanner_takes_time_in_proportion_to_the_bytes(
    make: type[EventScanner | EventBorders],
) -> None:
    """A line of eight times the size in small pieces takes about eight times as long."""

    def seconds(pieces: int) -> float:
        scanner = make()
        started = time.process_time()
        scanner.feed(b"data: ")
        for _ in range(pieces):
            scanner.feed(b"01234567")
        scanner.feed(b"\n\n")
        return time.process_time() - started

    small = min(seconds(10_000) for _ in range(5))
    large = min(seconds(80_000) for _ in range(3))
    assert large < 24 * small  # it would be 64 times as long if it were quadratic


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", True),
        (b"\xef", False),
        (b"\xef\xbb\xbf", True),
        (b"\n", True),
        (b"d", False),
        (b"data: a\n", False),
        (b"data: a\r\n", False),
        (b"data: a\n\n", True),
        (b"data: a\r\r", True),
        (b"data: a\r\n\r", True),
        (b"data: a\r\n\r\n", True),
        (b"data: a\n\r\n", True),
        (b"event: a\n: a\n", False),
        (b"data: a\n\nd", False),
        (b": a\n\n", True),
    ],
)
def test_border_is_where_an_event_may_be_put(data: bytes, expected: bool) -> None:
    """At the beginning, and after an empty line, whatever ends it."""
    for pieces in all_cuts(data):
        borders = EventBorders()
        for piece in pieces:
            borders.feed(piece)
        assert borders.at_border is expected, pieces


@pytest.mark.parametrize("data", [data for data, _ in STREAMS.values()], ids=STREAMS)
def test_borders_tell_of_events_with_data(data: bytes) -> None:
    """At the same pieces of the stream in which the scanner gives events."""
    for pieces in all_cuts(data):
        scanner, borders = EventScanner(), EventBorders()
        assert [borders.feed(piece) for piece in pieces] == [
            bool(scanner.feed(piece)) for piece in pieces
        ], pieces
