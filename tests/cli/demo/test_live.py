"""The screen of the running demo."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import re

import pytest
from rich.console import Console

from fastapi_proxy_di import Balancer, UpstreamSettings
from fastapi_proxy_di.cli.demo import live as demo_live
from fastapi_proxy_di.cli.demo.fleet import Fleet
from fastapi_proxy_di.cli.demo.load import Load
from fastapi_proxy_di.cli.demo.screen import Row
from fastapi_proxy_di.cli.demo.tally import Tally
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


async def test_terminal_gets_a_redrawn_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands are printed once; destinations and the log are redrawn."""
    monkeypatch.setattr(demo_live, "_REDRAW_SECONDS", 0)
    console = Console(file=io.StringIO(), force_terminal=True, width=120, height=40)

    text = await shown(console, "b is down")

    assert text.count("curl -N http://127.0.0.1:8000/events") == 1
    assert text.count("Gateway: http://127.0.0.1:8000 ") > 1
    assert "all have started" in text
    assert "kill 7" in text
    assert "start b" in text


async def test_pipe_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Output to a pipe has no frames or colours, and all columns; each event is a line."""
    monkeypatch.setattr(demo_live, "_LINE_SECONDS", 0)
    console = Console(file=io.StringIO(), width=80)

    text = await shown(console, "b is down")

    lines = text.splitlines()
    assert "\x1b" not in text
    assert "Gateway: http://127.0.0.1:8000  (Ctrl-C ends everything)" in lines
    assert "a: kill 7" in lines
    assert any(line.startswith("Status page and metrics have no login here") for line in lines)
    assert any(re.fullmatch(r"\d\d:\d\d:\d\d b is down", line) for line in lines)
    assert "b  http://127.0.0.1:2  -        down          0          9         3         -" in lines


async def test_terminal_without_a_cursor_gets_lines_that_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a cursor rich redraws nothing, so the demo prints lines."""
    monkeypatch.setattr(demo_live, "_LINE_SECONDS", 0)
    environment = {"TERM": "dumb", "COLUMNS": "60"}
    console = Console(file=io.StringIO(), force_terminal=True, _environ=environment)

    text = await shown(console, "b is down")

    assert "\x1b" not in text
    row = next(line for line in text.splitlines() if line.startswith("b  http"))
    assert row.split() == ["b", "http://127.0.0.1:2", "down", "0", "9", "3", "-"]


def test_demo_says_at_once_what_starts() -> None:
    """Upstreams take seconds to start on a busy machine."""
    console = Console(file=io.StringIO(), width=30)

    demo_live.say_what_starts(console, "http://127.0.0.1:50123", Fleet(3))

    out = console.file
    assert isinstance(out, io.StringIO)
    assert out.getvalue() == "Starting 3 upstreams behind http://127.0.0.1:50123 ...\n"


def test_closed_output_is_the_commands_to_handle() -> None:
    """``main`` gives the status for the exception; rich would exit by itself."""
    reading, writing = os.pipe()
    os.close(reading)
    with pytest.raises(BrokenPipeError), open(writing, "w") as output:  # noqa: PTH123
        demo_live.DemoConsole(file=output).print("text")


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
    assert (up_row.cells[-1], down_row.cells[-1]) == ("-", "-")
    assert (up_row.up, ejected_row.up, down_row.up) == (True, False, False)


def test_how_to_reach_names_every_kind() -> None:
    """There is a command for each kind of request."""
    commands = dict(demo_live.how_to_reach("http://127.0.0.1:8123"))

    assert list(commands) == [
        *("JSON", "POST", "Event stream", "WebSocket", "Upload"),
        *("API page", "Status page", "Metrics"),
    ]
    assert all("127.0.0.1:8123" in command for command in commands.values())
    assert commands["WebSocket"].endswith(" -m websockets ws://127.0.0.1:8123/echo")


@pytest.mark.parametrize(
    ("milliseconds", "text"), [(None, "-"), (0.44, "0.4 ms"), (99.94, "99.9 ms"), (1234, "1234 ms")]
)
def test_latency_fits_its_column(milliseconds: float | None, text: str) -> None:
    """From 100 ms on there are no tenths."""
    assert demo_live._latency(milliseconds) == text
