"""``python -m tests.drill [short|long] [report.json]``: the drill and its report."""

import asyncio
import sys
from pathlib import Path

from tests.drill.drill import LONG, SHORT, run


def main() -> int:
    """Run the drill; 1 if a goal was missed."""
    pace = SHORT if "short" in sys.argv[1:] else LONG
    report = asyncio.run(run(pace, lambda phase: print(f"- {phase}", flush=True)))
    print(report.table())
    for word in sys.argv[1:]:
        if word.endswith(".json"):
            Path(word).write_text(report.json() + "\n", encoding="utf-8")
    return 0 if all(goal.met for goal in report.goals()) else 1


if __name__ == "__main__":
    sys.exit(main())
