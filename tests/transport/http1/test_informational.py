"""Parsing of 1xx responses before the final response, and of 101 instead of it."""

from __future__ import annotations

import asyncio

import pytest

from fastapi_proxy_di.errors import UpstreamDisconnected, UpstreamProtocolError
from fastapi_proxy_di.transport.protocol import Headers
from tests.transport.http1.parsed import LENGTH_5, both_ways, each_byte
from tests.transport.http1.stand_in import StandIn, exchange_over, response_to


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
        outcome = await both_ways(
            b"HTTP/1.1 103 X\r\n\r\n"
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
        )

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
