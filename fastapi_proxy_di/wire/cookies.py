"""Reads and removes a cookie of a request by its name; all other bytes stay. Pure.

``http.cookies`` drops the whole header when one cookie in it is malformed. HTTP/2 may split
the header into several (RFC 9113 section 8.2.3), so all ``Cookie`` headers are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fastapi_proxy_di.wire.headers import Headers

__all__ = ["cookie_values", "without_cookie"]


def cookie_values(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> Iterator[bytes]:
    """Give the values of all cookies called ``name``.

    Args:
        headers: Request headers, names in lower case.
        name: Name of the cookie.
    """
    for header, value in headers:
        if header == b"cookie" and name in value:
            for pair in value.split(b";"):
                found, content = _split(pair)
                if found == name:
                    yield content


def without_cookie(headers: Headers, name: bytes) -> Headers:
    """Give the headers without the cookies called ``name``."""
    kept: Headers = []
    for header, value in headers:
        if header == b"cookie" and name in value:
            others = [pair for pair in value.split(b";") if _split(pair)[0] != name]
            if others:
                kept.append((header, b";".join(others).strip()))
        else:
            kept.append((header, value))
    return kept


def _split(pair: bytes) -> tuple[bytes, bytes]:
    name, _, value = pair.partition(b"=")
    return name.strip(), value.strip()
