"""The result of a drill: measures per phase, as a table and as JSON, and the goals."""

from __future__ import annotations

import json
from bisect import bisect
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any, Final
from urllib.parse import urlsplit

from tests.drill.load import Record

_OUT: Final = frozenset({"DestinationDown", "DestinationEjected"})
_SHARE_WINDOW_SECONDS: Final = 1.0
# Until a policy has seen the first responses of a destination that turned slow.
SETTLE_SECONDS: Final = 1.0
# Below this a p99 says more of the machine than of a destination that takes 300 ms.
P99_FLOOR_MS: Final = 50.0
MOVED: Final = "moved"
# Until the gateway has looked the name up again.
MOVE_SECONDS: Final = 1.0
# A request that was on its way when the fault began may bear its mark.
_IN_FLIGHT_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class Phase:
    """One phase as it was run: its times, and the ports of its victims."""

    name: str
    victims: tuple[int, ...]
    began: float
    healed: float
    ended: float


@dataclass(frozen=True, slots=True)
class Failure:
    """One request or tunnel that failed for its client; times count from the fault.

    Attributes:
        kind: ``get``, ``post``, ``sse`` or ``ws``.
        outcome: What the client saw.
        after: Seconds from the fault to the request.
        seconds: How long it took.
    """

    kind: str
    outcome: str
    after: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Measured:
    """The measures of one phase.

    Attributes:
        name: Of the phase.
        requests: By kind.
        errors: By kind and outcome, e.g. ``{"post 502": 1}``.
        failures: Each of them.
        p50_ms: Median of the GETs while the fault lasted.
        p99_ms: Their 99th percentile, from `SETTLE_SECONDS` on.
        others_p99_ms: The same of those that other destinations than the victims served. What
            the machine does to all alike shows here too.
        out_seconds: From the fault until each process that took victims out had done so with the
            first of them; if none did, until the victims got next to no traffic.
        back_seconds: From its end until the victims had half their fair share of the GETs.
        share: The victims' share of POSTs while the fault lasted.
        victim_requests: How many GETs and POSTs the victims got while the fault lasted.
        whole_p99_ms: The p99 of the GETs from the fault on, without `SETTLE_SECONDS`.
    """

    name: str
    requests: dict[str, int]
    errors: dict[str, int]
    failures: list[Failure]
    p50_ms: float
    p99_ms: float
    others_p99_ms: float
    out_seconds: float | None
    back_seconds: float | None
    share: float
    victim_requests: int
    whole_p99_ms: float


@dataclass(frozen=True, slots=True)
class Goal:
    """One goal, and the measured value."""

    text: str
    met: bool
    seen: str


