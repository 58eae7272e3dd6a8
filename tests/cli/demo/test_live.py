"""The screen of the running demo."""

from __future__ import annotations

import asyncio
import io
import logging
from collections import deque

import pytest
from rich.console import Console

from fastapi_proxy_di import Balancer, UpstreamSettings
from fastapi_proxy_di.cli.demo import live as demo_live
from fastapi_proxy_di.cli.demo.fleet import Fleet
from fastapi_proxy_di.cli.demo.live import Row
from fastapi_proxy_di.cli.demo.load import Load
from fastapi_proxy_di.cli.demo.tally import Break, Kind, Tally
from tests.support.servers import dead_port

UP = Row(("a", "http://127.0.0.1:1", "7", "up", "2", "30", "0", "0.4 ms"), True, ("kill 7",))
DOWN = Row(("b", "http://127.0.0.1:2", "-", "down", "0", "9", "3", "-"), False, ("start b",))


async def shown(console: Console, expected: str) -> str:
    """Give everything printed until ``expected`` is printed."""
    out = console.file
    assert isinstance(out, io.StringIO)
    async with asyncio.timeout(10):
        showing = asyncio.create_task(
            demo_live.show(console, "http://127.0.0.1:8000", lambda: [UP, DOWN], Load(8000))
        )
        while expected not in out.getvalue():
            await asyncio.sleep(0)
            logging.getLogger("fastapi_proxy_di.health").warning("b is down")
        showing.cancel()
        await asyncio.wait({showing})
    return out.getvalue()


async def test_terminal_gets_a_redrawn_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Destinations, commands to type and the last events are redrawn."""
    monkeypatch.setattr(demo_live, "_REDRAW_SECONDS", 0)
    console = Console(file=io.StringIO(), force_terminal=True, width=120)

    screen = await shown(console, "b is down")

    assert "curl http://127.0.0.1:8000/" in screen
    assert "destination" in screen
    assert "┃" in screen
    assert "kill 7" in screen
    assert "start b" in screen


async def test_pipe_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Output to a pipe has no frames or colours; each event is a line."""
    monkeypatch.setattr(demo_live, "_LINE_SECONDS", 0)
    console = Console(file=io.StringIO(), width=80)

    text = await shown(console, "GET 0 ·")

    lines = text.splitlines()
    assert "\x1b" not in text
    assert "a: kill 7" in lines
    assert "b is down" in lines
    assert "b  http://127.0.0.1:2  -    down   0          9         3         -" in lines


class Demo(UpstreamSettings, name="demo"):
    """An upstream whose probes fail."""


async def test_rows_show_the_state_of_each_destination() -> None:
    """Up with its last known process, ejected, and down with the command that starts it."""
    fleet = Fleet(3)
    for upstream in fleet.upstreams:
        upstream.port = dead_port()
    tally = Tally()
    tally.served_by("a", 4711)
    settings = Demo(destinations=[upstream.url for upstream in fleet.upstreams])
    async with Balancer.from_settings(settings) as balancer:
        ejected, down = balancer.destinations[1:]
        pool = balancer._running.pool
        pool.eject(ejected, asyncio.get_running_loop().time() + 30)
        pool.set_health(down, False)
        up_row, ejected_row, down_row = demo_live.rows(balancer, fleet, tally)

    assert up_row.cells[2:4] == ("4711", "up")
    assert up_row.commands == ("kill 4711", "kill -9 4711")
    assert ejected_row.cells[2:4] == ("-", "ejected 30 s")
    assert down_row.cells[2:4] == ("-", "down")
    assert down_row.commands == (fleet.upstreams[2].start_command,)
    assert (up_row.up, ejected_row.up, down_row.up) == (True, False, False)


def test_how_to_reach_names_every_kind() -> None:
    """There is a command for each kind of request."""
    commands = dict(demo_live.how_to_reach("http://127.0.0.1:8123"))

    assert commands.keys() == {"JSON", "POST", "Event stream", "WebSocket", "Upload", "API page"}
    assert all("127.0.0.1:8123" in command for command in commands.values())
    assert commands["WebSocket"].endswith(" -m websockets ws://127.0.0.1:8123/echo")


def test_totals_count_failed_and_broken_requests_apart() -> None:
    """One line has every kind."""
    tally = Tally()
    tally.add(Kind.GET, 0.1)
    tally.breaks.append(Break(Kind.EVENTS, "a", 0, 1, True, "reset"))

    assert demo_live.totals(tally) == (
        "GET 1 · POST 0 · upload 0 · event stream 0 · WebSocket 0"
        " · failed 0 · broken while under way 1"
    )


def test_draw_shows_destinations_that_are_down_in_red() -> None:
    """Rows of available destinations are green."""
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system="standard")
    console.print(demo_live.draw([UP, DOWN], "totals", deque(["event"])))
    out = console.file
    assert isinstance(out, io.StringIO)
    green, red = "\x1b[32m", "\x1b[31m"

    lines = out.getvalue().splitlines()
    assert any(green in line and ":1" in line for line in lines)
    assert any(red in line and ":2" in line for line in lines)
