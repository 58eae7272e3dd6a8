"""Reads and removes a cookie of a request by its name, and joins split headers. Pure.

``http.cookies`` drops the whole header when one cookie in it is malformed. HTTP/2 may split
the header into several (RFC 9113 section 8.2.3), so all ``Cookie`` headers are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fastapi_proxy_di.wire.headers import Headers

__all__ = ["cookie_values", "joined_cookies", "without_cookie"]


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


def joined_cookies(headers: Headers) -> Headers:
    """Join several ``Cookie`` headers into one, at the place of the first (RFC 9113 §8.2.3).

    Args:
        headers: Headers of a request that came by HTTP/2 or 3, names in lower case.
    """
    crumbs = [value for name, value in headers if name == b"cookie"]
    if len(crumbs) < 2:
        return headers
    place = next(place for place, (name, _) in enumerate(headers) if name == b"cookie")
    others = [pair for pair in headers if pair[0] != b"cookie"]
    return [*others[:place], (b"cookie", b"; ".join(crumbs)), *others[place:]]


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
