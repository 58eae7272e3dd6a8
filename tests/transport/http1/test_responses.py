"""The parsing of responses, byte by byte: status, headers, body, and reuse of the connection.

No socket: an exchange is fed whole responses, and the same responses a byte at a time.
"""

from __future__ import annotations

import asyncio

import pytest

from fastapi_proxy_di.errors import Failure, UpstreamDisconnected, UpstreamProtocolError
from fastapi_proxy_di.transport.http1.parser import ResponseParser
from fastapi_proxy_di.transport.protocol import Headers
from tests.transport.http1.parsed import CHUNKED, LENGTH_5, OK, both_ways, each_byte
from tests.transport.http1.stand_in import StandIn, exchange_over, response_to


@pytest.mark.parametrize(
    ("data", "body", "reusable"),
    [
        (LENGTH_5 + b"hello", b"hello", True),
        (OK + b"Content-Length: 0\r\n\r\n", b"", True),
        (OK + b"Content-Length: 5\r\nConnection: close\r\n\r\nhello", b"hello", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", False),
        (
            b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello",
            b"hello",
            True,
        ),
        (CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", b"hello", True),
        (CHUNKED + b"0\r\n\r\n", b"", True),
        (CHUNKED + b'2;a=b;c="d e"\r\nhe\r\n003;x\r\nllo\r\n0;last\r\n\r\n', b"hello", True),
        (OK + b"Transfer-Encoding:  Chunked \r\n\r\n2\r\nhi\r\n0\r\n\r\n", b"hi", True),
        # RFC 9112 section 2.2: a bare LF ends a line of the head.
        (b"HTTP/1.1 200 OK\nX: y\nContent-Length: 5\n\nhello", b"hello", True),
        (LENGTH_5.removesuffix(b"\r\n") + b"\nhello", b"hello", True),
        (b"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n2\r\nhi\r\n0\r\n\r\n", b"hi", True),
        (b"HTTP/1.1 103 X\nA: b\n\n" + LENGTH_5 + b"hello", b"hello", True),
        # Older servers write the size into a field of fixed width.
        (CHUNKED + b"5  \r\nhello\r\n0  \r\n\r\n", b"hello", True),
        (CHUNKED + b"5 ;a=b\r\nhello\r\n0\r\n\r\n", b"hello", True),
        (OK + b"Content-Length: 5  \r\n\r\nhello", b"hello", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n", b"", True),
        (b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", b"", True),
        (b"HTTP/1.1 599 Odd\r\nContent-Length: 0\r\n\r\n", b"", True),
        (b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"", True),
    ],
)
async def test_response_is_read_to_its_end(data: bytes, body: bytes, reusable: bool) -> None:
    """The framing gives the end; ``Connection`` decides on the reuse."""
    outcome = await both_ways(data)

    assert outcome.error is None
    assert outcome.body == body
    assert outcome.reusable is reusable


async def test_bare_lf_is_read_in_the_head_after_a_chunked_response() -> None:
    """Chunks are strict; the next head on the connection is not (RFC 9112 section 2.2)."""
    parser = ResponseParser()
    chunked = CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"
    first = await response_to([chunked], parser=parser)
    second = await response_to([b"HTTP/1.1 200 OK\nContent-Length: 2\n\nhi"], parser=parser)
    faulty = await response_to([CHUNKED + b"5\nhello\n0\n\n"], parser=parser)

    assert (first.error, first.reusable) == (None, True)
    assert (second.error, second.body) == (None, b"hi")
    assert isinstance(faulty.error, UpstreamProtocolError)


@pytest.mark.parametrize("error", [None, ConnectionResetError()])
async def test_connection_that_ends_after_a_101_belongs_to_the_new_protocol(
    error: Exception | None,
) -> None:
    """The handshake has succeeded, whenever the end is noticed."""
    exchange = exchange_over(StandIn(), upgrade=True)
    waiting = asyncio.ensure_future(exchange.head())
    await asyncio.sleep(0)
    exchange.feed(
        memoryview(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
        ),
        1.0,
    )
    exchange.ended(error)  # in the same turn of the loop, as TLS hands both over

    async with asyncio.timeout(10):
        await waiting
    assert exchange.status == 101
    exchange.close()


async def test_headers_keep_order_and_repeats_with_lower_case_names() -> None:
    """Values keep their bytes, without the whitespace around them."""
    outcome = await both_ways(
        OK + b"Set-Cookie: a=1\r\nX-Byte:\t \xe9\xff \t\r\nset-cookie:b=2\r\nEmpty:\r\n"
        b"Content-Length: 0\r\n\r\n"
    )

    expected: Headers = [
        (b"set-cookie", b"a=1"),
        (b"x-byte", b"\xe9\xff"),
        (b"set-cookie", b"b=2"),
        (b"empty", b""),
        (b"content-length", b"0"),
    ]
    assert outcome.headers == expected


async def test_trailers_are_separate_from_headers() -> None:
    """Trailers are available once the body has been read."""
    outcome = await both_ways(CHUNKED + b"2\r\nhi\r\n0\r\nX-Sum: 1\r\nX-Sum: 2\r\n\r\n")

    assert outcome.body == b"hi"
    assert outcome.trailers == [(b"x-sum", b"1"), (b"x-sum", b"2")]
    assert outcome.headers == [(b"transfer-encoding", b"chunked")]
    assert outcome.reusable


async def test_close_delimited_response_ends_with_the_connection() -> None:
    """RFC 9112 section 6.3 rule 8; before the close it is not complete."""
    data = OK + b"X: y\r\n\r\nuntil the end"
    open_ended = await both_ways(data)
    ended = await both_ways(data, eof=True)

    assert isinstance(open_ended.error, TimeoutError)
    assert ended.error is None
    assert ended.body == b"until the end"
    assert not ended.reusable


@pytest.mark.parametrize(
    "data",
    [b"", b"HTT", OK, LENGTH_5 + b"hell", CHUNKED, CHUNKED + b"5\r\nhello\r\n0\r\n"],
)
async def test_response_that_breaks_off_is_an_error(data: bytes) -> None:
    """A close before the end of the framing does not end the response."""
    outcome = await both_ways(data, eof=True)

    assert isinstance(outcome.error, UpstreamDisconnected)
    expected = Failure.RESPONSE_BODY if outcome.status else Failure.RESPONSE_HEAD
    assert outcome.error.failure is expected
    assert not outcome.reusable


@pytest.mark.parametrize(
    "data",
    [
        OK + b"Content-Length: 100\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n",
        b"HTTP/1.1 103 X\r\n\r\n" + OK + b"\r\n",
    ],
)
async def test_response_to_head_ends_at_its_headers(data: bytes) -> None:
    """Whatever its length, the next response is read as one."""
    outcome = await both_ways(data, method=b"HEAD")

    assert outcome.error is None
    assert outcome.body == b""
    assert outcome.reusable


@pytest.mark.parametrize(
    "behind",
    [
        LENGTH_5 + b"hello" + OK,
        LENGTH_5 + b"hello" + LENGTH_5 + b"world",
        LENGTH_5 + b"hello!",
        LENGTH_5 + b"hello\r\nHTTP/1.1 200 OK\r\n\r\n",
        CHUNKED + b"0\r\n\r\nx",
        CHUNKED + b"0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\nsurplus",
        b"HTTP/1.1 304 Not Modified\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_bytes_after_a_response_end_the_connection(behind: bytes) -> None:
    """The bytes belong to no request; the response itself is valid."""
    outcome = await both_ways(behind)

    assert outcome.error is None
    assert outcome.body in {b"", b"hello"}
    assert not outcome.reusable


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_response_to_head_that_closes_ends_the_connection(version: bytes) -> None:
    """HTTP/1.0 closes by default, HTTP/1.1 only if ``Connection`` says so."""
    header = b"Connection: close\r\n" if version == b"1.1" else b""
    outcome = await both_ways(
        b"HTTP/" + version + b" 200 OK\r\n" + header + b"Content-Length: 5\r\n\r\n", method=b"HEAD"
    )

    assert outcome.error is None
    assert not outcome.reusable


@pytest.mark.parametrize("head", [LENGTH_5, CHUNKED, OK + b"\r\n"])
@pytest.mark.parametrize("surplus", [b"x", b"0\r\n\r\n", b"5", b"\r\n", LENGTH_5 + b"hello"])
async def test_bytes_after_a_response_to_head_end_the_connection(
    head: bytes, surplus: bytes
) -> None:
    """The response is valid, but the connection is not used again."""
    outcome = await both_ways(head + surplus, method=b"HEAD")

    assert outcome.error is None
    assert outcome.body == b""
    assert not outcome.reusable


_MALFORMED = {
    "not HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.2": b"HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n",
    "status 000": b"HTTP/1.1 000 X\r\nContent-Length: 0\r\n\r\n",
    "status 099": b"HTTP/1.1 099 X\r\nContent-Length: 0\r\n\r\n",
    "status 99": b"HTTP/1.1 99 X\r\nContent-Length: 0\r\n\r\n",
    "status 600": b"HTTP/1.1 600 X\r\nContent-Length: 0\r\n\r\n",
    "status 1000": b"HTTP/1.1 1000 X\r\nContent-Length: 0\r\n\r\n",
    "status in letters": b"HTTP/1.1 OK 200\r\nContent-Length: 0\r\n\r\n",
    "two lengths": OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
    "the same length twice": OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\n",
    "lengths in a list": OK + b"Content-Length: 5, 5\r\n\r\n",
    "negative length": OK + b"Content-Length: -5\r\n\r\n",
    "signed length": OK + b"Content-Length: +5\r\n\r\n",
    "hexadecimal length": OK + b"Content-Length: 0x5\r\n\r\n",
    "length with an underscore": OK + b"Content-Length: 1_0\r\n\r\n",
    "empty length": OK + b"Content-Length:\r\n\r\n",
    "length beyond 64 bits": OK + b"Content-Length: 18446744073709551621\r\n\r\n",
    "length, then chunked": OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    "chunked, then length": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
    "chunked, gzip": OK + b"Transfer-Encoding: chunked, gzip\r\n\r\n",
    "gzip, chunked": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    "gzip": OK + b"Transfer-Encoding: gzip\r\n\r\n",
    "identity": OK + b"Transfer-Encoding: identity\r\n\r\n",
    "xchunked": OK + b"Transfer-Encoding: xchunked\r\n\r\n",
    "chunkedx": OK + b"Transfer-Encoding: chunkedx\r\n\r\n",
    "chunked;q=1": OK + b"Transfer-Encoding: chunked;q=1\r\n\r\n",
    "quoted chunked": OK + b'Transfer-Encoding: "chunked"\r\n\r\n',
    "empty coding": OK + b"Transfer-Encoding:\r\n\r\n",
    "chunked, chunked": OK + b"Transfer-Encoding: chunked, chunked\r\n\r\n",
    "chunked twice": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "chunked before a tab": OK + b"Transfer-Encoding: chunked\t\r\n\r\n",
    "chunked after a vertical tab": OK + b"Transfer-Encoding: \x0bchunked\r\n\r\n",
    "space before the colon": OK + b"Content-Length : 5\r\n\r\n",
    "coding with space before the colon": OK + b"Transfer-Encoding : chunked\r\n\r\n",
    "folded": OK + b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "folded coding": OK + b"Transfer-Encoding:\r\n chunked\r\n\r\n",
    "no colon": OK + b"X\r\n\r\n",
    "no name": OK + b": x\r\n\r\n",
    "NUL in a name": OK + b"X\0: x\r\n\r\n",
    "NUL in a value": OK + b"X: a\0b\r\n\r\n",
    "CR in a value": OK + b"X: a\rb\r\n\r\n",
    "coded early hints": b"HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n"
    + CHUNKED,
    "coded continue": b"HTTP/1.1 100 Continue\r\nTransfer-Encoding: ,chunked\r\n\r\n" + CHUNKED,
    "switch unasked": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n"
    b"Connection: upgrade\r\n\r\n",
    "switch unasked, bare": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "switch unasked, then a response": b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + CHUNKED,
}


@pytest.mark.parametrize("name", _MALFORMED)
async def test_malformed_head_is_refused(name: str) -> None:
    """An error of a malformed response, without a status, and no reuse."""
    outcome = await both_ways(_MALFORMED[name])

    assert isinstance(outcome.error, UpstreamProtocolError), outcome
    assert outcome.error.failure is Failure.RESPONSE_MALFORMED
    assert outcome.status == 0
    assert not outcome.reusable


@pytest.mark.parametrize(
    "chunks",
    [
        b"x\r\n",
        b"-1\r\n",
        b"+1\r\nx\r\n",
        b"0x1\r\nx\r\n",
        b" 1\r\nx\r\n",
        b"1 1\r\nx\r\n",
        b"ffffffffffffffffff\r\n",
        b"2\r\nabc\r\n",
        b"1\nx\r\n",
        b"1\r\nx\n",
        b"1\r\nx\r\n1\nx",
        b"1\r\nx\r\n0\n\n",
        b"1\r\nx\r\n0\r\nX: y\n\r\n",
        b"1\rx",
        b"1;\0\r\nx\r\n",
        b"0\r\nBad Trailer: x\r\n\r\n",
        b"0\r\nX: a\0\r\n\r\n",
        b"\r\n0\r\n\r\n",
    ],
)
async def test_malformed_chunk_breaks_the_body(chunks: bytes) -> None:
    """Each chunk that implementations read differently is an error."""
    split = await response_to([CHUNKED, *each_byte(chunks)])

    assert split.status == 200
    assert isinstance(split.error, UpstreamProtocolError)
    assert split.error.failure is Failure.RESPONSE_BODY
    assert not split.reusable


async def test_framing_in_a_trailer_ends_the_connection() -> None:
    """The response is complete, but the connection is not used again."""
    outcome = await both_ways(CHUNKED + b"2\r\nhi\r\n0\r\nTransfer-Encoding: gzip\r\n\r\n")

    assert outcome.error is None
    assert outcome.body == b"hi"
    assert not outcome.reusable


async def test_chunked_from_http_1_0_is_not_kept_alive() -> None:
    """RFC 9112 section 6.1: the framing is faulty, so the connection is closed."""
    outcome = await both_ways(
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\nhi\r\n0\r\n\r\n"
    )

    assert not outcome.reusable


class TestSizes:
    """Heads and trailers have a size limit; bodies have none."""

    @pytest.mark.parametrize(
        "head",
        [
            OK + b"X: " + b"y" * 1000 + b"\r\nContent-Length: 0\r\n\r\n",
            OK + b"X: y\r\n" * 200 + b"Content-Length: 0\r\n\r\n",
            OK + b"X: " + b"y" * 1000,
            OK + b"x" * 1000,
            b"HTTP/1.1 200 " + b"y" * 1000,
            OK + b"X: " + b"y" * 1000 + b"\r\n\r\n",
            OK + b"X: " + b"y" * 1000 + b"\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"HTTP/1.1 103 X\r\nX: " + b"y" * 1000 + b"\r\n\r\n" + LENGTH_5 + b"hello",
        ],
    )
    @pytest.mark.parametrize("method", [b"GET", b"HEAD"])
    async def test_head_over_the_limit_is_refused(self, head: bytes, method: bytes) -> None:
        """Also if the head is complete, and wherever it is split."""
        for pieces in ([head], each_byte(head)):
            outcome = await response_to(pieces, header_limit=500, method=method)

            assert isinstance(outcome.error, UpstreamProtocolError)
            assert outcome.error.failure is Failure.RESPONSE_MALFORMED
            assert not outcome.reusable

    async def test_head_at_the_limit_is_accepted(self) -> None:
        """Body bytes of the same read do not count."""
        body = b"z" * 60000
        head = OK + b"X: " + b"y" * 400 + b"\r\nContent-Length: 60000\r\n\r\n"
        outcome = await response_to([head + body], header_limit=500)

        assert outcome.error is None
        assert outcome.body == body

    @pytest.mark.parametrize("count", [1, 100])
    async def test_trailers_over_the_limit_break_the_body(self, count: int) -> None:
        """One large trailer, or many small ones."""
        trailers = (b"X-T: " + b"y" * (1000 // count) + b"\r\n") * count
        outcome = await response_to(
            [CHUNKED + b"2\r\nhi\r\n0\r\n", *each_byte(trailers + b"\r\n")], header_limit=500
        )

        assert isinstance(outcome.error, UpstreamProtocolError)
        assert outcome.error.failure is Failure.RESPONSE_BODY
        assert not outcome.reusable

    async def test_trailers_have_a_limit_of_their_own(self) -> None:
        """Neither the head nor the body counts against it."""
        body = b"z" * 450
        trailers = b"X-T: " + b"y" * 300 + b"\r\n\r\n"
        data = CHUNKED + b"%x\r\n%b\r\n0\r\n" % (len(body), body) + trailers
        outcome = await response_to([data], header_limit=600)

        assert outcome.error is None
        assert outcome.trailers == [(b"x-t", b"y" * 300)]

    async def test_endless_chunk_extension_is_bounded(self) -> None:
        """A chunk extension counts against the limit although it is dropped."""
        outcome = await response_to([CHUNKED, b"1;", *[b"x" * 10000] * 20, b"\r\na\r\n0\r\n\r\n"])

        assert outcome.body in {b"", b"a"}
