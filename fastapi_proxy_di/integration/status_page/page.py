"""Renders the status page: one file, complete without script.

Every text from outside is escaped here. The page has no inline styles or handlers; its style and
script are allowed by their hashes. The script fetches the page again and takes over what has
changed, so the look of a state is decided here alone.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from hashlib import sha256
from html import escape
from importlib.resources import files
from typing import Final

from fastapi_proxy_di.integration.status_page.all_processes import (
    COLUMNS as TOTALS_COLUMNS,
)
from fastapi_proxy_di.integration.status_page.all_processes import (
    Asked,
    link_to_totals,
    process_list,
    totals_section,
)
from fastapi_proxy_di.integration.status_page.cells import (
    cell,
    duration_cell,
    milliseconds,
    moment,
    with_parts,
)
from fastapi_proxy_di.integration.status_page.mounts import mount_item
from fastapi_proxy_di.integration.status_page.reports import EventReport, StatusReport
from fastapi_proxy_di.upstream.status import (
    DestinationStatus,
    SourceStatus,
    UpstreamStatus,
)

__all__ = ["POLICY", "render"]

_COLUMNS: Final = (
    "Destination",
    "State",
    "Since",
    "In flight",
    "Attempts",
    "Failed",
    "First byte, p50 / p99 ms",
    "In all, p50 / p99 ms",
    "Ejections",
    "Probe ms",
    "Weight",
    "Actions",
)
_ESTIMATED: Final = (
    ' title="estimated within the buckets of the metrics: 2471 means between 1000 and 2500 ms"'
)
_STATES: Final = ("unhealthy", "ejected", "unprobed", "draining", "removed", "available")
"""The states of a row; sorted by state, what needs a look comes first."""


# In a narrow window each cell is a line of its own, after the name of its column.
def _labels(columns: Iterable[str], prefix: str = "") -> str:
    return "".join(
        f'  {prefix}td:nth-child({number})::before {{ content: "{text}: "; }}\n'
        for number, text in enumerate(columns, 1)
        if number > 1
    )


_LABELS: Final = _labels(_COLUMNS) + _labels(TOTALS_COLUMNS, ".totals ")
_FILES: Final = files(__package__)
_STYLE: Final = _FILES.joinpath("page.css").read_text(encoding="utf-8") + (
    f"@media screen and (max-width: 75rem) {{\n{_LABELS}}}\n"
)
_SCRIPT: Final = _FILES.joinpath("page.js").read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


POLICY: Final = (
    f"default-src 'none'; script-src {_hash(_SCRIPT)}; style-src {_hash(_STYLE)}; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The ``Content-Security-Policy`` of the page."""


TROUBLED_PERCENT: Final = 5
"""Share of recent attempts that failed, or of recent requests that were refused, from which on the
title and the icon of the page count an upstream as troubled."""


def _layout(*, actions: bool) -> str:
    """Give a text that differs if an open page cannot take over the parts of a new one."""
    return sha256(
        "\0".join((_SCRIPT, _STYLE, *_COLUMNS, *TOTALS_COLUMNS, str(actions))).encode()
    ).hexdigest()[:16]


_LAYOUTS: Final = {actions: _layout(actions=actions) for actions in (False, True)}


_NOTHING: Final = Asked()


def render(report: StatusReport, events: Iterable[EventReport], asked: Asked = _NOTHING) -> str:
    """Give the page.

    Args:
        report: The state of all upstreams.
        events: The recent events, the newest first.
        asked: What the query of the page asks for.
    """
    states = "".join(f"<option>{state}</option>" for state in _STATES)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_title(report)}</title>
<link id="icon" rel="icon" href="{_icon(report)}">
<style>{_STYLE}</style>
</head>
<body data-position="{escape(report.position)}" data-process="{report.process}" \
data-layout="{_LAYOUTS[report.actions]}">
<main>
<h1>Upstreams</h1>
<p id="moment">Process {report.process} at {moment(report.at)}, started \
{moment(report.started)}. {_whose(report)}</p>
{process_list(report.processes)}\
<p id="overridden">{_overridden(report)}</p>
<noscript><p>The page shows one moment: reload it for the next. Search, order and actions need \
JavaScript.</p></noscript>
<nav id="overview" aria-label="Overview"><ul>
{"".join(map(_link, report.upstreams))}<li><a href="#recent">Recent events</a></li>
</ul></nav>
<div class="tools scripted">
<label>Search <input id="search" type="search" autocomplete="off"></label>
<label>State <select id="state"><option value="">all</option>{states}</select></label>
<span id="shown"></span>
</div>
<div id="upstreams">
{"".join(_upstream(one, report, asked) for one in report.upstreams)}{totals_section(asked)}</div>
<section aria-labelledby="recent">
<h2 id="recent">Recent events</h2>
<ul id="events">
{"".join(map(_event, events)) or "<li>none since the start</li>"}</ul>
</section>
<section aria-labelledby="paths">
<h2 id="paths">Paths</h2>
<details><summary>Mounts when the app started</summary>
<ul id="mounts">
{"".join(map(mount_item, report.mounts)) or "<li>none</li>"}</ul>
</details>
</section>
</main>
<div class="notices"><p id="lost" role="status"></p><p id="notice" role="status"></p></div>
<script>{_SCRIPT}</script>
</body>
</html>
"""


def _whose(report: StatusReport) -> str:
    if report.processes is None:
        return "With several processes, each has its own state only."
    return "Below is the state of this process, where it does not say “all processes”."


def _title(report: StatusReport) -> str:
    """Say in the browser's tab whether anything is out or troubled."""
    out, troubled = _out(report), sum(map(_is_troubled, report.upstreams))
    found = [f"{out} not available"] * bool(out) + [f"{troubled} troubled"] * bool(troubled)
    return f"({', '.join(found)}) Upstreams" if found else "Upstreams"


