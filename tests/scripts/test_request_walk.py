"""A proxied GET goes through few files of the package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e


SCRIPT = Path(__file__).parents[2] / "scripts" / "request_walk.py"


def test_request_walk_stays_within_its_bound() -> None:
    """The script follows a real request and fails when it runs through too many files."""
    done = subprocess.run(
        [sys.executable, SCRIPT], capture_output=True, text=True, timeout=60, check=False
    )

    assert "transport/http1/connection.py" in done.stdout
    assert "   observability/metrics.py" in done.stdout
    assert done.returncode == 0, done.stdout + done.stderr
