"""Renders the mounts of the app for the status page. Texts are escaped here."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from fastapi_proxy_di.integration.status_page.reports import MountReport, RouteReport

__all__ = ["mount_item"]


def mount_item(one: MountReport) -> str:
    """Give the item of a mount, with the routes that have paths in it."""
    path, upstream = escape(f"{one.host or ''}{one.path}"), escape(one.upstream)
    taken = escape(", ".join(one.proxied)) or "nothing, since the app itself takes everything"
    local = _routes("served by the app itself, before the mount", one.local)
    shadowed = _routes("never reached, since the mount stands before it", one.shadowed)
    return f"<li>{path} to {upstream}: {taken}<ul>{local}{shadowed}</ul></li>\n"


def _routes(what: str, routes: Iterable[RouteReport]) -> str:
    return "".join(
        f"<li>{escape(' '.join([', '.join(one.requests), one.path]).strip())}: {what}</li>"
        for one in routes
    )
