"""Shows the running demo: commands to try, and a table of the destinations.

Reads the balancer's status, the fleet and the tally. On a terminal rich redraws the table;
elsewhere plain lines are printed.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NoReturn

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fastapi_proxy_di.cli.demo.fleet import Fleet, python_command
from fastapi_proxy_di.cli.demo.load import Load
from fastapi_proxy_di.cli.demo.tally import Kind, Tally
from fastapi_proxy_di.cli.tables import plain_table
from fastapi_proxy_di.upstream.balancer import Balancer

_REDRAW_SECONDS: Final = 0.25
_LINE_SECONDS: Final = 2.0
_EVENTS_SHOWN: Final = 6
_COLUMNS: Final = (
    "",
    "destination",
    "pid",
    "state",
    "in flight",
    "requests",
    "failures",
    "latency",
)


@dataclass(frozen=True, slots=True)
class Row:
    """One destination in the table, with the commands that stop or start it."""

    cells: tuple[str, ...]
    up: bool
    commands: tuple[str, ...]


def how_to_reach(base: str) -> list[tuple[str, str]]:
    """Give pairs of a label and a command to type in another terminal."""
    return [
        ("JSON", f"curl {base}/"),
        ("POST", f"curl -H 'content-type: application/json' -d '{{\"tea\": 2}}' {base}/orders"),
        ("Event stream", f"curl -N {base}/events"),
        # Interactive: each typed line is echoed.
        ("WebSocket", f"{python_command()} -m websockets ws{base.removeprefix('http')}/echo"),
        ("Upload", f"head -c 50000000 /dev/zero | curl -X POST -T - {base}/upload"),
        ("API page", f"{base}/docs"),
    ]


def rows(balancer: Balancer, fleet: Fleet, tally: Tally) -> list[Row]:
    """Give the rows of the table, in the order of the fleet."""
    shown = []
    for upstream, status in zip(fleet.upstreams, balancer.status().destinations, strict=True):
        # The pid of an upstream started by hand is known from its responses only.
        pid = tally.pids.get(upstream.name, upstream.pid) if status.available else upstream.pid
        if status.available:
            state = "up"
        elif status.healthy and status.ejected_for is not None:
            state = f"ejected {status.ejected_for:.0f} s"
        else:
            state = "down"
        latency = "-" if status.latency_ms is None else f"{status.latency_ms:.1f} ms"
        shown.append(
            Row(
                (
                    upstream.name,
                    status.url,
                    "-" if pid is None else str(pid),
                    state,
                    str(status.in_flight),
                    str(status.requests),
                    str(status.failures),
                    latency,
                ),
                status.available,
                (upstream.start_command,) if pid is None else (f"kill {pid}", f"kill -9 {pid}"),
            )
        )
    return shown


def totals(tally: Tally) -> str:
    """Give the counts of the load in one line."""
    served = " · ".join(f"{kind.value} {tally.served[kind]}" for kind in Kind)
    return (
        f"{served} · failed {tally.broken(under_way=False)} · "
        f"broken while under way {tally.broken(under_way=True)}"
    )


def draw(rows: list[Row], totals: str, events: deque[str]) -> RenderableType:
    """Render the part of the screen that is redrawn."""
    table = Table(*_COLUMNS)
    commands = Table.grid(padding=(0, 2))
    for row in rows:
        table.add_row(*row.cells, style="green" if row.up else "red")
        commands.add_row(f"{row.cells[0]}:", *map(Text, row.commands))
    return Group(
        table,
        Text(totals),
        Text("\nIn another terminal: stop one, kill one, start it again", style="bold"),
        commands,
        Text("\n".join(("", *events)), style="dim"),
    )


async def show(
    console: Console, base: str, current: Callable[[], list[Row]], load: Load
) -> NoReturn:
    """Show the demo until cancelled.

    Args:
        console: The output; a terminal is redrawn, anything else gets lines.
        base: URL of the gateway.
        current: Gives the rows of the table.
        load: The running load.
    """
    console.print(f"Gateway: {base}  (Ctrl-C ends everything)\n", style="bold")
    for label, command in how_to_reach(base):
        console.print(Text.assemble((f"{label:<14}", "bold"), command), soft_wrap=True)
    console.print()
    if console.is_terminal:
        await _redraw(console, current, load.tally)
    await _print_lines(console, current, load.tally)


async def _redraw(console: Console, current: Callable[[], list[Row]], tally: Tally) -> NoReturn:
    events: deque[str] = deque(maxlen=_EVENTS_SHOWN)
    show_events(events.append)
    with Live(console=console, auto_refresh=False) as live:
        while True:
            live.update(draw(current(), totals(tally), events), refresh=True)
            await asyncio.sleep(_REDRAW_SECONDS)


async def _print_lines(
    console: Console, current: Callable[[], list[Row]], tally: Tally
) -> NoReturn:
    def write(line: str) -> None:
        console.print(line, soft_wrap=True, markup=False, highlight=False)

    show_events(write)
    for row in current():
        write(f"{row.cells[0]}: {'  or  '.join(row.commands)}")
    while True:
        await asyncio.sleep(_LINE_SECONDS)
        for line in plain_table(_COLUMNS, [row.cells for row in current()]):
            write(line)
        write(totals(tally))


class _Events(logging.Handler):
    """Passes the text of each log record to a function."""

    def __init__(self, write: Callable[[str], object]) -> None:
        super().__init__()
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        self._write(record.getMessage())


def show_events(write: Callable[[str], object]) -> None:
    """Send the library's log records to ``write`` instead of the standard error."""
    logger = logging.getLogger("fastapi_proxy_di")
    logger.setLevel(logging.INFO)
    logger.handlers = [_Events(write)]
    logger.propagate = False
    # The table counts requests; a line for each would hide the events.
    logging.getLogger("fastapi_proxy_di.access").setLevel(logging.WARNING)
