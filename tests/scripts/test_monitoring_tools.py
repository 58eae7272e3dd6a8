"""The environments of monitoring tools, without making one: each tool has tests that can run."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "tests" / "monitoring").glob("test_*.py"))


def test_each_monitoring_tool_has_a_file_of_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file without an entry in the script would never run."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    tools = runpy.run_path(str(ROOT / "scripts" / "monitoring_tools.py"))["TOOLS"]

    assert sorted(f"test_{tool}.py" for tool in tools) == [file.name for file in FILES]


def test_each_file_of_monitoring_tests_may_start_servers() -> None:
    """Without the marker ``e2e`` its tests fail, which only shows in the tool's environment."""
    unmarked = [
        file.name for file in FILES if "\npytestmark = pytest.mark.e2e\n" not in file.read_text()
    ]

    assert unmarked == []
