"""Counts of the load, and the breaks that an outage excuses."""

from __future__ import annotations

from signal import SIGKILL, SIGTERM

import pytest

from fastapi_proxy_di.cli.demo.tally import Break, Kind, Outage, Tally


def broken(
    kind: Kind, destination: str | None, *, began: float, at: float, under_way: bool = True
) -> Break:
    """A break whose reason does not matter."""
    return Break(kind, destination, began, at, under_way, "reset")


@pytest.mark.parametrize("kind", [Kind.EVENTS, Kind.WEBSOCKET])
def test_outage_excuses_a_stream_on_its_destination(kind: Kind) -> None:
    """A stream that had begun on the ended upstream cannot be retried."""
    outage = Outage("a", SIGTERM, 10)

    assert outage.excuses(broken(kind, "a", began=9, at=10.1))


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(broken(Kind.EVENTS, "b", began=9, at=10.1), id="elsewhere"),
        pytest.param(broken(Kind.EVENTS, "a", began=9, at=9.9), id="before"),
        pytest.param(broken(Kind.EVENTS, "a", began=9, at=18.1), id="long after"),
        pytest.param(broken(Kind.EVENTS, "a", began=9, at=10, under_way=False), id="never began"),
        pytest.param(broken(Kind.GET, "a", began=9, at=10.1, under_way=False), id="repeatable"),
        pytest.param(broken(Kind.GET, "b", began=9, at=10.1), id="on another destination"),
        pytest.param(broken(Kind.GET, "a", began=10.1, at=10.2), id="after the outage"),
    ],
)
def test_outage_excuses_nothing_else(stream: Break) -> None:
    """Another destination, another time, or a request that could have been retried."""
    assert not Outage("a", SIGKILL, 10).excuses(stream)


def test_kill_excuses_an_upload_that_was_under_way() -> None:
    """A partly sent body is lost with its upstream."""
    upload = broken(Kind.UPLOAD, None, began=9.9, at=10.1)

    assert Outage("a", SIGKILL, 10).excuses(upload)


@pytest.mark.parametrize("kind", [Kind.GET, Kind.POST])
def test_kill_excuses_a_response_whose_head_was_sent(kind: Kind) -> None:
    """Head and body are two writes; SIGKILL may come between them, SIGTERM does not."""
    response = broken(kind, "a", began=9.9, at=10.1)

    assert Outage("a", SIGKILL, 10).excuses(response)
    assert not Outage("a", SIGTERM, 10).excuses(response)


def test_sigterm_excuses_no_upload() -> None:
    """On SIGTERM the upstream finishes open requests."""
    upload = broken(Kind.UPLOAD, None, began=9.9, at=10.1)

    assert not Outage("a", SIGTERM, 10).excuses(upload)


def test_tally_gives_the_breaks_without_excuse() -> None:
    """A break that no outage excuses is a failure."""
    tally = Tally()
    stream = broken(Kind.EVENTS, "a", began=9, at=10)
    request = broken(Kind.GET, None, began=9, at=10, under_way=False)
    tally.breaks += [stream, request]

    assert tally.failures([Outage("b", SIGTERM, 10), Outage("a", SIGTERM, 10)]) == [request]
    assert tally.failures([]) == [stream, request]
    assert (tally.broken(under_way=True), tally.broken(under_way=False)) == (1, 1)


def test_tally_counts_served_requests() -> None:
    """By kind and by upstream."""
    tally = Tally()
    tally.add(Kind.GET, 0.5)
    tally.served_by("a", 7)
    tally.served_by("a", 8)

    assert tally.served == {Kind.GET: 1}
    assert tally.by_destination == {"a": 2}
    assert tally.pids == {"a": 8}


def test_tally_gives_quantiles_by_nearest_rank() -> None:
    """The 99th of a hundred, the first of one, ``None`` of none."""
    tally = Tally()
    for number in range(100, 0, -1):
        tally.add(Kind.GET, number / 1000)
    tally.add(Kind.POST, 0.25)

    assert tally.milliseconds(Kind.GET, 0.5) == 50
    assert tally.milliseconds(Kind.GET, 0.99) == 99
    assert tally.milliseconds(Kind.POST, 0.5) == 250
    assert tally.milliseconds(Kind.UPLOAD, 0.5) is None
