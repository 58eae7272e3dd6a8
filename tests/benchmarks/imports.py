"""Measures the cost of importing the package over fastapi and httpx, in fresh processes."""

import os
import statistics
import subprocess
import sys
from typing import Final

from tests.benchmarks.measure import MeasurementError

_BASE: Final = "import fastapi, httpx"
# Every public name, so that none is cheap only because it comes later.
_PACKAGE: Final = "from fastapi_proxy_di import *"
_TIMED: Final = "import time; s = time.process_time(); {}; print(time.process_time() - s)"


def import_milliseconds(rounds: int) -> dict[str, float]:
    """Medians of CPU time in ms of `base` (fastapi and httpx) and `package`, taken in turns.

    Raises:
        MeasurementError: One of them cannot be imported.
    """
    statements = {"base": _BASE, "package": f"{_BASE}; {_PACKAGE}"}
    times: dict[str, list[float]] = {name: [] for name in statements}
    # The first round writes and warms the byte code caches.
    for turn in range(rounds + 1):
        for name, statement in statements.items():
            milliseconds = _import_once(statement)
            if turn > 0:
                times[name].append(milliseconds)
    return {name: statistics.median(values) for name, values in times.items()}


def _import_once(statement: str) -> float:
    # Byte code is cached, as for installed packages, and coverage is off.
    environment = {
        name: value
        for name, value in os.environ.items()
        if name != "PYTHONDONTWRITEBYTECODE" and not name.startswith("COV")
    }
    done = subprocess.run(
        [sys.executable, "-c", _TIMED.format(statement)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise MeasurementError(f"{statement}: {done.stderr[-300:]}")
    return float(done.stdout) * 1e3
