"""Pieces of the status page that several of its tables have. Texts are escaped here."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from html import escape

from fastapi_proxy_di.upstream.status import Percentiles

__all__ = ["cell", "duration_cell", "milliseconds", "moment", "with_parts"]


def cell(value: object, shown: str) -> str:
    """Give a cell that is sorted by something else than what it shows."""
    return f'<td data-value="{value}">{shown}</td>'


def with_parts(number: int, parts: Mapping[str, int]) -> str:
    """Give a number, and what a part of it was."""
    texts = ", ".join(f"{escape(name)}: {count}" for name, count in parts.items())
    return f"{number} ({texts})" if parts else str(number)


def duration_cell(found: Percentiles | None) -> str:
    """Give a cell of durations, which is sorted by the longer one."""
    if found is None:
        return "<td>-</td>"
    return cell(found.p99, f"{milliseconds(found.p50)} / {milliseconds(found.p99)}")


def milliseconds(value: float | None) -> str:
    """Give milliseconds, with a place after the point if they are few."""
    return "-" if value is None else f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def moment(at: datetime) -> str:
    """Give a time in UTC, which the script shows in local time."""
    return f'<time datetime="{at.isoformat()}">{at:%Y-%m-%d %H:%M:%S} UTC</time>'
