"""What ``check`` shows of sources of destinations: what each finds now, or why it finds nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from fastapi_proxy_di.discovery.searcher import Searcher

__all__ = ["FOUND_HEADS", "found_rows", "has_fault"]

FOUND_HEADS: Final = ["upstream", "source", "destination", "tier", "weight", "TTL", "fault"]


def found_rows(upstream: str, searchers: Iterable[Searcher]) -> list[list[str]]:
    """Give a row for each destination that a source found, and one for each fault."""
    rows = []
    for searcher in searchers:
        source, ttl = searcher.search.address.shown, searcher.search.ttl
        shown = "-" if ttl is None else f"{ttl:g} s"
        for one in searcher.destinations:
            weight = f"{one.weight:.12g}"
            rows.append([upstream, source, one.url, str(one.tier), weight, shown, ""])
        if fault := _fault(searcher):
            rows.append([upstream, source, "-", "-", "-", "-", fault])
    return rows


def has_fault(rows: Iterable[list[str]]) -> bool:
    """Whether one of the sources found nothing."""
    return any(row[-1] for row in rows)


def _fault(searcher: Searcher) -> str:
    return searcher.holding.reason or ("" if searcher.destinations else "it has found nothing yet")
