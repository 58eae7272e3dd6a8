"""The measures, goals, report and exit status of the outage drill."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.drill import __main__ as command
from tests.drill import slow
from tests.drill.drill import FAULTS, LONG, SHORT, Fault, Pace
from tests.drill.fleet import Gateways, one_gateway, twelve_processes
from tests.drill.load import Record
from tests.drill.report import MOVED, Phase, Report, measure


def _records(*served: int | None, kind: str = "get", every: float = 0.01) -> list[Record]:
    return [
        Record(kind, 100 + at * every, 0.001, "502" if port is None else "ok", port)
        for at, port in enumerate(served)
    ]


def test_measure_tells_when_a_destination_left_and_came_back() -> None:
    """It left at the gateway's event, and is back with half its fair share."""
    phase = Phase("killed", (1,), began=100.0, healed=101.0, ended=104.0)
    records = _records(*[2] * 150, *[1, 2] * 100)
    events = [
        {"at": 99.0, "event": "DestinationDown", "destination": "http://127.0.0.1:1"},
        {"at": 100.2, "event": "PanicStarted", "destination": None},
        {"at": 100.3, "event": "DestinationDown", "destination": "http://127.0.0.1:2"},
        {"at": 100.5, "event": "DestinationEjected", "destination": "http://127.0.0.1:1"},
    ]
    measured = measure(phase, records, events, destinations=2)

    assert measured.out_seconds == pytest.approx(0.5)
    assert measured.back_seconds == pytest.approx(0.5)
    assert measured.requests == {"get": 350}


def test_measure_waits_for_all_processes_of_the_gateways() -> None:
    """The last one that takes the victim out counts, each at its first event."""
    phase = Phase("killed", (1,), began=100.0, healed=101.0, ended=104.0)
    out = {"event": "DestinationDown", "destination": "http://127.0.0.1:1"}
    events = [{"at": at, "pid": pid, **out} for at, pid in ((100.1, 7), (100.3, 8), (100.6, 7))]
    measured = measure(phase, _records(*[2] * 300), events, destinations=2)

    assert measured.out_seconds == pytest.approx(0.3)


def test_measure_tells_that_a_destination_did_not_come_back() -> None:
    """A single response is no return."""
    phase = Phase("killed", (1,), began=100.0, healed=100.5, ended=110.0)
    measured = measure(phase, _records(*[2] * 100, 1, *[2] * 100), [], destinations=2)

    assert measured.back_seconds is None
    assert measured.out_seconds is None


def test_measure_tells_when_traffic_has_left_without_an_event() -> None:
    """A policy that avoids a slow destination ejects none."""
    phase = Phase("slow", (1,), began=100.0, healed=103.0, ended=104.0)
    left = measure(phase, _records(*[1, 2] * 25, *[2] * 200, 1, *[2] * 49), [], destinations=2)
    stays = measure(phase, _records(*[1, 2] * 150), [], destinations=2)
    pauses = measure(phase, _records(*[1, 2] * 50, *[2] * 120, *[1, 2] * 40), [], destinations=2)
    nobody = Phase("healthy", (), began=100.0, healed=103.0, ended=104.0)

    assert left.out_seconds == pytest.approx(0.4, abs=0.02)
    assert (stays.out_seconds, pauses.out_seconds) == (None, None)
    assert measure(nobody, _records(*[2] * 300), [], destinations=2).out_seconds is None


def test_measure_tells_a_slow_destination_from_a_slow_machine() -> None:
    """A slow victim raises only one p99, a slow machine raises both."""
    phase = Phase("slow", (1,), began=100.0, healed=103.0, ended=104.0)
    quick = [Record("get", 101.5 + at / 1000, 0.003, "ok", 2) for at in range(200)]
    slow = [Record("get", 102.0, 0.3, "ok", 1) for _ in range(5)]
    stalled = [Record("get", 102.0, 0.15, "ok", 2) for _ in range(5)]
    victim = measure(phase, quick + slow, [], destinations=2)
    machine = measure(phase, quick + stalled, [], destinations=2)

    assert (victim.p99_ms, victim.others_p99_ms) == pytest.approx((300, 3))
    assert victim.whole_p99_ms == pytest.approx(300)
    assert (machine.p99_ms, machine.others_p99_ms) == pytest.approx((150, 150))


