"""The id of a request: the client's if it is safe to log and to send, else a new one."""

from __future__ import annotations

import re

import pytest

from fastapi_proxy_di.wire.request_id import request_id_of, without_request_id


@pytest.mark.parametrize("value", ["7", "a.b_c-D", "x" * 64])
def test_id_of_the_client_is_taken_over(value: str) -> None:
    """Ids of 1 to 64 letters, digits, dots, underscores and hyphens are taken over."""
    assert request_id_of([(b"X-Request-Id", value.encode())]) == value


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"x-request-id", b"")],
        [(b"x-request-id", b"x" * 65)],
        [(b"x-request-id", b"a b")],
        [(b"x-request-id", b"a\n")],
        [(b"x-request-id", "ü".encode())],
        [(b"x-request-id", b"\x1b[31m")],
        [(b"x-request-id", b"a"), (b"x-request-id", b"a")],
    ],
)
def test_any_other_id_is_replaced(headers: list[tuple[bytes, bytes]]) -> None:
    """By 32 hexadecimal digits, new ones each time."""
    one, two = request_id_of(headers), request_id_of(headers)

    assert re.fullmatch("[0-9a-f]{32}", one)
    assert one != two


def test_other_headers_stay() -> None:
    """In their order, whatever the case of the one that goes."""
    headers = [(b"a", b"1"), (b"X-Request-ID", b"2"), (b"b", b"3"), (b"x-request-id", b"4")]

    assert without_request_id(headers) == [(b"a", b"1"), (b"b", b"3")]
