"""Shows the running demo: commands to try, the destinations, and a log.

Reads the balancer's status, the fleet and the tally. On a terminal rich redraws the screen;
elsewhere, and on a terminal that cannot move its cursor, plain lines are printed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, NoReturn

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from fastapi_proxy_di.cli.demo.fleet import Fleet, python_command
from fastapi_proxy_di.cli.demo.load import Load
from fastapi_proxy_di.cli.demo.screen import Row, command_lines, screen, table, totals
from fastapi_proxy_di.cli.demo.tally import Tally
from fastapi_proxy_di.upstream.balancer import Balancer

_REDRAW_SECONDS: Final = 0.25
_LINE_SECONDS: Final = 2.0
_LOG_KEPT: Final = 100
_UNLIMITED: Final = 1000  # columns
_NO_LOGIN: Final = "Status page and metrics have no login here: only this machine reaches the demo."


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
        ("Status page", f"{base}/upstreams/"),
        ("Metrics", f"{base}/metrics"),
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
                    _latency(status.latency_ms),
                ),
                status.available,
                (upstream.start_command,) if pid is None else (f"kill {pid}", f"kill -9 {pid}"),
            )
        )
    return shown


def _latency(milliseconds: float | None) -> str:
    if milliseconds is None:
        return "-"
    return f"{milliseconds:.1f} ms" if milliseconds < 100 else f"{milliseconds:.0f} ms"


def say_what_starts(console: Console, base: str, fleet: Fleet) -> None:
    """Print at once what the demo does before it can show anything else."""
    console.print(f"Starting {len(fleet.upstreams)} upstreams behind {base} ...", soft_wrap=True)


async def show(
    console: Console, base: str, current: Callable[[], list[Row]], load: Load
) -> NoReturn:
    """Show the demo until cancelled.

    Args:
        console: The output, without markup; a terminal is redrawn, anything else gets lines.
        base: URL of the gateway.
        current: Gives the rows of the table.
        load: The running load.
    """
    redrawn = console.is_terminal and not console.is_dumb_terminal
    if not redrawn:
        console.print(f"Gateway: {base}  (Ctrl-C ends everything)")
    console.print()
    for label, command in how_to_reach(base):
        console.print(Text.assemble((f"{label:<14}", "bold"), command), soft_wrap=True)
    console.print(_NO_LOGIN, soft_wrap=True)
    console.print()
    if redrawn:
        await _redraw(console, base, current, load.tally)
    await _print_lines(console, current, load.tally)


async def _redraw(
    console: Console, base: str, current: Callable[[], list[Row]], tally: Tally
) -> NoReturn:
    log = deque[str](maxlen=_LOG_KEPT)
    show_log(log.append)
    # The first line shows where the log is, before anything happens.
    log.append(_stamped(time.time(), "all have started; clients send requests"))
    with Live(console=console, auto_refresh=False) as live:
        while True:
            width, height = console.size
            lines = screen(base, current(), tally, log, width=width, height=height)
            texts = (Text(*line, no_wrap=True, overflow="crop") for line in lines)
            live.update(Group(*texts), refresh=True)
            await asyncio.sleep(_REDRAW_SECONDS)


async def _print_lines(
    console: Console, current: Callable[[], list[Row]], tally: Tally
) -> NoReturn:
    def write(lines: Iterable[str]) -> None:
        console.print("\n".join(lines), soft_wrap=True)

    log = deque[str](maxlen=_LOG_KEPT)
    show_log(log.append)
    width = console.width if console.is_terminal else _UNLIMITED
    write(line for row in current() for line in command_lines(row, _UNLIMITED))
    while True:
        await asyncio.sleep(_LINE_SECONDS)
        happened = list(log)
        log.clear()
        destinations = (line.text for line in table(current(), width))
        write([*happened, *destinations, *map(" · ".join, totals(tally))])


class DemoConsole(Console):
    """A console that raises BrokenPipeError if its output is closed, as `main` expects."""

    def on_broken_pipe(self) -> NoReturn:
        """Raise the BrokenPipeError again; rich would exit with status 1."""
        self.quiet = True
        raise  # noqa: PLE0704


class _Log(logging.Handler):
    """Passes each log record to a function, as a line of text with its time of day."""

    def __init__(self, write: Callable[[str], object]) -> None:
        super().__init__()
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        self._write(_stamped(record.created, record.getMessage()))


def _stamped(at: float, text: str) -> str:
    return f"{time.strftime('%H:%M:%S', time.localtime(at))} {text}"


def show_log(write: Callable[[str], object]) -> None:
    """Send the library's log records to ``write`` instead of the standard error."""
    logger = logging.getLogger("fastapi_proxy_di")
    logger.setLevel(logging.INFO)
    logger.handlers = [_Log(write)]
    logger.propagate = False
    # The table counts requests; a line for each would hide the rest.
    logging.getLogger("fastapi_proxy_di.access").setLevel(logging.WARNING)
