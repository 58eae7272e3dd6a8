"""Makes the redirects of an upstream lead through the mount, by the setting ``location``.

The rules are in `fastapi_proxy_di.transforms.location`. This file collects what they need to
know of an exchange.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Final

from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.transforms.location import LEADING, Places, rewritten
from fastapi_proxy_di.transport.protocol import Headers

__all__ = ["leads_somewhere", "places_of", "rewrite_redirects"]

_SECURE: Final = frozenset({"https", "wss"})
_name: Final = itemgetter(0)


def leads_somewhere(headers: Headers) -> bool:
    """Whether any of the headers, with names in lower case, may have to be rewritten."""
    return not LEADING.isdisjoint(map(_name, headers))


def rewrite_redirects(headers: Headers, received: Headers, places: Places) -> Headers:
    """Rewrite headers as the upstream has sent them; what a transform has written stays.

    Args:
        headers: The headers for the client.
        received: The headers of the upstream.
        places: What the URLs may lead to.
    """
    theirs = {pair for pair in received if pair[0] in LEADING}
    return [(pair[0], rewritten(*pair, places)) if pair in theirs else pair for pair in headers]


def places_of(exchange: Exchange, pool: Sequence[Destination]) -> Places:
    """Collect what the URLs in the headers of a response may lead to."""
    scope, sent = exchange.scope, exchange.headers
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    secure = scope.get("scheme") in _SECURE
    mount = exchange.prefix
    for name, value in sent:
        # Only headers of trusted proxies and our own are sent.
        if name == b"x-forwarded-host":
            hosts = [*(member.strip() for member in value.split(b",")), *hosts]
        elif name == b"x-forwarded-proto":
            secure = value.split(b",")[0].strip() == b"https"
        elif name == b"x-forwarded-prefix" and value.startswith(b"/") and value.endswith(mount):
            mount = value  # with the prefix that a proxy in front has removed
    return Places(
        mount=mount.rstrip(b"/"),
        destination=exchange.destination,
        pool=pool,
        hosts=hosts,
        sent_host=exchange.host,
        scheme="https" if secure else "http",
    )
