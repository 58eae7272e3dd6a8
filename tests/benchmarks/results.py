"""The results of a run: medians per load and contender, to and from JSON."""

import dataclasses
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks.measure import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Medians of one contender under one load.

    Attributes:
        load: Name of the load.
        contender: Name of the contender.
        per_second: Units per second.
        errors: Failed units of all turns together.
        fault: Why there is no measurement; the numbers are 0 then.
        samples: The turns, in order.

    The other attributes are those of `Sample`.
    """

    load: str
    contender: str
    cpu_us: float = 0.0
    per_second: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    peak_rss_mib: float = 0.0
    held_kib: float = 0.0
    errors: int = 0
    fault: str = ""
    samples: tuple[Sample, ...] = ()

    @staticmethod
    def of(load: str, contender: str, samples: Sequence[Sample]) -> "Row":
        """The medians of `samples`, of which there is at least one."""

        def median(name: str) -> float:
            return float(statistics.median(getattr(sample, name) for sample in samples))

        return Row(
            load=load,
            contender=contender,
            cpu_us=median("cpu_us"),
            per_second=statistics.median(s.units / s.seconds for s in samples),
            p50_ms=median("p50_ms"),
            p99_ms=median("p99_ms"),
            peak_rss_mib=max(sample.peak_rss_mib for sample in samples),
            held_kib=median("held_kib"),
            errors=sum(sample.errors for sample in samples),
            samples=tuple(samples),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """One run.

    Attributes:
        about: Command, machine, versions, durations, load averages.
        rows: One per load and contender that was to be measured.
        imports: CPU milliseconds of importing `base` and `package`; empty if not measured.
    """

    about: dict[str, Any]
    rows: tuple[Row, ...]
    imports: dict[str, float] = field(default_factory=dict)

    def row(self, load: str, contender: str) -> Row | None:
        """The measured row, `None` if there is none or it is a fault."""
        for row in self.rows:
            if row.load == load and row.contender == contender and not row.fault:
                return row
        return None

    def cost(self, load: str, contender: str) -> float | None:
        """CPU microseconds per unit, `None` if not measured."""
        row = self.row(load, contender)
        return None if row is None or row.cpu_us <= 0 else row.cpu_us

    def write(self, path: Path) -> None:
        """Write all as JSON."""
        path.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n")

    @staticmethod
    def read(path: Path) -> "Results":
        """Read results that `write` wrote."""
        raw = json.loads(path.read_text())
        rows = tuple(
            Row(**{**row, "samples": tuple(Sample(**sample) for sample in row["samples"])})
            for row in raw["rows"]
        )
        return Results(about=raw["about"], rows=rows, imports=raw["imports"])
