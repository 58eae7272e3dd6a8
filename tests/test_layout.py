"""Each file of the package has tests at a known place, and no file is long without a reason."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "fastapi_proxy_di"
FILES = sorted(
    file.relative_to(PACKAGE).as_posix()
    for file in PACKAGE.rglob("*.py")
    if file.name != "__init__.py"
)
TABLE = (TESTS / "README.md").read_text()
LONG = 400
"""Lines above which a file says why it is long."""
ROWS = re.findall(r"^\| `([\w/.]+)` \| (.+) \|$", TABLE, re.MULTILINE)


def mirrored(file: str) -> bool:
    """Whether ``a/b.py`` has ``tests/a/test_b.py``, ``test_b_*.py`` or a folder ``tests/a/b``."""
    below = TESTS / file
    return any(below.parent.glob(f"test_{below.name}")) or any(
        file
        for pattern in (f"test_{below.stem}_*.py", f"{below.stem}/test_*.py")
        for file in below.parent.glob(pattern)
    )


@pytest.mark.parametrize("file", FILES)
def test_file_of_the_package_has_tests(file: str) -> None:
    """In the mirrored place or in a row of the table, and not in both."""
    rows = [named for named, _ in ROWS if named == file]

    assert len(rows) == (0 if mirrored(file) else 1), f"{file}: see tests/README.md"


@pytest.mark.parametrize(("file", "cell"), ROWS, ids=[file for file, _ in ROWS])
def test_row_of_the_table_names_what_exists(file: str, cell: str) -> None:
    """The package has the file, and each pattern finds tests."""
    patterns = re.findall(r"`([\w/.*]+)`", cell)

    assert file in FILES
    assert patterns
    assert [pattern for pattern in patterns if not any(TESTS.glob(pattern))] == []


def test_table_is_in_order() -> None:
    """Sorted by file, each file once, so that two changes rarely conflict."""
    named = [file for file, _ in ROWS]

    assert named == sorted(set(named))


def unexplained(file: Path) -> bool:
    """Whether a file is long and its docstring does not say "Long because"."""
    source = file.read_text()
    if source.count("\n") <= LONG:
        return False
    return "long because" not in (ast.get_docstring(ast.parse(source)) or "").lower()


def test_long_file_says_why() -> None:
    """In its docstring, wherever it stands."""
    folders = (PACKAGE, TESTS, TESTS.parent / "scripts")
    files = [file for folder in folders for file in folder.rglob("*.py")]

    assert [str(file) for file in files if unexplained(file)] == []


@pytest.mark.parametrize(
    ("docstring", "lines", "expected"),
    [("What.", 400, False), ("What.", 401, True), ("What.\n\nLong because of it.", 401, False)],
)
def test_long_file_without_a_reason_is_found(
    tmp_path: Path, docstring: str, lines: int, expected: bool
) -> None:
    """One line over the bound is."""
    file = tmp_path / "long.py"
    text = f'"""{docstring}"""\n'
    file.write_text(text + "\n" * (lines - text.count("\n")))

    assert unexplained(file) is expected
