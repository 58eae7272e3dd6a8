"""Renders what the status page shows of all processes that share a store. Texts are escaped here.

The page loads the totals of one upstream at a time: the one that its query names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final
from urllib.parse import urlencode

from fastapi_proxy_di.integration.status_page.cells import (
    cell,
    duration_cell,
    moment,
    with_parts,
)
from fastapi_proxy_di.integration.status_page.process_reports import (
    DestinationTotalsReport,
    ProcessReport,
    TotalsReport,
)

__all__ = [
    "COLUMNS",
    "PARAMETER",
    "Asked",
    "link_to_totals",
    "process_list",
    "totals_section",
]

PARAMETER: Final = "all"
"""The parameter of the query that names the upstream whose totals are shown."""

COLUMNS: Final = (
    "Destination",
    "State in so many processes",
    "In flight",
    "Attempts",
    "Failed",
    "First byte, p50 / p99 ms",
    "In all, p50 / p99 ms",
    "Ejections",
)
_NAMED: Final = 10
"""Processes that went missing which the summary names."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the page is asked for.

    Attributes:
        query: The parameters of its query.
        upstream: The upstream whose totals are shown, ``""`` for none.
        totals: These totals, ``None`` if the store does not have them now.
    """

    query: Sequence[tuple[str, str]] = ()
    upstream: str = ""
    totals: TotalsReport | None = None


def process_list(processes: Sequence[ProcessReport] | None) -> str:
    """Give who is alive and who went missing; nothing if no store is shared."""
    if processes is None:
        return '<p id="processes"></p><ul id="processlist" hidden></ul>\n'
    items = "".join(map(_process, processes))
    return (
        f'<details><summary id="processes">{_summary(processes)}</summary>\n'
        f'<ul id="processlist">\n{items}</ul></details>\n'
    )


def _summary(processes: Sequence[ProcessReport]) -> str:
    if not processes:
        return '<strong class="bad">The store is lost: only this process is known</strong>'
    missing = [one.process for one in processes if not one.alive]
    text = f"{_number(len(processes) - len(missing))} share the store"
    if missing:
        names = ", ".join(map(escape, missing[:_NAMED])) + ", …" * (len(missing) > _NAMED)
        text += f', <strong class="bad">{len(missing)} went missing: {names}</strong>'
    return text


def _number(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"


def _process(one: ProcessReport) -> str:
    name, version = escape(one.process), escape(one.version)
    if not one.alive:
        text = (
            f'<strong class="bad">{name} went missing</strong>, last seen {moment(one.last_beat)}'
        )
        return f"<li>{text}, version {version}</li>\n"
    upstreams = "".join(
        f"; {escape(upstream)}: {counts.available} of {counts.destinations} available,"
        f" {counts.in_flight} in flight"
        for upstream, counts in one.upstreams.items()
    )
    return f"<li>{name}, version {version}{upstreams}</li>\n"


def link_to_totals(upstream: str, asked: Asked) -> str:
    """Give the link that shows the totals of an upstream, or no more."""
    chosen = asked.upstream == upstream
    kept = [(name, value) for name, value in asked.query if name != PARAMETER]
    query = urlencode(kept if chosen else [*kept, (PARAMETER, upstream)])
    text = "only this process" if chosen else "all processes"
    label = escape(f"{text}: {upstream}")
    return (
        f'<p><a href="?{escape(query)}" data-key="{PARAMETER}" aria-label="{label}">{text}</a></p>'
    )


def totals_section(asked: Asked) -> str:
    """Give the totals of the upstream that was asked for; nothing if none was."""
    if not asked.upstream:
        return ""
    name = escape(f"{asked.upstream} in all processes")
    heads = "".join(
        f'<th scope="col" data-column="{number}">{text}</th>' for number, text in enumerate(COLUMNS)
    )
    totals = asked.totals
    rows = "" if totals is None else "".join(map(_row, totals.destinations))
    return f"""<section class="upstream totals" data-name="{name}" aria-labelledby="totals">
<header><h2 id="totals">{name}</h2><p>{_whole(totals)}</p></header>
<table><thead><tr>{heads}</tr></thead>
<tbody>
{rows}</tbody></table>
</section>
"""


def _whole(totals: TotalsReport | None) -> str:
    if totals is None:
        return '<strong class="bad">The store does not have the totals at the moment</strong>'
    parts = [
        "Counts of each process since its start, and of those that ended",
        f"{totals.requests} requests",
        f"{totals.in_flight} in flight",
        f"{totals.tunnels} WebSockets",
        *(f"{count} refused by {escape(limit)}" for limit, count in totals.refused.items()),
    ]
    return ", ".join(parts)


def _row(one: DestinationTotalsReport) -> str:
    url, state = escape(one.url), escape(next(iter(_by_number(one.states)), ""))
    cells = (
        f'<th scope="row">{url}</th>',
        cell(one.states.get("available", 0), _states(one.states)),
        f"<td>{one.in_flight}</td>",
        cell(one.attempts, with_parts(one.attempts, one.error_statuses)),
        cell(
            sum(one.failed_attempts.values()),
            with_parts(sum(one.failed_attempts.values()), one.failed_attempts),
        ),
        duration_cell(one.first_byte_ms),
        duration_cell(one.duration_ms),
        f"<td>{one.ejections}</td>",
    )
    return f'<tr data-url="{url}" data-state="{state}" data-reason="">{"".join(cells)}</tr>\n'


def _states(states: dict[str, int]) -> str:
    return (
        ", ".join(
            f'<strong class="{escape(name)}">{escape(name)}</strong> in {states[name]}'
            for name in _by_number(states)
        )
        or "-"
    )


def _by_number(states: dict[str, int]) -> Iterable[str]:
    """Give the states, that of most processes first."""
    return sorted(states, key=lambda name: -states[name])
