"""The script that pins every dependency to its lowest version, for a step of CI."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "lowest_versions.py"


def test_each_requirement_is_pinned() -> None:
    """Those of one version of Python too, with their condition."""
    run = subprocess.run(
        [sys.executable, str(SCRIPT)], check=True, capture_output=True, text=True, cwd=ROOT
    )
    pins = run.stdout.splitlines()

    assert "backports.zstd==1.0; python_version < '3.14'" in pins
    assert any(pin.startswith("fastapi==") for pin in pins)
    assert all("==" in pin for pin in pins)
