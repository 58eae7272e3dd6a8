"""Fuzzes the parsing of responses, and compares it with a second implementation.

``python -m tests.fuzz.response_parser --seconds 600`` feeds mutated responses in random splits to
``Http1Exchange`` and to h11. It fails on the first disagreement that allows smuggling: a crash, a
different body or header, an end at another byte, or a response that we accept or a connection
that we keep although h11 refuses it. A seed and a number identify each case.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import time
from dataclasses import dataclass
from random import Random
from typing import Final

import h11

from fastapi_proxy_di.transport.http1.parser import ResponseParser
from fastapi_proxy_di.transport.protocol import Headers
from fastapi_proxy_di.wire.headers import FRAMING, list_members
from tests.fuzz.responses import Case, make_case
from tests.transport.http1.stand_in import Outcome, response_to

__all__ = ["Disagreement", "check", "main"]


_BLANK_LINES: Final = re.compile(rb"(\A|\n\r?\n)[\r\n]+(?=HTTP/1)")
"""Empty lines before a status line, which llhttp skips and h11 refuses: they carry nothing."""

_REASON: Final = re.compile(rb"((?:\A|\n)HTTP/1\.[01] [0-9]{3} )[^\r\n]*")
"""Reasons, of which h11 refuses control characters: they are never passed on."""

_BEFORE_EXTENSION: Final = re.compile(rb"(?<=\n)([0-9A-Fa-f]+) +(?=;)")
"""Spaces between a chunk size and its extension, which RFC 9112 section 7.1.1 allows, h11 not."""

_EARLIER: Final = (
    (
        b"GET",
        (
            b"HTTP/1.1 103 X\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"1\r\nx\r\n0\r\nT: u\r\n\r\n"
        ),
    ),
    (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
    (b"GET", b"HTTP/1.1 304 X\r\nContent-Length: 5\r\n\r\n"),
)
"""Responses that the same connection gave before."""


_CODED: Final = frozenset({b"transfer-encoding"})


class Disagreement(Exception):
    """A difference that allows smuggling, with its case."""


@dataclass(frozen=True, slots=True)
class Second:
    """The result of h11 for the same bytes.

    Attributes:
        status: Final status, 0 if there was none.
        headers: Of the final response, names in lower case.
        body: As far as it came.
        trailers: The trailers behind the body.
        ended: The end of the message was seen.
        surplus: Bytes behind the end.
        refused: It called the bytes malformed.
        keep_alive: The connection may serve again.
    """

    status: int
    headers: Headers
    body: bytes
    trailers: Headers
    ended: bool
    surplus: bytes
    refused: bool
    keep_alive: bool


def second_opinion(case: Case) -> Second:
    """Read the case with h11."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method=case.method, target="/", headers=[("host", "origin")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(case.data)
    status, body, ended, refused = 0, b"", False, False
    headers: Headers = []
    trailers: Headers = []
    try:
        while (event := connection.next_event()) is not h11.NEED_DATA and event is not h11.PAUSED:
            if isinstance(event, h11.Response):
                status = event.status_code
                headers = [(bytes(name), bytes(value)) for name, value in event.headers]
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                ended = True
                trailers = [(bytes(name), bytes(value)) for name, value in event.headers]
                break
    except h11.RemoteProtocolError:
        refused = True
    keep_alive = ended and connection.our_state is h11.DONE and connection.their_state is h11.DONE
    surplus = bytes(connection.trailing_data[0])
    return Second(status, headers, body, trailers, ended, surplus, refused, keep_alive)


def check(case: Case, ours: Outcome, second: Second) -> None:
    """Compare both results.

    Raises:
        Disagreement: They differ where a difference could be used.
    """
    whole = ours.status != 0 and ours.error is None
    faults = []
    if ours.reusable:
        if not whole:
            faults.append("kept a connection without a whole response")
        if second.refused:
            faults.append("kept a connection that h11 would not have")
        elif not second.ended:
            faults.append("kept a connection whose response h11 still reads")
        elif second.surplus.strip(b"\r\n"):
            faults.append("kept a connection with unread bytes")
        elif not second.keep_alive and b"keep-alive" not in list_members(
            ours.headers,
            b"connection",  # h11 never keeps HTTP/1.0, whatever it says
        ):
            faults.append("kept a connection that ends with its response")
    # h11 looks at framing headers in a trailer; we neither heed them nor pass them on.
    if whole and second.refused and not any(name in FRAMING for name, _ in ours.trailers):
        faults.append("took for whole what h11 refuses")
    if whole and second.ended and not second.refused:
        for what, one, other in (
            ("headers", ours.headers, second.headers),
            ("trailers", ours.trailers, second.trailers),
        ):
            if _meaning(one) != _meaning(other):
                faults.append(f"{what} {one}, h11 {other}")
        if ours.status != second.status:
            faults.append(f"status {ours.status}, h11 {second.status}")
        if ours.body != second.body:
            faults.append(f"body {ours.body!r}, h11 {second.body!r}")
    elif not (ours.body.startswith(second.body) or second.body.startswith(ours.body)):
        faults.append(f"body begins {ours.body!r}, h11 {second.body!r}")
    for name, value in (*ours.headers, *ours.trailers) if ours.status else ():
        if any(byte in name + value for byte in b"\r\n\0"):
            faults.append(f"header {name!r} with a line end or NUL")
    if faults:
        raise Disagreement(f"{'; '.join(faults)}\n{case}\nours: {ours}\nh11: {second}")


def _meaning(headers: Headers) -> Headers:
    """Normalise headers: h11 lowers codings and strips whitespace from values."""
    bare = [(name, value.strip(b" \t")) for name, value in headers]
    return [(name, value.lower() if name in _CODED else value) for name, value in bare]


async def run_case(case: Case) -> Outcome:
    """Parse a case and compare; give our own result."""
    ours = await response_to(case.pieces, method=case.method)
    try:
        check(case, ours, second_opinion(case))
    except Disagreement:
        without = _REASON.sub(rb"\1X", _BLANK_LINES.sub(rb"\1", case.data))
        without = _BEFORE_EXTENSION.sub(rb"\1", without)
        if without == case.data:
            raise
        check(case, ours, second_opinion(Case(case.method, (without,))))
    parser = ResponseParser()
    for method, earlier in _EARLIER:
        assert (await response_to([earlier], method=method, parser=parser)).reusable
    again = await response_to(case.pieces, method=case.method, parser=parser)
    if repr(again) != repr(ours):
        raise Disagreement(f"a used parser reads another response\n{case}\n{ours}\n{again}")
    return ours


async def fuzz(seed: int, seconds: float) -> dict[str, int]:
    """Run cases for ``seconds``; give the counts of how they ended."""
    counts: dict[str, int] = {}
    deadline = time.monotonic() + seconds
    number = 0
    while time.monotonic() < deadline:
        for _ in range(500):
            case = make_case(Random(f"{seed}/{number}"))
            try:
                ours = await asyncio.wait_for(run_case(case), 10)
            except Exception as error:
                error.add_note(f"seed {seed}, case {number}: {case}")
                raise
            end = type(ours.error).__name__ if ours.error else "kept" if ours.reusable else "whole"
            counts[end] = counts.get(end, 0) + 1
            number += 1
    return {"cases": number, **counts}


def main() -> None:
    """Read the arguments, run, and print the counts."""
    parser = argparse.ArgumentParser(description="Fuzz the reading of responses.")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(asyncio.run(fuzz(arguments.seed, arguments.seconds)))


if __name__ == "__main__":
    main()
