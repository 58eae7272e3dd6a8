"""``demo --once``: the summary, and the order of outages."""

from __future__ import annotations

import signal
from signal import SIGKILL, SIGTERM

import pytest

from fastapi_proxy_di.cli.demo import once as demo_once
from fastapi_proxy_di.cli.demo.fleet import Fleet
from fastapi_proxy_di.cli.demo.load import Load
from fastapi_proxy_di.cli.demo.tally import Break, Kind, Outage, Tally

pytestmark = pytest.mark.e2e


@pytest.fixture
def tally() -> Tally:
    """One of each kind served."""
    tally = Tally()
    for kind in Kind:
        tally.add(kind, 0.002)
    tally.served_by("a", 1)
    return tally


def test_summary_gives_0_when_nothing_failed(
    tally: Tally, capsys: pytest.CaptureFixture[str]
) -> None:
    """Streams that ended with their upstream are counted apart and are no failures."""
    tally.breaks.append(Break(Kind.EVENTS, "a", 8, 10, True, "reset"))

    status = demo_once.summarise(tally, [Outage("a", SIGKILL, 10)])

    out = capsys.readouterr().out
    assert status == 0
    assert "event stream  2         0       1                    2.0 ms  2.0 ms" in out
    assert "Served by a 1." in out
    assert "0 failed of 6 requests." in out


def test_summary_names_each_failure(tally: Tally, capsys: pytest.CaptureFixture[str]) -> None:
    """A break without an excuse gives 1."""
    tally.breaks.append(Break(Kind.GET, None, 8, 10, False, "status 502"))

    status = demo_once.summarise(tally, [Outage("a", SIGTERM, 10)])

    out = capsys.readouterr().out
    assert status == 1
    assert "FAILED GET on ?: status 502" in out
    assert "1 failed of 6 requests." in out


def test_summary_without_requests_gives_1(capsys: pytest.CaptureFixture[str]) -> None:
    """A kind that was never served is named."""
    status = demo_once.summarise(Tally(), [])

    out = capsys.readouterr().out
    assert status == 1
    assert "Served by no upstream." in out
    assert "Nothing was served of: GET, POST, upload, event stream, WebSocket." in out


class RecordedLoad(Load):
    """A load that records the awaited processes, and may wait for them without end."""

    def __init__(self, *, hears: bool) -> None:
        super().__init__(9)
        self.hears = hears
        self.pids: list[int] = []

    async def served_by(self, pid: int) -> None:
        self.pids.append(pid)
        if not self.hears:
            await super().served_by(pid)


async def test_disturb_ends_two_upstreams_and_restarts_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The first by SIGTERM, the second by SIGKILL; each has a new process afterwards."""
    fleet = Fleet(2)
    load = RecordedLoad(hears=True)
    try:
        await fleet.start()
        before = [upstream.pid for upstream in fleet.upstreams]
        outages = await demo_once.disturb(
            load, fleet, lambda url: 5 if url == fleet.upstreams[1].url else 0, pause=0
        )
        after = [upstream.pid for upstream in fleet.upstreams]
    finally:
        await fleet.stop()

    assert [(outage.destination, outage.signal) for outage in outages] == [
        ("a", signal.SIGTERM),
        ("b", signal.SIGKILL),
    ]
    assert load.pids == after
    out = capsys.readouterr().out
    assert "upstream a is gone, 0 attempts failed on it" in out
    assert "upstream b is gone, 5 attempts failed on it" in out
    assert set(before).isdisjoint(after)


async def test_disturb_names_an_upstream_without_traffic_after_its_restart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a request within the timeout it raises."""
    monkeypatch.setattr(demo_once, "_RETURN_SECONDS", 0.01)
    fleet = Fleet(2)
    try:
        await fleet.start()
        with pytest.raises(TimeoutError, match="upstream a was started again, but got no request"):
            await demo_once.disturb(RecordedLoad(hears=False), fleet, len, pause=0)
    finally:
        await fleet.stop()
