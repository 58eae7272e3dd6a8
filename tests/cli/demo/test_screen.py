"""The lines of the demo's screen, for terminals of several sizes."""

from __future__ import annotations

import shlex

import pytest

from fastapi_proxy_di.cli.demo.screen import Line, Row, command_lines, screen, table, totals
from fastapi_proxy_di.cli.demo.tally import Break, Kind, Tally

BASE = "http://127.0.0.1:50123"
UP = Row(
    ("a", "http://127.0.0.1:50001", "4194304", "up", "12", "12345678", "12345678", "99.9 ms"),
    True,
    ("kill 4194304", "kill -9 4194304"),
)
DOWN = Row(
    ("b", "http://127.0.0.1:50002", "-", "ejected 30 s", "0", "9", "3", "-"),
    False,
    ("'/opt/a long path/python' -m fastapi_proxy_di demo-upstream --name b --port 50002",),
)
LOG = ["12:00:00 an old event", "12:00:01 " + "long " * 40 + "end", "12:00:02 the newest event"]


@pytest.mark.parametrize("rows", [[UP], [UP, DOWN, UP], [UP] * 26])
@pytest.mark.parametrize("size", [(80, 24), (60, 20), (200, 50), (40, 12)])
def test_screen_fits_and_shows_whole_addresses(rows: list[Row], size: tuple[int, int]) -> None:
    """No line is longer, no more lines are given, and nothing of an address is left out."""
    width, height = size

    lines = screen(BASE, rows, Tally(), LOG, width=width, height=height)

    texts = [line.text for line in lines]
    assert len(texts) <= height
    if width >= 60:
        assert max(map(len, texts)) <= width
    assert texts[0].startswith(f"Gateway: {BASE} ")
    assert texts[1].startswith(f"Status page: {BASE}/upstreams/ ")
    assert "http://127.0.0.1:50001" in "\n".join(texts)
    assert texts[-1] == LOG[-1]
    assert "…" not in "\n".join(texts)


def test_screen_of_80_by_24_shows_everything_but_the_pids() -> None:
    """The default number of upstreams, one of them down, fits with its log."""
    lines = screen(BASE, [UP, DOWN, UP], Tally(), LOG, width=80, height=24)

    assert [line.text for line in lines] == [
        "Gateway: http://127.0.0.1:50123 (Ctrl-C ends everything)",
        "Status page: http://127.0.0.1:50123/upstreams/ (more above)",
        "",
        "   destination             state         in flight  requests  failures  latency",
        "a  http://127.0.0.1:50001  up            12         12345678  12345678  99.9 ms",
        "b  http://127.0.0.1:50002  ejected 30 s  0          9         3         -",
        "a  http://127.0.0.1:50001  up            12         12345678  12345678  99.9 ms",
        "GET 0 · POST 0 · upload 0 · event stream 0 · WebSocket 0",
        "failed 0 · broken while under way 0",
        "",
        "In another terminal: stop one, kill one, start it again",
        "a: kill 4194304  or  kill -9 4194304",
        "b: '/opt/a long path/python' -m fastapi_proxy_di demo-upstream --name b --port \\",
        "   50002",
        "a: kill 4194304  or  kill -9 4194304",
        "",
        "12:00:00 an old event",
        "12:00:01 long long long long long long long long long long long long long long",
        "         long long long long long long long long long long long long long long",
        "         long long long long long long long long long long long long end",
        "12:00:02 the newest event",
    ]


def test_rows_of_available_destinations_are_green() -> None:
    """Others are red; the state says it without colours, too."""
    lines = table([UP, DOWN], 200)

    assert [line.style for line in lines] == ["bold", "green", "red"]
    assert "4194304" in lines[1].text


def test_more_upstreams_than_lines_are_said_to_be_there() -> None:
    """The table is cut before the log."""
    lines = screen(BASE, [UP] * 26, Tally(), LOG, width=80, height=24)

    assert Line("... more in a taller window", "dim") in lines


def test_log_entry_longer_than_its_place_shows_its_beginning() -> None:
    """The newest entry is never left out."""
    lines = screen(BASE, [UP] * 26, Tally(), LOG[:2], width=80, height=24)

    assert [line.text[:13] for line in lines[-2:]] == ["12:00:01 long", "         long"]


def test_long_command_can_be_pasted() -> None:
    """A shell reads its lines as the words of the whole command."""
    lines = command_lines(DOWN, 40)

    assert len(lines) > 2
    assert max(map(len, lines)) <= 40
    pasted = "\n".join(line[len("b: ") :] for line in lines)
    assert shlex.split(pasted.replace("\\\n", "")) == shlex.split(DOWN.commands[0])


def test_totals_count_failed_and_broken_requests_apart() -> None:
    """Every kind is counted."""
    tally = Tally()
    tally.add(Kind.GET, 0.1)
    tally.breaks.append(Break(Kind.EVENTS, "a", 0, 1, True, "reset"))

    assert totals(tally) == (
        ["GET 1", "POST 0", "upload 0", "event stream 0", "WebSocket 0"],
        ["failed 0", "broken while under way 1"],
    )
