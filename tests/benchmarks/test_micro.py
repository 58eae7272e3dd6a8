"""Micro benchmarks of the parts that every forwarded request passes through.

Not collected by a plain `pytest`; run `pytest tests/benchmarks/test_micro.py`. Save a run with
`--benchmark-autosave` and compare the next one with `--benchmark-compare`.
"""

from random import Random
from types import SimpleNamespace
from typing import Any, Final, cast

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from fastapi_proxy_di.balancing.policy import BalancingPolicy
from fastapi_proxy_di.balancing.selection import Pick, select
from fastapi_proxy_di.balancing.two_choices import TwoChoices
from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.forwarding.response_headers import end_to_end_headers
from fastapi_proxy_di.pools.pool import Pool
from fastapi_proxy_di.settings import DestinationSettings, UpstreamSettings
from fastapi_proxy_di.transport.http1.connection import Http1Connection
from fastapi_proxy_di.transport.http1.exchange import Http1Exchange
from fastapi_proxy_di.transport.http1.parser import ResponseParser
from fastapi_proxy_di.transport.protocol import Headers
from fastapi_proxy_di.upstream.rules import request_builder, response_table
from fastapi_proxy_di.wire.targets import join_target, target_below

BROWSER_SCOPE: Final[dict[str, Any]] = {
    "type": "http",
    "http_version": "1.1",
    "method": "GET",
    "scheme": "https",
    "path": "/billing/invoices/2024 07/items",
    "raw_path": b"/billing/invoices/2024%2007/items",
    "root_path": "",
    "query_string": b"page=2&sort=-date",
    "client": ("192.0.2.7", 51234),
    "server": ("127.0.0.1", 8000),
    "headers": [
        (b"host", b"shop.example"),
        (b"connection", b"keep-alive"),
        (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/140.0"),
        (b"accept", b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
        (b"accept-language", b"en-GB,en;q=0.5"),
        (b"accept-encoding", b"gzip, deflate, br, zstd"),
        (b"referer", b"https://shop.example/billing/"),
        (b"cookie", b"session=3f7a0c52b9; theme=dark"),
        (b"authorization", b"Bearer eyJhbGciOiJIUzI1NiJ9.e30.ZRrHA1JJJW8opsbCGfG"),
        (b"x-request-id", b"7b0e6f60-2f0c-4f1c-9f7e-0f6b1c2d3e4f"),
    ],
}

RESPONSE: Final = (
    b"HTTP/1.1 200 OK\r\n"
    b"Server: nginx\r\n"
    b"Date: Mon, 01 Jul 2024 12:00:00 GMT\r\n"
    b"Content-Type: application/json\r\n"
    b"Content-Length: 13\r\n"
    b"Connection: keep-alive\r\n"
    b"Set-Cookie: session=3f7a0c52b9; Path=/; HttpOnly\r\n"
    b"Set-Cookie: theme=dark; Path=/\r\n"
    b'ETag: "65f1-3e8"\r\n'
    b"Cache-Control: private, max-age=0\r\n"
    b"\r\n"
    b'{"total": 42}'
)


class Billing(UpstreamSettings, name="billing"):
    """The upstream of these benchmarks, all defaults."""


def _destinations(count: int) -> list[DestinationSettings]:
    urls = [f"http://10.0.{at // 250}.{at % 250 + 1}" for at in range(count)]
    return [DestinationSettings(url=url) for url in urls]


def _settings() -> Billing:
    return Billing(destinations=_destinations(1))


_CONNECTION: Final = cast("Http1Connection", SimpleNamespace(loop=None, parser=ResponseParser()))
"""Stands for a connection: a response that fits one read uses only its parser."""


def _parsed_response() -> Http1Exchange:
    exchange = Http1Exchange(
        _CONNECTION,
        bodyless=False,
        upgrade=False,
        header_limit=65536,
        reused=True,
        now=0.0,
        parser=_CONNECTION.parser,
    )
    exchange.feed(memoryview(RESPONSE), 1.0)
    return exchange


def test_path_below_the_mount_is_found(benchmark: BenchmarkFixture) -> None:
    """The raw path is split at the mount."""
    rest, prefix = benchmark(target_below, BROWSER_SCOPE, "invoices/2024 07/items", routed=True)
    assert (rest, prefix) == (b"/invoices/2024%2007/items", b"/billing")


def test_target_is_joined(benchmark: BenchmarkFixture) -> None:
    """Base path, path and query become the request's target."""
    target = benchmark(join_target, b"/v2", b"/invoices/2024%2007/items", b"page=2")
    assert target == b"/v2/invoices/2024%2007/items?page=2"


def test_request_headers_are_built(benchmark: BenchmarkFixture) -> None:
    """The headers of a browser become those of the request to the destination."""
    builder = request_builder(_settings(), None)

    def build() -> Exchange:
        exchange = Exchange(BROWSER_SCOPE, None, None, b"/invoices/2024%2007/items", b"/billing")
        builder.build(exchange)
        return exchange

    names = [name for name, _ in benchmark(build).headers]
    assert b"connection" not in names
    assert b"x-forwarded-for" in names


@pytest.mark.parametrize("destinations", [3, 1000])
def test_destination_is_picked(benchmark: BenchmarkFixture, destinations: int) -> None:
    """The default policy picks among few destinations and among many."""
    pool = Pool("billing", _destinations(destinations), panic=True)
    policy: BalancingPolicy = TwoChoices(random=Random(7))
    pick: Pick = benchmark(select, policy, pool)
    assert pick[0] in pool.available


def test_response_head_is_parsed(benchmark: BenchmarkFixture) -> None:
    """A response with its body in one read."""
    exchange: Http1Exchange = benchmark(_parsed_response)
    assert exchange.status == 200
    assert exchange.complete
    assert len(exchange.headers) == 9


def test_response_headers_are_selected(benchmark: BenchmarkFixture) -> None:
    """The response headers that are forwarded to the client."""
    table = response_table(_settings(), [])
    received = _parsed_response().headers
    headers: Headers = benchmark(end_to_end_headers, received, 200, table, pass_trailers=False)
    assert [name for name, _ in headers].count(b"set-cookie") == 2
    assert b"server" not in [name for name, _ in headers]
