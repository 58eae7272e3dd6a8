"""What the server renders: all states and numbers, escaped, allowed by hashes, without script."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any, Final, get_args

import pytest

from fastapi_proxy_di import UpstreamStatus
from fastapi_proxy_di.integration.status_page import page as module
from fastapi_proxy_di.integration.status_page.page import POLICY, render
from fastapi_proxy_di.integration.status_page.reports import (
    EventReport,
    MountReport,
    OverrideKind,
    RouteReport,
    StatusReport,
)
from fastapi_proxy_di.pools.destination import DestinationState
from fastapi_proxy_di.upstream.status import DestinationStatus, Percentiles

NOON: Final = datetime(2026, 3, 4, 12, 0, 5, tzinfo=UTC)
HOSTILE: Final = "<img src=x onerror=alert(1)> \"' </script> &amp;"


def destination(**changes: Any) -> DestinationStatus:
    """Make the status of a destination that has nothing to tell."""
    defaults = {
        "url": "http://10.0.0.1:9000",
        "weight": 1.0,
        "tier": 0,
        "state": "available",
        "reason": "",
        "since": NOON,
        "available": True,
        "healthy": True,
        "ejected_for": None,
        "draining": False,
        "in_flight": 0,
        "tunnels": 0,
        "requests": 0,
        "failures": 0,
        "attempts": 0,
        "failed_attempts": {},
        "recent_attempts": 0,
        "recent_failed_attempts": 0,
        "error_statuses": {},
        "ejections": 0,
        "first_byte_ms": None,
        "duration_ms": None,
        "latency_ms": None,
    }
    return DestinationStatus.model_validate({**defaults, **changes})


def upstream(*destinations: DestinationStatus, **changes: Any) -> UpstreamStatus:
    """Make the status of an upstream."""
    defaults = {
        "upstream": "billing",
        "policy": "round_robin",
        "panic": False,
        "in_flight": 0,
        "queued": 0,
        "limits": {},
        "refused": {},
        "recent_requests": 0,
        "recent_refused": 0,
        "recent_attempts": 0,
        "recent_failed_attempts": 0,
        "retries_left": 10,
        "tunnels": 0,
        "tunnel_ends": {},
        "destinations": destinations,
        "removed": (),
        "dynamic_destinations": 0,
    }
    return UpstreamStatus.model_validate({**defaults, **changes})


def rendered(
    *upstreams: UpstreamStatus,
    actions: bool = True,
    events: Iterable[EventReport] = (),
    mounts: tuple[MountReport, ...] = (),
    overridden: dict[str, OverrideKind] | None = None,
) -> str:
    """Give the page."""
    report = StatusReport(
        process=7,
        started=NOON - timedelta(hours=3),
        at=NOON,
        actions=actions,
        position="7-3",
        upstreams=upstreams,
        overridden=overridden or {},
        mounts=mounts,
    )
    return render(report, events)


class Elements(HTMLParser):
    """Collects the tags of a page with their attributes, and the text outside of scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._skipped = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._skipped += tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._skipped -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self._skipped:
            self.text += data


def test_page_says_since_when_the_process_counts() -> None:
    """Counts are since the start."""
    assert ">2026-03-04 09:00:05 UTC</time>" in rendered()


def test_row_says_everything() -> None:
    """State, reason and time, and each number."""
    text = Elements(
        rendered(
            upstream(
                destination(
                    state="ejected",
                    reason="response_head",
                    ejected_for=12.4,
                    available=False,
                    weight=2.5,
                    tier=1,
                    in_flight=3,
                    tunnels=2,
                    attempts=40,
                    failed_attempts={"connect_refused": 2, "reset": 1},
                    recent_attempts=8,
                    recent_failed_attempts=2,
                    error_statuses={"500": 7, "404": 2},
                    ejections=4,
                    first_byte_ms=Percentiles(p50=1.25, p99=30.4),
                    duration_ms=Percentiles(p50=10, p99=1000),
                    latency_ms=0.04,
                )
            )
        )
    ).text

    assert "ejected (response_head), 12 s left" in text
    assert "2026-03-04 12:00:05 UTC" in text
    assert "3 (2 WebSockets)" in text
    assert "40 (500: 7, 404: 2)" in text
    assert "3 (connect_refused: 2, reset: 1), 25 % lately" in text
    assert "1.2 / 30" in text
    assert "10 / 1000" in text
    assert "0.0" in text
    assert "2.5, tier 1" in text


