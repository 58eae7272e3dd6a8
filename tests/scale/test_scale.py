"""The simulation of many processes, with few of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.scale.__main__ import main
from tests.scale.measure import Plan

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_simulation_prints_a_row_for_each_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All processes follow a drain and an ejection, and all is there again after a flush."""
    plan = Plan(interval=1.0, snapshot=1.0, settle=3.5, quiet=1.0, drains=2)
    written = tmp_path / "rows.json"

    assert main(["4x8", "--workers", "2", "--json", str(written)], plan) == 0

    header, line, row = capsys.readouterr().out.splitlines()
    assert header.count("|") == line.count("|") == row.count("|")
    assert row.startswith("| 4 | 8 |")
    (figures,) = json.loads(written.read_text())
    assert figures["lost"] == 0
    assert 4 <= figures["commands"] < 100
    assert figures["process_bytes"] > 10_000
    assert all(0 < figures[name] < 10 for name in ("drain_p50", "drain_p99", "eject", "flush"))
