"""``python -m tests.drill [long|short|slow] [report.json] [--twelve] [--times N]``: drills."""

import argparse
import asyncio
import sys
from pathlib import Path

from tests.drill.drill import LONG, SHORT, run
from tests.drill.fleet import one_gateway, twelve_processes
from tests.drill.slow import HEADER, run_slow


def main() -> int:
    """Run a drill; 1 if a goal was missed."""
    parser = argparse.ArgumentParser("python -m tests.drill", description=__doc__)
    parser.add_argument("form", nargs="?", choices=["long", "short", "slow"], default="long")
    parser.add_argument("--times", type=int, default=10, help="runs of the form slow")
    parser.add_argument(
        "--twelve",
        action="store_true",
        help="three gateways of four processes each, which share a store; not for the form slow",
    )
    parser.add_argument("report", nargs="?", type=Path, help="JSON file for long or short")
    given = parser.parse_args()
    if given.form == "slow":
        return asyncio.run(_slow(given.times))
    gateways = twelve_processes if given.twelve else one_gateway
    pace = SHORT if given.form == "short" else LONG
    report = asyncio.run(run(pace, _say, gateways=gateways))
    print(report.table())
    if given.report is not None:
        given.report.write_text(report.json() + "\n", encoding="utf-8")
    return 0 if all(goal.met for goal in report.goals()) else 1


async def _slow(times: int) -> int:
    print(HEADER, flush=True)
    missed = 0
    for _ in range(times):
        one = await run_slow(lambda phase: None)
        print(one.row(), flush=True)
        missed += not one.met
    print(f"\n{times - missed} of {times} runs within the bound")
    return min(missed, 1)


def _say(phase: str) -> None:
    print(f"- {phase}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
