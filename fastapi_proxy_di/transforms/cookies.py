"""Rewrites Domain and Path of ``Set-Cookie``; all other bytes stay. Pure."""

from __future__ import annotations

from collections.abc import Callable

from fastapi_proxy_di.transforms.location import is_below


def rewrite_domain(cookie: bytes, match: bytes | None, replacement: bytes | None) -> bytes:
    """Change or remove the Domain of a cookie.

    Args:
        cookie: Value of one ``Set-Cookie`` header.
        match: Change only this domain, lower case, no dot in front; ``None`` changes all.
        replacement: The new domain; ``None`` removes the attribute.
    """

    def rewritten(domain: bytes) -> bytes | None:
        if match is not None and domain.lower().lstrip(b".") != match:
            return domain
        return replacement

    return _rewrite(cookie, b"domain", rewritten)


def rewrite_path(cookie: bytes, match: bytes, replacement: bytes) -> bytes:
    """Replace the prefix of a cookie's Path.

    A ``__Host-`` cookie stays as it is: browsers accept it with ``Path=/`` only. A Path that
    already begins with a longer ``replacement`` stays too: the upstream knows its mount.

    Args:
        cookie: Value of one ``Set-Cookie`` header.
        match: The prefix to replace, no slash at its end.
        replacement: The new prefix, no slash at its end.
    """
    if cookie.lstrip()[:7].lower() == b"__host-":
        return cookie

    def rewritten(path: bytes) -> bytes:
        if not path.startswith(b"/") or not is_below(path, match):
            return path
        if len(match) < len(replacement) and is_below(path, replacement):
            return path
        rest = path[len(match) :]
        # "/" becomes the mount without a slash at its end.
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
