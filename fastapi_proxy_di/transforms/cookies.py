"""Attributes of ``Set-Cookie`` changed in place; all other bytes of it stay. Pure."""

from __future__ import annotations

from collections.abc import Callable

from fastapi_proxy_di.transforms.location import is_below


def rewrite_domain(cookie: bytes, match: bytes | None, replacement: bytes | None) -> bytes:
    """Change the Domain of a cookie.

    Args:
        cookie: Value of one ``Set-Cookie``.
        match: Cookies of this domain only, lower case, no dot before it; ``None`` for all.
        replacement: The new one; ``None`` removes the attribute.
    """

    def rewritten(domain: bytes) -> bytes | None:
        if match is not None and domain.lower().lstrip(b".") != match:
            return domain
        return replacement

    return _rewrite(cookie, b"domain", rewritten)


def rewrite_path(cookie: bytes, match: bytes, replacement: bytes) -> bytes:
    """Change the front of a cookie's Path.

    A ``__Host-`` cookie stays: browsers take it with ``Path=/`` alone.

    Args:
        cookie: Value of one ``Set-Cookie``.
        match: What the path starts with, no slash at its end.
        replacement: What comes in its place, no slash at its end.
    """
    if cookie.lstrip()[:7].lower() == b"__host-":
        return cookie

    def rewritten(path: bytes) -> bytes:
        if not path.startswith(b"/") or not is_below(path, match):
            return path
        rest = path[len(match) :]
        # "/" is everything below the mount, which has no slash of its own.
        return replacement + (b"" if rest == b"/" and replacement else rest) or b"/"

    return _rewrite(cookie, b"path", rewritten)


def _rewrite(cookie: bytes, name: bytes, rewritten: Callable[[bytes], bytes | None]) -> bytes:
    pair, *attributes = cookie.split(b";")
    kept = [pair]
    for attribute in attributes:
        found, equals, value = attribute.partition(b"=")
        plain = value.strip()
        if found.strip().lower() != name or not plain:
            kept.append(attribute)
            continue
        new = rewritten(plain)
        if new is not None:
            kept.append(attribute if new == plain else found + equals + new)
    return b";".join(kept)
