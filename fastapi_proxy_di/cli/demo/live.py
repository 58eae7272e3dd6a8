"""The demo as a person sees it: how to reach the gateway, and a table that lives.

It reads the balancer's status, the fleet and the tally, and changes none of them. On a
terminal rich redraws the table; anywhere else plain lines tell what changed.
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
    """One destination as shown; ``commands`` is what to type next."""

    cells: tuple[str, ...]
    up: bool
    commands: tuple[str, ...]


def how_to_reach(base: str) -> list[tuple[str, str]]:
    """What to type in another terminal: a label and a command each."""
    return [
        ("JSON", f"curl {base}/"),
        ("POST", f"curl -H 'content-type: application/json' -d '{{\"tea\": 2}}' {base}/orders"),
        ("Event stream", f"curl -N {base}/events"),
        # Interactive: each line that is typed comes back.
        ("WebSocket", f"{python_command()} -m websockets ws{base.removeprefix('http')}/echo"),
        ("Upload", f"head -c 50000000 /dev/zero | curl -X POST -T - {base}/upload"),
        ("API page", f"{base}/docs"),
    ]


def rows(balancer: Balancer, fleet: Fleet, tally: Tally) -> list[Row]:
    """The table's rows, in the order of the fleet."""
    shown = []
    for upstream, status in zip(fleet.upstreams, balancer.status().destinations, strict=True):
        # One started by hand is not ours to know, but its answers say who it is.
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
    """The load's own numbers in one line."""
    served = " · ".join(f"{kind.value} {tally.served[kind]}" for kind in Kind)
    return (
        f"{served} · failed {tally.broken(under_way=False)} · "
        f"broken on their way {tally.broken(under_way=True)}"
    )


def draw(rows: list[Row], totals: str, events: deque[str]) -> RenderableType:
    """The live part of the screen."""
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
    """Show what happens until cancelled.

    Args:
        console: Where to; a terminal is redrawn, anything else gets lines.
        base: The gateway's URL.
        current: Gives the table's rows.
        load: What sends the traffic.
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
    tell_events(events.append)
    with Live(console=console, auto_refresh=False) as live:
        while True:
            live.update(draw(current(), totals(tally), events), refresh=True)
            await asyncio.sleep(_REDRAW_SECONDS)


async def _print_lines(
    console: Console, current: Callable[[], list[Row]], tally: Tally
) -> NoReturn:
    def tell(line: str) -> None:
        console.print(line, soft_wrap=True, markup=False, highlight=False)

    tell_events(tell)
    for row in current():
        tell(f"{row.cells[0]}: {'  or  '.join(row.commands)}")
    while True:
        await asyncio.sleep(_LINE_SECONDS)
        for line in plain_table(_COLUMNS, [row.cells for row in current()]):
            tell(line)
        tell(totals(tally))


class _Events(logging.Handler):
    """Hands the text of each of the library's records to a function."""

    def __init__(self, tell: Callable[[str], object]) -> None:
        super().__init__()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self._tell(record.getMessage())


def tell_events(tell: Callable[[str], object]) -> None:
    """Send the library's log records to ``tell`` instead of the standard error."""
    logger = logging.getLogger("fastapi_proxy_di")
    logger.setLevel(logging.INFO)
    logger.handlers = [_Events(tell)]
    logger.propagate = False
    # The table counts requests; a line for each would drown what changes.
    logging.getLogger("fastapi_proxy_di.access").setLevel(logging.WARNING)
