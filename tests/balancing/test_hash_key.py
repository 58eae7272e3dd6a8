"""Hash keys: read from each part of a request."""

from __future__ import annotations

from typing import Any

import pytest

from fastapi_proxy_di.balancing.hash_key import RequestKey, key_reader


def scope(**entries: Any) -> dict[str, Any]:
    """Give the scope of a request with these entries."""
    return {"headers": [], "query_string": b"", "path": "/", "client": ("10.0.0.1", 5), **entries}


@pytest.mark.parametrize(
    ("spec", "entries", "key"),
    [
        ("client", {}, b"10.0.0.1"),
        ("client", {"client": None}, None),
        ("path", {"path": "/é", "raw_path": b"/%C3%A9"}, b"/%C3%A9"),
        ("path", {"path": "/é"}, "/é".encode()),
        ("header:X-Tenant", {"headers": [(b"a", b"b"), (b"x-tenant", b"acme")]}, b"acme"),
        ("header:x-tenant", {}, None),
        ("query:id", {"query_string": b"a=1&id=%C3%A9&id=2"}, "é".encode()),
        ("query:id", {"query_string": b"id="}, b""),
        ("query:id", {"query_string": b"ID=1"}, None),
        ("cookie:sid", {"headers": [(b"a", b"b"), (b"cookie", b"a=b; sid=x1; c=d")]}, b"x1"),
        ("cookie:sid", {"headers": [(b"cookie", b'sid="x 1"')]}, b"x 1"),
        ("cookie:sid", {"headers": [(b"cookie", b'odd={"a": 1}; sid=x1')]}, b"x1"),
        ("cookie:sid", {"headers": [(b"cookie", b"a=b"), (b"cookie", b"sid=x=1")]}, b"x=1"),
        ("cookie:sid", {"headers": [(b"cookie", b"xsid=1; Sid=2; sid")]}, b""),
        ("cookie:sid", {"headers": [(b"cookie", b"xsid=1")]}, None),
        ("cookie:sid", {}, None),
    ],
)
def test_key_reader_finds_the_key(spec: str, entries: dict[str, Any], key: bytes | None) -> None:
    """Each kind, and requests that have no such key."""
    assert key_reader(spec)(scope(**entries)) == key


def test_request_key_prefers_the_key_that_the_caller_gives() -> None:
    """Also an empty one."""
    read = key_reader("client")

    assert RequestKey(scope(), read).key() == b"10.0.0.1"
    assert RequestKey(scope(), read, b"mine").key() == b"mine"
    assert RequestKey(scope(), read, b"").key() == b""


@pytest.mark.parametrize("spec", ["client", "path", "header:x", "query:id", "cookie:sid"])
def test_key_reader_accepts_an_empty_scope(spec: str) -> None:
    """There is no key then."""
    assert key_reader(spec)({}) is None