def _icon(report: StatusReport) -> str:
    """Give a dot, red if anything is out or troubled; without one browsers ask for a file."""
    bad = _out(report) or any(map(_is_troubled, report.upstreams))
    colour = "a40e26" if bad else "116329"
    return (
        "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 2 2'%3E"
        f"%3Ccircle cx='1' cy='1' r='1' fill='%23{colour}'/%3E%3C/svg%3E"
    )


def _out(report: StatusReport) -> int:
    return sum(len(one.destinations) - _available(one) for one in report.upstreams)


def _overridden(report: StatusReport) -> str:
    kinds = {"stand_in": "a stand-in", "function": "a function, whose state is not known"}
    names = ", ".join(f"{escape(name)} by {kinds[one]}" for name, one in report.overridden.items())
    return f"Replaced in app.dependency_overrides: {names}." if names else ""


def _available(one: UpstreamStatus) -> int:
    return sum(destination.available for destination in one.destinations)


def _counted(one: UpstreamStatus) -> str:
    available, known = _available(one), len(one.destinations)
    text = f"{available} of {known} available"
    return text if available == known else f'<strong class="bad">{text}</strong>'


def _shares(one: UpstreamStatus) -> tuple[tuple[str, int, int], ...]:
    """Give what is wrong in the recent numbers: its name, how many, and of how many."""
    return (
        ("of attempts failed", one.recent_failed_attempts, one.recent_attempts),
        ("refused", one.recent_refused, one.recent_requests),
    )


def _troubles(part: int, whole: int) -> bool:
    return part > 0 and part * 100 >= TROUBLED_PERCENT * whole


def _is_troubled(one: UpstreamStatus) -> bool:
    return any(_troubles(part, whole) for _, part, whole in _shares(one))


def _lately(one: UpstreamStatus) -> Iterator[str]:
    for what, part, whole in _shares(one):
        text = f"{_percent(part, whole)} {what} lately"
        if part:
            yield f'<strong class="bad">{text}</strong>' if _troubles(part, whole) else text


