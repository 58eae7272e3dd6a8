"""The phases healthy and slow alone, run several times: does the p99 stay within its bound?

One run of a drill says little about a p99, which a handful of requests decide. Each run starts
new processes, so that the estimates of the one before do not help.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tests.drill.drill import FAULTS, SHORT, run
from tests.drill.report import Measured

__all__ = ["HEADER", "SlowRun", "run_slow"]

BOUND: Final = 3.0
"""How many times the usual p99 the p99 of the slow phase may be."""
HEADER: Final = (
    "| load | healthy p99 ms | others p99 ms | slow p99 ms | with first second | to the victim "
    "| met |\n| --- | --- | --- | --- | --- | --- | --- |"
)


@dataclass(frozen=True, slots=True)
class SlowRun:
    """One run.

    Attributes:
        load: The load average of the machine when the run ended.
        healthy: The measures of the healthy phase.
        slow: The measures of the slow phase.
    """

    load: float
    healthy: Measured
    slow: Measured

    @property
    def met(self) -> bool:
        """Whether the p99 is within its bound; other work slows the other destinations too."""
        usual_ms = max(self.healthy.p99_ms, self.slow.others_p99_ms)
        return self.slow.p99_ms <= BOUND * usual_ms

    def row(self) -> str:
        """Give the run as a row of a Markdown table."""
        slow = self.slow
        times = (self.healthy.p99_ms, slow.others_p99_ms, slow.p99_ms, slow.whole_p99_ms)
        cells = (
            f"{self.load:.1f}",
            *(f"{time:.1f}" for time in times),
            str(slow.victim_requests),
            "yes" if self.met else "NO",
        )
        return f"| {' | '.join(cells)} |"


async def run_slow(say: Callable[[str], None]) -> SlowRun:
    """Run both phases once, in the short form.

    Args:
        say: Called with the name of each phase.
    """
    report = await run(SHORT, say, [one for one in FAULTS if one.name in ("healthy", "slow")])
    healthy, slow = report.phases
    return SlowRun(os.getloadavg()[0], healthy, slow)
