"""Draws the screen of the running demo as lines that fit into a terminal.

Pure: the caller gives the state and the size. Addresses and commands are always whole, so that
they can be copied; columns are left out where the terminal is too narrow for all.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Final, NamedTuple

from fastapi_proxy_di.cli.demo.tally import Kind, Tally
from fastapi_proxy_di.cli.tables import plain_table

# Each is as wide as its widest usual content, so that no column moves while the demo runs.
COLUMNS: Final = (
    "",
    "destination",
    "pid".ljust(7),
    "state".ljust(len("ejected 30 s")),
    "in flight",
    "requests",
    "failures",
    "latency".ljust(len("100.0 ms")),
)
_LEFT_OUT: Final = (2, 7, 4, 6, 5)
"""Columns that a narrow terminal lacks, first the pid, which the commands name too."""

_LOG_LINES: Final = 2
"""Lines that are kept for the log."""


@dataclass(frozen=True, slots=True)
class Row:
    """One destination in the table, with the commands that stop or start it."""

    cells: tuple[str, ...]
    up: bool
    commands: tuple[str, ...]


class Line(NamedTuple):
    """One line of the screen, and its style as rich names it."""

    text: str
    style: str = ""


def screen(
    base: str, rows: Sequence[Row], tally: Tally, log: Sequence[str], *, width: int, height: int
) -> list[Line]:
    """Give the lines of the screen, at most ``height`` of them.

    Args:
        base: URL of the gateway.
        rows: The destinations.
        tally: The counts of the load.
        log: Lines of the log, the newest last; the newest that fit are shown.
        width: Columns of the terminal.
        height: Lines of the terminal.
    """
    head = [
        Line(f"Gateway: {base} (Ctrl-C ends everything)", "bold"),
        Line(f"Status page: {base}/upstreams/ (more above)"),
        Line(""),
    ]
    counts = [Line(line) for texts in totals(tally) for line in _filled(texts, width)]
    room = height - len(head) - len(counts) - _LOG_LINES
    destinations = _cut(table(rows, width), room)
    room -= len(destinations)
    commands = [Line(""), Line("In another terminal: stop one, kill one, start it again", "bold")]
    for row in rows:
        commands += [Line(text) for text in command_lines(row, width)]
    commands = _cut([*commands, Line("")], room) if room > 2 else []
    room += _LOG_LINES - len(commands)
    return [*head, *destinations, *counts, *commands, *_newest(log, width, room)]


def totals(tally: Tally) -> tuple[list[str], list[str]]:
    """Give the counts of what the load got, and of what broke."""
    return (
        [f"{kind.value} {tally.served[kind]}" for kind in Kind],
        [
            f"failed {tally.broken(under_way=False)}",
            f"broken while under way {tally.broken(under_way=True)}",
        ],
    )


def command_lines(row: Row, width: int) -> list[str]:
    """Give the commands for a destination; a shell takes a command of several lines as one."""
    name = f"{row.cells[0]}: "
    whole = name + "  or  ".join(row.commands)
    if len(whole) <= width:
        return [whole]
    lines = []
    for command in row.commands:
        words = [shlex.quote(word) for word in shlex.split(command)]
        lines += _filled(words, width - len(name) - len(" \\"), " ", end=" \\")
    return [name + lines[0], *(" " * len(name) + line for line in lines[1:])]


def table(rows: Sequence[Row], width: int) -> list[Line]:
    """Give the table of the destinations, with the columns that ``width`` has room for."""
    shown = list(range(len(COLUMNS)))
    for left_out in (None, *_LEFT_OUT):
        shown = [column for column in shown if column != left_out]
        lines = plain_table(
            [COLUMNS[column] for column in shown],
            [[row.cells[column] for column in shown] for row in rows],
        )
        if max(map(len, lines)) <= width:
            break
    styles = ("bold", *("green" if row.up else "red" for row in rows))
    return [Line(*pair) for pair in zip(lines, styles, strict=True)]


def _newest(log: Sequence[str], width: int, room: int) -> list[Line]:
    """Give the newest texts of the log that fit; further lines of a text are indented."""
    lines: list[Line] = []
    for text in reversed(log):
        wrapped = wrap(text, width, subsequent_indent=" " * len("12:00:00 "))
        if len(lines) + len(wrapped) > room:
            # The newest one is never left out.
            lines = lines or [Line(one, "dim") for one in wrapped[:room]]
            break
        lines = [*(Line(one, "dim") for one in wrapped), *lines]
    return lines


def _filled(
    texts: Iterable[str], width: int, separator: str = " · ", *, end: str = ""
) -> list[str]:
    """Join texts to lines of ``width`` columns, each but the last with ``end``."""
    lines: list[str] = []
    for text in texts:
        if lines and len(lines[-1]) + len(separator) + len(text) <= width:
            lines[-1] += separator + text
        else:
            lines.append(text)
    return [line + end for line in lines[:-1]] + lines[-1:]


def _cut(lines: list[Line], room: int) -> list[Line]:
    """Give the lines that there is room for, and say that there are more."""
    if len(lines) <= room:
        return lines
    return [*lines[: max(room - 1, 0)], Line("... more in a taller window", "dim")]