@dataclass(frozen=True, slots=True)
class Report:
    """A whole drill.

    Attributes:
        interval: ``health.interval``.
        first_byte: ``timeouts.first_byte``.
        destinations: How many.
        phases: In order.
    """

    interval: float
    first_byte: float
    destinations: int
    phases: list[Measured]

    def json(self) -> str:
        """Give everything as JSON."""
        goals = [asdict(goal) for goal in self.goals()]
        return json.dumps({**asdict(self), "goals": goals}, indent=2)

    def table(self) -> str:
        """Give the phases and the goals as Markdown."""
        lines = [
            "| phase | requests | errors | p50 ms | p99 ms | out s | back s | share |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        for one in self.phases:
            errors = ", ".join(f"{count} {what}" for what, count in sorted(one.errors.items()))
            cells = (
                one.name,
                str(sum(one.requests.values())),
                errors or "none",
                f"{one.p50_ms:.1f}",
                f"{one.p99_ms:.1f}",
                _seconds(one.out_seconds),
                _seconds(one.back_seconds),
                f"{one.share:.0%}",
            )
            lines.append(f"| {' | '.join(cells)} |")
        lines += ["", "| goal | seen | met |", "| --- | --- | --- |"]
        lines += [
            f"| {goal.text} | {goal.seen} | {'yes' if goal.met else 'NO'} |"
            for goal in self.goals()
        ]
        return "\n".join(lines)

    def goals(self) -> list[Goal]:
        """Give the goals of a drill."""
        phases = {one.name: one for one in self.phases}
        healthy, killed, everyone = phases["healthy"], phases["killed"], phases["all killed"]
        stopped, lying, slow = phases["stopped"], phases["fast 500s"], phases["slow"]
        closing, moved = phases["closing"], phases[MOVED]
        fair = 1 / self.destinations
        # The machine may be busier than it was in the healthy phase.
        usual_ms = max(healthy.p99_ms, slow.others_p99_ms)
        return [
            _none("healthy: no errors", healthy.failures),
            _none("killed: no failed GET", _of(killed, "get")),
            _none(
                "killed: no failed POST that had not been sent",
                [one for one in _of(killed, "post") if one.after > _IN_FLIGHT_SECONDS],
            ),
            _none(
                "killed: new streams and WebSockets open",
                [
                    one
                    for one in _of(killed, "sse", "ws")
                    if one.outcome != "broken off" or one.after > _IN_FLIGHT_SECONDS
                ],
            ),
            self._stopped(stopped),
            Goal(
                "fast 500s: no more than the fair share of POSTs",
                lying.share <= fair,
                f"{lying.share:.0%} of {fair:.0%}",
            ),
            _none("fast 500s: no failed GET", _of(lying, "get")),
            Goal(
                f"slow: p99 at most twice the healthy one (or {P99_FLOOR_MS:g} ms)",
                slow.p99_ms <= max(2 * usual_ms, P99_FLOOR_MS),
                f"{slow.p99_ms:.1f} ms of {usual_ms:.1f} ms",
            ),
            _none("slow: no errors", slow.failures),
            _none("closing: no failed GET", _of(closing, "get")),
            _none(
                "moved: no failed GET after the first second",
                [one for one in _of(moved, "get") if one.after > MOVE_SECONDS],
            ),
            *(
                Goal(
                    f"{one.name}: back within 2 health intervals",
                    one.back_seconds is not None and one.back_seconds <= 2 * self.interval,
                    f"{_seconds(one.back_seconds)} s of {2 * self.interval:g} s",
                )
                for one in (killed, everyone, stopped)
            ),
        ]

    def _stopped(self, stopped: Measured) -> Goal:
        """Judge that only exchanges under way failed, before the ejection and within a timeout."""
        out = stopped.out_seconds or 0.0
        # A stream is broken off by its activity timeout, twice the time to the first byte.
        wrong = [
            one
            for one in stopped.failures
            if one.after > out
            or (one.kind in ("get", "post") and one.seconds > self.first_byte + 0.5)
        ]
        return _none("stopped: errors only for what was under way, within the timeouts", wrong)


def measure(
    phase: Phase,
    records: Iterable[Record],
    events: Iterable[Mapping[str, Any]],
    destinations: int,
) -> Measured:
    """Measure one phase.

    Args:
        phase: As it was run.
        records: Of the whole drill.
        events: Of the gateways, in order: ``at``, ``event``, ``destination``, ``pid``.
        destinations: How many there are.
    """
    # A failure belongs to the phase it came in, though its stream began in the one before.
    mine = [
        one
        for one in records
        if phase.began <= one.started + (one.seconds if one.failed else 0) < phase.ended
    ]
    failures = [
        Failure(one.kind, one.outcome, one.started - phase.began, one.seconds)
        for one in mine
        if one.failed
    ]
    during = [one for one in mine if phase.began <= one.started < phase.healed]
    gets = sorted(one.seconds * 1000 for one in during if one.kind == "get")
    settled = sorted(
        (one.seconds * 1000, one.served_by)
        for one in during
        if one.kind == "get" and one.started >= phase.began + SETTLE_SECONDS
    )
    others = [took for took, port in settled if port not in phase.victims]
    posts = [one for one in during if one.kind == "post" and one.served_by is not None]
    out: dict[int | None, float] = {}
    for event in events:
        if (
            event["event"] in _OUT
            and phase.began <= event["at"] < phase.healed
            and urlsplit(event["destination"]).port in phase.victims
        ):
            out.setdefault(event.get("pid"), event["at"] - phase.began)
    return Measured(
        name=phase.name,
        requests=dict(Counter(one.kind for one in mine)),
        errors=dict(Counter(f"{one.kind} {one.outcome}" for one in mine if one.failed)),
        failures=failures,
        p50_ms=_percentile(gets, 0.5),
        p99_ms=_percentile([took for took, _ in settled], 0.99),
        others_p99_ms=_percentile(others, 0.99),
        out_seconds=max(out.values()) if out else _left(phase, during, destinations),
        back_seconds=_back(phase, mine, destinations),
        share=sum(one.served_by in phase.victims for one in posts) / max(1, len(posts)),
        victim_requests=sum(
            one.served_by in phase.victims for one in during if one.kind in ("get", "post")
        ),
        whole_p99_ms=_percentile(gets, 0.99),
    )


def _left(phase: Phase, records: Sequence[Record], destinations: int) -> float | None:
    """Find when the victims got less than a tenth of their fair share for the rest of the fault."""
    responses = sorted(
        (one.started, one.served_by in phase.victims)
        for one in records
        if one.kind in ("get", "post") and one.served_by is not None
    )
    times = [at for at, _ in responses]
    served = [0, *accumulate(victim for _, victim in responses)]
    next_to_none = len(phase.victims) / destinations / 10
    for first in range(bisect(times, phase.healed - _SHARE_WINDOW_SECONDS)):
        ends = (bisect(times, times[first] + _SHARE_WINDOW_SECONDS), len(times))
        if all(served[end] - served[first] < next_to_none * (end - first) for end in ends):
            return times[first] - phase.began
    return None


def _back(phase: Phase, records: Sequence[Record], destinations: int) -> float | None:
    """Find when each victim got half its fair share again, over a whole window."""
    gets = sorted(
        (one.started, one.served_by)
        for one in records
        if one.kind == "get" and one.started >= phase.healed and not one.failed
    )
    latest: float | None = None
    for victim in phase.victims:
        for started, served_by in gets:
            window = [port for at, port in gets if started <= at < started + _SHARE_WINDOW_SECONDS]
            if served_by == victim and window.count(victim) * destinations * 2 >= len(window):
                latest = max(latest or 0.0, started - phase.healed)
                break
        else:
            return None
    return latest


def _percentile(values: Sequence[float], share: float) -> float:
    return values[min(len(values) - 1, int(len(values) * share))] if values else 0.0


def _of(measured: Measured, *kinds: str) -> list[Failure]:
    return [one for one in measured.failures if one.kind in kinds]


def _none(text: str, failures: Sequence[Failure]) -> Goal:
    seen = ", ".join(
        f"{one.kind} {one.outcome} {one.after:+.2f} s for {one.seconds:.2f} s"
        for one in failures[:5]
    )
    return Goal(text, not failures, f"{len(failures)}: {seen}" if failures else "none")


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
