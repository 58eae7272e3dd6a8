"""Decides whether an action comes from the status page itself.

A page of another site can make a browser send requests with the user's cookies. Browsers say
where a request comes from: by ``Sec-Fetch-Site`` (Fetch Metadata), older ones by ``Origin``.
Programs send neither header, and no page can make them send cookies.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final
from urllib.parse import urlsplit

__all__ = ["is_same_origin", "normal_origin"]

_PORTS: Final = {"http": 80, "https": 443}


def is_same_origin(headers: Mapping[str, str], allowed_origins: Collection[str]) -> bool:
    """Whether the request comes from the page, from an allowed origin, or from no browser.

    Args:
        headers: The headers of the request.
        allowed_origins: Origins of other pages, as `normal_origin` gives them.
    """
    origin = headers.get("origin")
    if origin is not None and normal_origin(origin) in allowed_origins:
        return True
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    if origin is None:
        return True
    page = _parts(origin)
    if page is None:
        return False
    # TLS may end in front of the app, so the scheme is the page's.
    return page == _parts(f"{page[0]}://{headers.get('host', '')}")


def normal_origin(origin: str) -> str:
    """Write an origin with its port, so that two spellings are equal; ``""`` if it is none."""
    parts = _parts(origin)
    return "" if parts is None else f"{parts[0]}://{parts[1]}:{parts[2]}"


def _parts(origin: str) -> tuple[str, str, int] | None:
    """Give scheme, host and port of an origin, ``None`` if it is none."""
    try:
        found = urlsplit(origin)
        port = found.port or _PORTS.get(found.scheme)
    except ValueError:
        return None
    further = found.path or found.query or found.fragment or "@" in found.netloc
    if not found.hostname or port is None or further:
        return None
    return found.scheme, found.hostname, port
