"""The response headers that are forwarded to the client."""

import pytest

from fastapi_proxy_di.forwarding.response_headers import end_to_end_headers
from fastapi_proxy_di.transport.protocol import Headers
from fastapi_proxy_di.wire.headers import RESPONSE_KINDS, HeaderKinds

TABLE = HeaderKinds(RESPONSE_KINDS, [b"server"])


@pytest.mark.parametrize(
    ("headers", "status", "pass_trailers", "kept"),
    [
        (
            [(b"set-cookie", b"a"), (b"x", b"1"), (b"set-cookie", b"b")],
            200,
            False,
            [(b"set-cookie", b"a"), (b"x", b"1"), (b"set-cookie", b"b")],
        ),
        ([(b"server", b"x"), (b"transfer-encoding", b"chunked")], 200, False, []),
        ([(b"connection", b"close"), (b"close", b"1")], 200, False, [(b"close", b"1")]),
        (
            [(b"x-a", b"1"), (b"connection", b"X-A, content-length"), (b"content-length", b"5")],
            200,
            False,
            [(b"content-length", b"5")],
        ),
        ([(b"upgrade", b"h2c"), (b"connection", b"upgrade")], 200, False, []),
        ([(b"trailer", b"x")], 200, True, [(b"trailer", b"x")]),
        ([(b"trailer", b"x")], 200, False, []),
        ([(b"content-length", b"5"), (b"etag", b"x")], 304, False, [(b"etag", b"x")]),
        ([(b"content-length", b"0")], 204, False, []),
        ([(b"content-length", b"0")], 205, False, [(b"content-length", b"0")]),
    ],
)
def test_only_end_to_end_headers_are_forwarded(
    headers: Headers, status: int, pass_trailers: bool, kept: Headers
) -> None:
    """No hop-by-hop header, and none that Connection names."""
    assert end_to_end_headers(headers, status, TABLE, pass_trailers=pass_trailers) == kept