def test_upstream_says_everything() -> None:
    """How many are available, panic, load, limits, and removed ones that are busy."""
    page = rendered(
        upstream(
            destination(),
            destination(url="http://10.0.0.2", state="unhealthy", available=False),
            panic=True,
            in_flight=4,
            queued=5,
            waiting=8,
            tunnels=6,
            refused={"max_in_flight": 7},
            removed=(destination(url="http://10.0.0.3", in_flight=1),),
        )
    )
    text = Elements(page).text

    assert "panic: none is available, so all are used, 1 of 2 available, policy round_robin" in text
    numbers = "4 in flight, 5 queued, 8 waiting for a destination that responds, 6 WebSockets, 10"
    assert f"{numbers} retries left, 7 refused by max_in_flight" in text
    assert "http://10.0.0.3removed" in text
    assert "(1 not available) Upstreams" in text
    assert "%23a40e26" in page


def test_all_well() -> None:
    """Then the title has no number, and no event is one line."""
    page = rendered(upstream(destination()))
    text = Elements(page).text

    assert "%23116329" in page
    assert "not available" not in text
    assert "waiting" not in text
    assert "troubled" not in text
    assert "lately" not in text
    assert "1 of 1 available" in text
    assert "none since the start" in text


@pytest.mark.parametrize(
    ("numbers", "text", "troubled"),
    [
        ({"recent_attempts": 400, "recent_failed_attempts": 100}, "25 % of attempts failed", True),
        ({"recent_requests": 100, "recent_refused": 42}, "42 % refused", True),
        ({"recent_requests": 100, "recent_refused": 5}, "5 % refused", True),
        ({"recent_requests": 1000, "recent_refused": 49}, "4 % refused", False),
        ({"recent_requests": 101, "recent_refused": 1}, "under 1 % refused", False),
        ({"recent_attempts": 1, "recent_failed_attempts": 3}, "100 % of attempts failed", True),
        ({"recent_attempts": 0, "recent_failed_attempts": 1}, "100 % of attempts failed", True),
    ],
)
def test_recent_failures_and_refusals(numbers: dict[str, int], text: str, troubled: bool) -> None:
    """In the overview and above the table; from 5 % on in the title and the icon as well."""
    page = rendered(upstream(destination(), **numbers), upstream(destination(), upstream="shop"))
    shown = Elements(page).text

    assert f"billing 1 of 1 available, {text} lately" in shown
    assert f"1 of 1 available, {text} lately, policy" in shown
    assert ("(1 troubled) Upstreams" in shown) is troubled
    assert ("%23a40e26" in page) is troubled
    assert (f'<strong class="bad">{text} lately</strong>' in page) is troubled


def test_limits_are_shown_where_they_are_set() -> None:
    """Beside what they limit."""
    limits = {"limits.max_in_flight": 2, "limits.queue": 9, "limits.dynamic_destinations": 1000}
    shown = upstream(in_flight=2, queued=1, limits=limits, dynamic_destinations=3)
    text = Elements(rendered(shown)).text

    assert "0 of 0 available" in text
    assert "2 of at most 2 in flight, 1 of at most 9 queued" in text
    assert "0 WebSockets, 3 of at most 1000 dynamic destinations" in text


def test_durations_say_that_they_are_estimated() -> None:
    """On the heads of their two columns."""
    tags = Elements(rendered(upstream(destination()))).tags
    titles = [found["title"] for tag, found in tags if tag == "th" and "title" in found]

    assert (
        titles
        == ["estimated within the buckets of the metrics: 2471 means between 1000 and 2500 ms"] * 2
    )


def test_title_has_all_that_is_wrong() -> None:
    """Destinations that are not available, and upstreams that are troubled."""
    bad = upstream(destination(available=False), recent_requests=2, recent_refused=1)

    assert "(1 not available, 1 troubled) Upstreams" in Elements(rendered(bad)).text


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, ["drain", "probe", "weight"]),
        ({"state": "draining", "draining": True}, ["undrain", "probe", "weight"]),
        ({"state": "ejected"}, ["drain", "readmit", "probe", "weight"]),
    ],
)
def test_actions_fit_the_state(changes: dict[str, Any], names: list[str]) -> None:
    """Each has a label that names the destination."""
    tags = Elements(rendered(upstream(destination(**changes)))).tags
    buttons = [found for tag, found in tags if tag == "button"]

    assert [button["data-action"] for button in buttons] == names
    assert all("http://10.0.0.1:9000" in str(button["aria-label"]) for button in buttons)


def test_no_actions() -> None:
    """Neither without them nor for a removed destination."""
    removed = upstream(removed=(destination(),))

    assert "<button" not in rendered(upstream(destination()), actions=False).split("<script>")[0]
    assert "<button" not in rendered(removed).split("<script>")[0]


