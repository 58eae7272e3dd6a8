"""Tables in Markdown, and their place in a page that is otherwise written by hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

__all__ = ["table", "with_tables"]

BEGIN: Final = "<!-- tables: begin -->"
END: Final = "<!-- tables: end -->"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Give a table.

    Args:
        heads: The names of the columns.
        rows: The cells of each row.
    """
    lines = [f"| {' | '.join(heads)} |", "|" + " --- |" * len(heads)]
    # An empty cell is one space.
    lines += ["|" + "|".join(f" {cell} " if cell else " " for cell in row) + "|" for row in rows]
    return "\n".join(lines)


def with_tables(page: str, tables: str) -> str:
    """Give the page with the text between its marks replaced.

    Args:
        page: The page as it is.
        tables: What stands between the marks from now on.
    """
    head, rest = page.split(BEGIN)
    _, tail = rest.split(END)
    return f"{head}{BEGIN}\n\n{tables}\n\n{END}{tail}"
