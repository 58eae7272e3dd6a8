"""The parsing of responses, byte by byte: status, headers, body, and reuse of the connection.

No socket: an exchange is fed whole responses, and the same responses a byte at a time.
"""

from __future__ import annotations

import asyncio

import pytest

from fastapi_proxy_di.errors import Failure, UpstreamDisconnected, UpstreamProtocolError
from fastapi_proxy_di.transport.protocol import Headers
from tests.transport.http1.stand_in import Outcome, StandIn, exchange_over, response_to

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
    assert [(name, value.strip()) for name, value in outcome.headers] == expected


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
    field = b"Connection: close\r\n" if version == b"1.1" else b""
    outcome = await both_ways(
        b"HTTP/" + version + b" 200 OK\r\n" + field + b"Content-Length: 5\r\n\r\n", method=b"HEAD"
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


class TestInformational:
    """1xx responses before the final response."""

    async def test_each_is_reported_and_not_kept(self) -> None:
        """Status and headers of each, in order; the final response has none of them."""
        seen: list[tuple[int, Headers]] = []
        exchange = exchange_over(StandIn())
        exchange.on_informational = lambda status, headers: seen.append((status, headers))
        data = (
            b"HTTP/1.1 100 Continue\r\n\r\n"
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nLink: </b>\r\n\r\n"
            b"HTTP/1.1 102 Processing\r\n\r\n" + LENGTH_5 + b"hello"
        )
        for piece in each_byte(data):
            exchange.feed(memoryview(piece), 1.0)
        await exchange.head()

        assert seen == [
            (100, []),
            (103, [(b"link", b"</a>"), (b"link", b"</b>")]),
            (102, []),
        ]
        assert exchange.status == 200
        assert exchange.headers == [(b"content-length", b"5")]
        assert await exchange.read() == b"hello"

    async def test_content_length_of_a_1xx_is_ignored(self) -> None:
        """A 1xx has no body (RFC 9110 section 15.2), whatever it states."""
        outcome = await both_ways(
            b"HTTP/1.1 103 X\r\nContent-Length: 3\r\n\r\n" + LENGTH_5 + b"hello"
        )

        assert outcome.body == b"hello" or outcome.error is not None
        if outcome.error is None:
            assert outcome.headers == [(b"content-length", b"5")]

    async def test_without_a_listener_they_are_dropped(self) -> None:
        """The final response is the same."""
        outcome = await both_ways(b"HTTP/1.1 103 X\r\nLink: </a>\r\n\r\n" + LENGTH_5 + b"hello")

        assert outcome.headers == [(b"content-length", b"5")]
        assert outcome.reusable

    async def test_head_waits_for_the_final_response(self) -> None:
        """A 1xx does not end the wait."""
        exchange = exchange_over(StandIn())
        waiting = asyncio.ensure_future(exchange.head())
        exchange.feed(memoryview(b"HTTP/1.1 103 X\r\n\r\n"), 1.0)
        await asyncio.sleep(0)
        assert not waiting.done()
        exchange.feed(memoryview(LENGTH_5), 1.0)
        await waiting

        assert exchange.status == 200

    async def test_endless_1xx_responses_are_refused(self) -> None:
        """All heads together count against the limit."""
        hint = b"HTTP/1.1 103 Early Hints\r\n\r\n"
        outcome = await response_to([hint] * 100, header_limit=1000)

        assert isinstance(outcome.error, UpstreamProtocolError)

    async def test_switch_after_hints_is_refused_unless_asked(self) -> None:
        """101 for a plain request is malformed, also after other heads."""
        outcome = await both_ways(b"HTTP/1.1 103 X\r\n\r\n" + _MALFORMED["switch unasked"])

        assert isinstance(outcome.error, UpstreamProtocolError)


class TestSwitching:
    """101 responses to a handshake."""

    SWITCH = (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    )

    @pytest.mark.parametrize("surplus", [b"", b"\x81\x02hi", b"HTTP/1.1 200 OK\r\n\r\n"])
    async def test_bytes_after_a_101_belong_to_the_new_protocol(self, surplus: bytes) -> None:
        """No byte is parsed or lost, wherever the segments are split."""
        for cut in range(len(self.SWITCH + surplus) + 1):
            peer = _Detachable()
            exchange = exchange_over(peer, upgrade=True)
            data = self.SWITCH + surplus
            for piece in (data[:cut], data[cut:]):
                if piece:
                    exchange.feed(memoryview(piece), 1.0)
            await exchange.head()

            assert exchange.status == 101
            assert exchange.headers[0] == (b"upgrade", b"websocket")
            assert exchange.detach() == (peer, surplus)
            exchange.close()
            assert peer.end is None

    async def test_101_is_read_a_byte_at_a_time(self) -> None:
        """The same result, a byte at a time."""
        peer = _Detachable()
        exchange = exchange_over(peer, upgrade=True)
        for piece in each_byte(self.SWITCH + b"\x81\x02hi"):
            exchange.feed(memoryview(piece), 1.0)

        assert exchange.detach() == (peer, b"\x81\x02hi")

    async def test_101_without_upgrade_is_malformed(self) -> None:
        """RFC 9110 section 15.2.2: a 101 names the protocol."""
        outcome = await both_ways(
            b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + LENGTH_5 + b"hello", upgrade=True
        )

        assert isinstance(outcome.error, UpstreamProtocolError)

    async def test_a_refusal_is_an_ordinary_response(self) -> None:
        """The refusal has a body, and the connection is used again."""
        outcome = await both_ways(
            b"HTTP/1.1 403 No\r\nContent-Length: 5\r\nUpgrade: websocket\r\n\r\nhello",
            upgrade=True,
        )

        assert (outcome.status, outcome.body, outcome.reusable) == (403, b"hello", True)

    async def test_detach_of_a_broken_exchange_raises_its_error(self) -> None:
        """A broken exchange has no socket to hand over."""
        exchange = exchange_over(StandIn(), upgrade=True)
        exchange.fail(RuntimeError("why"))
        with pytest.raises(RuntimeError, match="why"):
            exchange.detach()
        closed = exchange_over(StandIn(), upgrade=True)
        closed.close()
        with pytest.raises(UpstreamDisconnected):
            closed.detach()


class _Detachable(StandIn):
    def detach(self) -> _Detachable:
        return self


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
