"""Renders the status page: one file, complete without script.

Every text from outside is escaped here. The page has no inline styles or handlers; its style and
script are allowed by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator
from datetime import datetime
from html import escape
from importlib.resources import files
from typing import Final, get_args

from fastapi_proxy_di.integration.status_page.reports import EventReport, StatusReport
from fastapi_proxy_di.pools.destination import DestinationState
from fastapi_proxy_di.upstream.status import DestinationStatus, Percentiles, UpstreamStatus

__all__ = ["POLICY", "render"]

_STYLE: Final = files(__package__).joinpath("page.css").read_text(encoding="utf-8")
_SCRIPT: Final = files(__package__).joinpath("page.js").read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


POLICY: Final = (
    f"default-src 'none'; script-src {_hash(_SCRIPT)}; style-src {_hash(_STYLE)}; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The ``Content-Security-Policy`` of the page."""

_COLUMNS: Final = (
    "Destination",
    "State",
    "Since",
    "In flight",
    "Attempts",
    "Failed",
    "First byte, ms",
    "In all, ms",
    "Ejections",
    "Probe, ms",
    "Weight",
)


def render(report: StatusReport, events: Iterable[EventReport]) -> str:
    """Give the page.

    Args:
        report: The state of all upstreams.
        events: The recent events, the newest first.
    """
    states = "".join(f"<option>{state}</option>" for state in get_args(DestinationState))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Upstreams</title>
<style>{_STYLE}</style>
</head>
<body data-position="{escape(report.position)}" data-process="{report.process}">
<main>
<h1>Upstreams</h1>
<p id="moment">Process {report.process}, {_moment(report.at)}. With several processes, each knows \
its own state only.</p>
<p id="notice" class="notice" role="status"></p>
<div class="tools scripted" hidden>
<label>Search <input id="search" type="search" autocomplete="off"></label>
<label>State <select id="state"><option value="">all</option>{states}</select></label>
<span id="shown"></span>
</div>
<div id="upstreams">
{"".join(_upstream(one, report) for one in report.upstreams)}</div>
<h2>Recent events</h2>
<ul id="events">
{"".join(map(_event, events)) or "<li>none since the start</li>"}</ul>
</main>
<script>{_SCRIPT}</script>
</body>
</html>
"""


def _upstream(one: UpstreamStatus, report: StatusReport) -> str:
    name = escape(one.upstream)
    heads = "".join(
        f'<th scope="col"><button data-column="{number}" data-key="{name} {number}">{text}'
        "</button></th>"
        for number, text in enumerate(_COLUMNS)
    )
    actions = '<th scope="col">Actions</th>' if report.actions else ""
    rows = "".join(_rows(one, report))
    return f"""<section id="upstream-{name}" data-name="{name}" aria-labelledby="name-{name}">
<header><h2 id="name-{name}">{name}</h2><p>{_summary(one)}</p></header>
<table><thead><tr>{heads}{actions}</tr></thead>
<tbody>
{rows}</tbody></table>
</section>
"""


def _summary(one: UpstreamStatus) -> str:
    parts = [
        f"policy {escape(one.policy)}",
        f"{one.in_flight} in flight",
        f"{one.queued} queued",
        f"{one.tunnels} WebSockets",
        f"{one.retries_left} retries left",
        *(f"{count} refused by {escape(limit)}" for limit, count in one.refused.items()),
    ]
    panic = '<strong class="panic">none available, all are used</strong>; ' if one.panic else ""
    return panic + ", ".join(parts)


def _rows(one: UpstreamStatus, report: StatusReport) -> Iterator[str]:
    for destination in one.destinations:
        yield _row(one.upstream, destination, report, removed=False)
    for destination in one.removed:
        yield _row(one.upstream, destination, report, removed=True)


def _row(upstream: str, one: DestinationStatus, report: StatusReport, *, removed: bool) -> str:
    url = escape(one.url)
    state = "removed" if removed else one.state
    reason = f" ({escape(one.reason)})" if one.reason else ""
    ends = "" if one.ejected_for is None else f", {one.ejected_for:.0f} s left"
    failed = sum(one.failed_attempts.values())
    reasons = ", ".join(f"{escape(name)} {count}" for name, count in one.failed_attempts.items())
    cells = [
        _cell(0, one.url, url, "address"),
        _cell(1, state, f'<span class="state {state}">{state}</span>{reason}{ends}'),
        _cell(2, one.since.timestamp(), _moment(one.since)),
        _cell(3, one.in_flight, str(one.in_flight), "number"),
        _cell(4, one.attempts, str(one.attempts), "number"),
        _cell(5, failed, f"{failed}{f' ({reasons})' if reasons else ''}", "number"),
        _duration_cell(6, one.first_byte_ms),
        _duration_cell(7, one.duration_ms),
        _cell(8, one.ejections, str(one.ejections), "number"),
        _cell(9, one.latency_ms or "", _milliseconds(one.latency_ms), "number"),
        _cell(10, one.weight, f"{one.weight:g}", "number"),
    ]
    if report.actions:
        cells.append(f"<td>{'' if removed else _actions(one)}</td>")
    key = escape(f"{upstream} {one.url}{' removed' if removed else ''}")
    text = escape(f"{one.url} {one.reason}")
    return f'<tr id="{key}" data-state="{state}" data-text="{text}">{"".join(cells)}</tr>\n'


def _actions(one: DestinationStatus) -> str:
    names = ["undrain" if one.draining else "drain"]
    names += ["readmit"] * (one.state == "ejected") + ["probe"]
    url = escape(one.url)
    buttons = "".join(
        f'<button type="button" data-action="{name}" data-destination="{url}"'
        f' data-key="{url} {"drain" if name == "undrain" else name}"'
        f' aria-label="{name} {url}">{name}</button>'
        for name in names
    )
    weight = (
        f'<input type="number" min="0.01" step="any" value="{one.weight:g}"'
        f' aria-label="weight of {url}"><button type="button" data-action="weight"'
        f' data-destination="{url}" data-key="{url} weight" aria-label="set weight of {url}">'
        "set</button>"
    )
    return f'<span class="actions">{buttons}{weight}</span>'


def _cell(column: int, value: object, shown: str, kind: str = "") -> str:
    label = _COLUMNS[column]
    names = f' class="{kind}"' if kind else ""
    return f'<td{names} data-label="{label}" data-value="{escape(str(value))}">{shown}</td>'


def _duration_cell(column: int, found: Percentiles | None) -> str:
    if found is None:
        return _cell(column, "", "-", "number")
    shown = f"{_milliseconds(found.p50)} / {_milliseconds(found.p99)}"
    return _cell(column, found.p99, shown, "number")


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def _event(one: EventReport) -> str:
    subject = escape(one.upstream)
    if one.destination is not None:
        subject += f": {escape(one.destination)}"
    return f"<li>{_moment(one.at)} {subject} {escape(one.text)}</li>\n"


def _moment(at: datetime) -> str:
    return f'<time datetime="{at.isoformat()}">{at:%Y-%m-%d %H:%M:%S} UTC</time>'
