"""Prints tables: by rich on a terminal, as aligned plain text elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from fastapi_proxy_di.cli.extra import missing_modules


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table to the standard output: by rich if it is installed and this is a terminal."""
    if sys.stdout.isatty() and not missing_modules(["rich"]):
        from rich.console import Console  # noqa: PLC0415 - an extra that may be missing
        from rich.table import Table  # noqa: PLC0415

        table = Table(*headers)
        for row in rows:
            table.add_row(*row)
        Console(highlight=False, markup=False).print(table)
    else:
        print("\n".join(plain_table(headers, rows)))


def plain_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Give the table as lines, with two blanks between columns."""
    columns = list(zip(headers, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (headers, *rows)
    ]
