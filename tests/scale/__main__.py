"""``python -m tests.scale [PROCESSESxDESTINATIONS …]``: measures and prints a table."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from tests.scale.measure import Plan, Row, Size, measure

_SIZES: Final = ("50x250", "50x1000", "200x250", "200x1000")

PLAN: Final = Plan()

_HEADER: Final = (
    "| processes | destinations | commands/s | in the store/s | kB/s in | kB/s out | core of the"
    " store | store MB | process MB | drain p50 ms | p99 ms | ejection ms | flush s | losses |"
    " late ms |\n"
    "|" + " --- |" * 15
)


def main(words: Sequence[str] | None = None, plan: Plan = PLAN) -> int:
    """Measure each size, and print its row."""
    parser = argparse.ArgumentParser("python -m tests.scale", description=__doc__)
    parser.add_argument("sizes", nargs="*", type=_size, default=[_size(one) for one in _SIZES])
    parser.add_argument("--workers", type=int, default=plan.workers, help="that simulate them")
    parser.add_argument("--json", type=Path, help="file for the figures")
    given = parser.parse_args(words)
    print(_HEADER, flush=True)
    rows = []
    for size in given.sizes:
        rows.append(measure(size, replace(plan, workers=given.workers)))
        print(row_of(rows[-1]), flush=True)
    if given.json is not None:
        given.json.write_text(json.dumps([row.asdict() for row in rows], indent=1) + "\n")
    return 0


def row_of(row: Row) -> str:
    """Give a row of the table."""
    cells = (
        f"{row.processes}",
        f"{row.destinations:,}",
        f"{row.commands:,.0f}",
        f"{row.inner:,.0f}",
        f"{row.received / 1e3:,.0f}",
        f"{row.sent / 1e3:,.0f}",
        f"{row.store_cpu:.1%}",
        f"{row.store_bytes / 1e6:.1f}",
        f"{row.process_bytes / 1e6:.1f}",
        f"{row.drain_p50 * 1e3:.1f}",
        f"{row.drain_p99 * 1e3:.1f}",
        f"{row.eject * 1e3:.0f}",
        f"{row.flush:.1f}",
        f"{row.lost}",
        f"{row.late * 1e3:.0f}",
    )
    return f"| {' | '.join(cells)} |"


def _size(text: str) -> Size:
    processes, _, destinations = text.partition("x")
    return Size(int(processes), int(destinations))


if __name__ == "__main__":
    sys.exit(main())