def test_measure_counts_a_failure_in_the_phase_it_came_in() -> None:
    """A stream that began before the fault and broke during it counts for the fault."""
    phase = Phase("killed", (1,), began=100.0, healed=101.0, ended=102.0)
    records = [
        Record("sse", 99.5, 1.0, "broken off", 1),
        Record("sse", 99.5, 1.0, "ok", 2),
        Record("post", 101.9, 0.5, "504", None),
        Record("post", 100.0, 0.1, "ok", 1),
        Record("post", 100.1, 0.1, "502", None),
    ]
    measured = measure(phase, records, [], destinations=2)

    assert measured.errors == {"sse broken off": 1, "post 502": 1}
    assert [one.after for one in measured.failures] == pytest.approx([-0.5, 0.1])
    assert (measured.share, measured.victim_requests) == (1, 1)


def test_report_names_the_goals_that_were_missed() -> None:
    """The report has the measured value as well."""
    bad = [
        measure(
            Phase(name, (1,), began=100.0, healed=101.0, ended=105.0),
            _records(None, *[1] * 20) + _records(*[1] * 20, kind="post"),
            [],
            destinations=5,
        )
        for name in (*(fault.name for fault in FAULTS), MOVED)
    ]
    report = Report(interval=1.0, first_byte=1.0, destinations=5, phases=bad)
    missed = {goal.text: goal.seen for goal in report.goals() if not goal.met}

    assert missed["killed: no failed GET"] == "1: get 502 +0.00 s for 0.00 s"
    assert missed["killed: back within 2 health intervals"] == "- s of 2 s"
    assert missed["fast 500s: no more than the fair share of POSTs"] == "100% of 20%"
    assert "stopped: errors only for what was under way, within the timeouts" not in missed
    assert "| NO |" in report.table()


@pytest.mark.parametrize(
    ("form", "more", "pace"), [("short", (), SHORT), ("long", ("--twelve",), LONG)]
)
def test_command_prints_the_report_and_ends_by_the_goals(
    form: str,
    more: tuple[str, ...],
    pace: Pace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The table is printed, the file has everything, and the status is 1 for a missed goal."""
    paces: list[Pace] = []

    async def pretend(pace: Pace, say: Callable[[str], None], gateways: Gateways) -> Report:
        paces.append(pace)
        assert gateways is (twelve_processes if pace is LONG else one_gateway)
        say("healthy")
        return Report(
            interval=1.0,
            first_byte=1.0,
            destinations=5,
            phases=[
                measure(Phase(name, (), 100.0, 101.0, 105.0), _records(1), [], 5)
                for name in (*(fault.name for fault in FAULTS), MOVED)
            ],
        )

    written = tmp_path / "report.json"
    monkeypatch.setattr(command, "run", pretend)
    monkeypatch.setattr("sys.argv", ["drill", form, str(written), *more])
    code = command.main()
    printed = capsys.readouterr().out

    assert (code, paces) == (1, [pace])
    assert printed.startswith("- healthy\n| phase |")
    assert json.loads(written.read_text())["goals"][0]["met"]


@pytest.mark.parametrize(("slow_ms", "code", "last"), [(8.9, 0, "yes |"), (9.1, 1, "NO |")])
def test_command_repeats_the_slow_phase(
    slow_ms: float,
    code: int,
    last: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One row a run; the bound is three times the usual p99."""
    begun: list[list[str]] = []

    async def pretend(pace: Pace, say: Callable[[str], None], faults: Sequence[Fault]) -> Report:
        assert pace is SHORT
        say("healthy")
        begun.append([fault.name for fault in faults])
        served = [
            Record("get", at + 1.5, took / 1000, "ok", 2)
            for at, took in ((100, 3), (200, 2), (200, slow_ms))
        ]
        phases = [Phase("healthy", (), 100.0, 102.0, 105.0), Phase("slow", (2,), 200, 202, 205)]
        return Report(
            interval=1.0,
            first_byte=1.0,
            destinations=5,
            phases=[measure(phase, served, [], 5) for phase in phases],
        )

    monkeypatch.setattr(slow, "run", pretend)
    monkeypatch.setattr("sys.argv", ["drill", "slow", "--times", "2"])

    assert command.main() == code
    table = capsys.readouterr().out.splitlines()
    assert begun == [["healthy", "slow"]] * 2
    assert [row.endswith(last) for row in table] == [False, False, True, True, False, False]
    assert table[-1] == f"{0 if code else 2} of 2 runs within the bound"