def test_texts_from_outside_are_escaped() -> None:
    """Wherever they stand, also in attributes: they are shown as they are, and add no element."""
    hostile = upstream(
        destination(url=HOSTILE, reason=HOSTILE, failed_attempts={HOSTILE: 1}),
        upstream=HOSTILE,
        policy=HOSTILE,
        refused={HOSTILE: 1},
    )
    event = EventReport(
        at=NOON, kind=HOSTILE, upstream=HOSTILE, destination=HOSTILE, text=HOSTILE, reason=HOSTILE
    )
    mount = MountReport(
        upstream=HOSTILE,
        path=HOSTILE,
        host=HOSTILE,
        proxied=("HTTP",),
        local=(RouteReport(requests=("GET",), path=HOSTILE),),
        shadowed=(),
    )
    changes = {"upstream": "-", "path": "-", "host": "-"}
    plain_mount = mount.model_copy(update=changes)
    plain = upstream(destination(reason="-", failed_attempts={"-": 1}), refused={"-": 1})
    plain_event = event.model_copy(update={"upstream": "-", "destination": "-", "text": "-"})
    page = Elements(
        rendered(hostile, events=[event], mounts=(mount,), overridden={HOSTILE: "function"})
    )

    assert "img" not in dict(page.tags)
    assert [tag for tag, _ in page.tags] == [
        tag
        for tag, _ in Elements(rendered(plain, events=[plain_event], mounts=(plain_mount,))).tags
    ]
    assert {name for _, found in page.tags for name in found if name.startswith("on")} == set()
    assert page.text.count(HOSTILE) >= 10


def test_event_of_an_upstream() -> None:
    """Has no destination."""
    event = EventReport(
        at=NOON, kind="LimitHit", upstream="billing", destination=None, text="is full", reason=""
    )

    assert "2026-03-04 12:00:05 UTC billing is full" in Elements(rendered(events=[event])).text


def test_mounts() -> None:
    """With the routes before and behind them; one for a single host names it."""
    report = MountReport(
        upstream="billing",
        path="/billing",
        host="api.example",
        proxied=("GET", "WebSocket"),
        local=(RouteReport(requests=("GET",), path="/billing/me"),),
        shadowed=(RouteReport(requests=(), path="/billing/static"),),
    )
    nothing = MountReport(upstream="shop", path="/", host=None, proxied=(), local=(), shadowed=())
    text = Elements(rendered(mounts=(report, nothing))).text

    assert "api.example/billing to billing: GET, WebSocket" in text
    assert "GET /billing/me: served by the app itself, before the mount" in text
    assert "/billing/static: never reached, since the mount stands before it" in text
    assert "/ to shop: nothing, since the app itself takes everything" in text
    assert "Replaced" not in text


def test_overridden_upstreams() -> None:
    """Are named: what the page shows of them is not what the settings say."""
    text = Elements(rendered(overridden={"billing": "stand_in", "shop": "function"})).text

    assert "billing by a stand-in, shop by a function, whose state is not known." in text


def test_policy_allows_style_and_script_only() -> None:
    """By the hashes of what the page has; it has no handler and no style elsewhere."""
    page = rendered(upstream(destination()))
    for kind in ("script", "style"):
        (text,) = re.findall(f"<{kind}>(.*?)</{kind}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in POLICY
    names = {name for _, found in Elements(page).tags for name in found}

    assert POLICY.startswith("default-src 'none'; ")
    assert "unsafe" not in POLICY
    assert "style" not in names
    assert [name for name in names if name.startswith("on")] == []
    links = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert [link for link in links if not link.startswith(("#", "data:image/svg+xml,"))] == []


def test_state_filter_has_every_state() -> None:
    """The filter offers the states of destinations, and `removed`."""
    assert sorted(module._STATES) == sorted([*get_args(DestinationState), "removed"])


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"found": 3, "since": NOON, "last_success": NOON}, "3 found since {0}, last success {0}"),
        (
            {"last_failure": NOON, "reason": HOSTILE},
            f"0 found, last failure {{0}}, fails: {HOSTILE}",
        ),
    ],
)
def test_page_shows_sources(fields: dict[str, Any], expected: str) -> None:
    """What serves since when, the last success, the last failure and its reason."""
    defaults = {"found": 0, "since": None, "last_success": None, "last_failure": None, "reason": ""}
    source = {"source": "dns+http://a", **defaults, **fields}
    text = " ".join(Elements(rendered(upstream(destination(), sources=[source]))).text.split())

    assert f"dns+http://a: {expected.format('2026-03-04 12:00:05 UTC')}" in text
