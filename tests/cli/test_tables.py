"""Tables on a terminal and elsewhere."""

from __future__ import annotations

import sys

import pytest

from fastapi_proxy_di.cli.tables import plain_table, print_table

HEADERS = ["name", "state"]
ROWS = [["a", "up"], ["longer name", "down"]]


def test_plain_table_aligns_columns() -> None:
    """Two blanks between columns, none at the end of a line."""
    assert plain_table(HEADERS, ROWS) == [
        "name         state",
        "a            up",
        "longer name  down",
    ]


def test_print_table_is_plain_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Output to a pipe has no frames."""
    print_table(HEADERS, ROWS)

    assert capsys.readouterr().out.splitlines() == plain_table(HEADERS, ROWS)


def test_print_table_draws_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rich draws a frame, and cells that look like markup stay text."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)

    print_table(HEADERS, [["[red]", "up"]])

    out = capsys.readouterr().out
    assert "[red]" in out
    assert "│" in out


def test_print_table_is_plain_without_rich(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal without rich gets the plain table."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setitem(sys.modules, "rich", None)

    print_table(HEADERS, ROWS)

    assert capsys.readouterr().out.splitlines() == plain_table(HEADERS, ROWS)