def _percent(part: int, whole: int) -> str:
    """Give a share; an attempt may end, and fail, in a later period than it began in."""
    percent = min(100, part * 100 // max(1, whole))
    return f"{percent} %" if percent else "under 1 %"


def _link(one: UpstreamStatus) -> str:
    name = escape(one.upstream)
    numbers = ", ".join([_counted(one), *_lately(one)])
    return f'<li><a href="#name-{name}" data-key="{name}">{name}</a> {numbers}</li>\n'


def _upstream(one: UpstreamStatus, report: StatusReport, asked: Asked) -> str:
    name = escape(one.upstream)
    heads = "".join(
        f'<th scope="col" data-column="{number}"{_ESTIMATED * ("p99" in text)}>{text}</th>'
        for number, text in enumerate(_COLUMNS[:-1])
    )
    if report.actions:
        heads += f'<th scope="col">{_COLUMNS[-1]}</th>'
    acting = ' class="acting"' if report.actions else ""
    rows = "".join(_rows(one, report))
    link = "" if report.processes is None else link_to_totals(one.upstream, asked)
    return f"""<section class="upstream" data-name="{name}" aria-labelledby="name-{name}">
<header><h2 id="name-{name}">{name}</h2><p>{_summary(one)}</p>{_sources(one)}{link}</header>
<table{acting}><thead><tr>{heads}</tr></thead>
<tbody>
{rows}</tbody></table>
</section>
"""


def _summary(one: UpstreamStatus) -> str:
    panic = '<strong class="bad">panic: none is available, so all are used</strong>'
    parts = [
        *([panic] if one.panic else []),
        _counted(one),
        *_lately(one),
        f"policy {escape(one.policy)}",
        f"{_limited(one.in_flight, one.limits.get('limits.max_in_flight'))} in flight",
        f"{_limited(one.queued, one.limits.get('limits.queue'))} queued",
        *([f"{one.waiting} waiting for a destination that responds"] if one.waiting else []),
        f"{one.tunnels} WebSockets",
        *_addresses(one),
        f"{one.retries_left} retries left",
        *(f"{count} refused by {escape(limit)}" for limit, count in one.refused.items()),
    ]
    return ", ".join(parts)


def _sources(one: UpstreamStatus) -> str:
    """Give a line for each source of destinations."""
    return "".join(f"<p>{_source(source)}</p>" for source in one.sources)


def _source(one: SourceStatus) -> str:
    text = f"{escape(one.source)}: {one.found} found"
    if one.since is not None:
        text += f" since {moment(one.since)}"
    if one.last_success is not None:
        text += f", last success {moment(one.last_success)}"
    if one.last_failure is not None:
        text += f", last failure {moment(one.last_failure)}"
    if one.reason:
        text += f', <strong class="bad">fails: {escape(one.reason)}</strong>'
    return text


def _addresses(one: UpstreamStatus) -> Iterator[str]:
    limit = one.limits.get("limits.dynamic_destinations")
    if limit is not None:
        yield f"{_limited(one.dynamic_destinations, limit)} dynamic destinations"


def _limited(number: int, limit: int | None) -> str:
    return str(number) if limit is None else f"{number} of at most {limit}"


def _rows(one: UpstreamStatus, report: StatusReport) -> Iterator[str]:
    for destination in one.destinations:
        yield _row(destination, destination.state, actions=report.actions)
    for destination in one.removed:
        yield _row(destination, "removed", actions=report.actions)


def _row(one: DestinationStatus, state: str, *, actions: bool) -> str:
    url, reason = escape(one.url), escape(one.reason)
    tunnels = f" ({one.tunnels} WebSockets)" if one.tunnels else ""
    tier = f", tier {one.tier}" if one.tier else ""
    cells = [
        f'<th scope="row">{url}</th>',
        cell(_STATES.index(state), _state(one, state, reason)),
        cell(one.since.timestamp(), moment(one.since)),
        f"<td>{one.in_flight}{tunnels}</td>",
        cell(one.attempts, with_parts(one.attempts, one.error_statuses)),
        _failed_cell(one),
        duration_cell(one.first_byte_ms),
        duration_cell(one.duration_ms),
        f"<td>{one.ejections}</td>",
        f"<td>{milliseconds(one.latency_ms)}</td>",
        f"<td>{one.weight:.12g}{tier}</td>",
    ]
    if actions:
        cells.append(f"<td>{'' if state == 'removed' else _actions(one, url)}</td>")
    return (
        f'<tr data-url="{url}" data-state="{state}" data-reason="{reason}">{"".join(cells)}</tr>\n'
    )


def _state(one: DestinationStatus, state: str, reason: str) -> str:
    left = "" if one.ejected_for is None else f", {one.ejected_for:.0f} s left"
    because = f" ({reason})" if reason else ""
    by = ""
    if one.drained_at is not None and state == "draining":
        by = f" by {escape(one.drained_by or '')} {moment(one.drained_at)}"
    return f'<strong class="{state}">{state}</strong>{because}{by}{left}'


def _actions(one: DestinationStatus, url: str) -> str:
    names = ["undrain" if one.draining else "drain"]
    names += ["readmit"] * (one.state == "ejected") + ["probe"]
    # Drain and undrain have one key: the focus stays where the one takes the other's place.
    buttons = "".join(
        f'<button type="button" data-action="{name}" data-key="{name.removeprefix("un")}"'
        f' aria-label="{name} {url}">{name}</button>'
        for name in names
    )
    return (
        f'<span class="actions">{buttons}<input type="number" min="0" step="any"'
        f' value="{one.weight:.12g}" data-key="new weight" title="new weight"'
        f' aria-label="new weight of {url}">'
        f'<button type="button" data-action="weight" data-key="weight"'
        f' aria-label="set weight of {url}">set</button></span>'
    )


def _failed_cell(one: DestinationStatus) -> str:
    number, part = sum(one.failed_attempts.values()), one.recent_failed_attempts
    text = with_parts(number, one.failed_attempts)
    if part:
        text += f", {_percent(part, one.recent_attempts)} lately"
    return cell(number, text)


def _event(one: EventReport) -> str:
    subject = escape(one.upstream)
    if one.destination is not None:
        subject += f": {escape(one.destination)}"
    return f"<li>{moment(one.at)} {subject} {escape(one.text)}</li>\n"
