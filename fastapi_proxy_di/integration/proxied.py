"""Marks the endpoints of proxied routes with the upstream that they forward to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from fastapi_proxy_di.integration.mentions import UpstreamMention

_PROXIED: Final = "_fastapi_proxy_di_proxied"
"""The mark is an attribute of the endpoint, so that ``functools.wraps`` copies it."""


class Proxied(NamedTuple):
    """The upstream of a proxied route.

    Attributes:
        upstream: The upstream that the route forwards to.
        any_method: Whether the route takes every method that the server accepts.
        fallback: The upstream that gets the requests which the first one failed, ``None`` for
            none.
    """

    upstream: UpstreamMention
    any_method: bool
    fallback: UpstreamMention | None = None


def mark_proxied(endpoint: Any, proxied: Proxied) -> None:
    """Mark ``endpoint`` as the endpoint of a proxied route."""
    setattr(endpoint, _PROXIED, proxied)


def proxied_by(endpoint: Any) -> Proxied | None:
    """Give the upstream of a proxied route's endpoint, ``None`` for any other endpoint."""
    proxied = getattr(endpoint, _PROXIED, None)
    return proxied if isinstance(proxied, Proxied) else None
