"""Parses responses whole and a byte at a time; has the heads of the tests' responses."""

from __future__ import annotations

from tests.transport.http1.stand_in import Outcome, response_to

OK = b"HTTP/1.1 200 OK\r\n"


CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


LENGTH_5 = OK + b"Content-Length: 5\r\n\r\n"


def each_byte(data: bytes) -> list[bytes]:
    """Split data into single bytes."""
    return [data[at : at + 1] for at in range(len(data))]


async def both_ways(data: bytes, **options: object) -> Outcome:
    """Parse a response whole and a byte at a time, with the same outcome."""
    whole = await response_to([data], **options)  # type: ignore[arg-type]
    split = await response_to(each_byte(data), **options)  # type: ignore[arg-type]
    assert (whole.status, whole.headers, whole.body, whole.trailers, whole.reusable) == (
        split.status,
        split.headers,
        split.body,
        split.trailers,
        split.reusable,
    )
    assert type(whole.error) is type(split.error)
    return whole
