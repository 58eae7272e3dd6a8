"""Results as Markdown tables. Pure: gives strings."""

from collections.abc import Iterator, Mapping, Sequence

from tests.benchmarks.catalog import CONTENDERS, Kind, Load
from tests.benchmarks.goals import GOALS, judge
from tests.benchmarks.results import Results, Row

_TITLES = {contender.name: contender.title for contender in CONTENDERS}


def results_tables(results: Results, loads: Sequence[Load]) -> str:
    """One table per load that was run, the ratios against its reference first."""
    parts = [_load_table(results, load) for load in loads if _rows(results, load)]
    if results.imports:
        parts.append(_import_table(results))
    return "\n\n".join(parts)


def goals_table(results: Results) -> str:
    """Each goal with bound, measured value and verdict."""
    lines = ["| Goal | bound | measured | |", "| --- | --- | --- | --- |"]
    for goal in GOALS:
        verdict = judge(goal, results)
        sign = "≥" if goal.at_least else "≤"
        value = "—" if verdict.value is None else f"{verdict.value:.2f}"
        word = {None: "not measured", True: "pass", False: "FAIL"}[verdict.met]
        lines.append(f"| {goal.title} | {sign} {goal.bound:g} | {value} | {word} |")
    return "\n".join(lines)


def instructions_table(counted: Mapping[str, float]) -> str:
    """Instructions by contender, the first one being 1."""
    first = next(iter(counted.values()))
    lines = ["| | instructions | |", "| --- | --- | --- |"]
    for name, count in counted.items():
        lines.append(f"| {_TITLES.get(name, name)} | {count:,.0f} | {count / first:.3f} |")
    return "\n".join(lines)


def _rows(results: Results, load: Load) -> list[Row]:
    return [row for row in results.rows if row.load == load.name]


def _load_table(results: Results, load: Load) -> str:
    held = load.kind is Kind.IDLE
    reference = results.cost(load.name, load.reference)
    head = ["", f"per {load.reference}", f"CPU µs/{load.unit}", f"{load.unit}s/s"]
    head += ["p50 ms", "p99 ms", "peak MiB", "KiB/tunnel" if held else "", "errors"]
    head = [cell for index, cell in enumerate(head) if cell or index == 0]
    lines = [f"**{load.title}**", "", _line(head), _line(["---"] * len(head))]
    lines += [_line(_cells(row, reference, held=held)) for row in _rows(results, load)]
    return "\n".join(lines)


def _cells(row: Row, reference: float | None, *, held: bool) -> Iterator[str]:
    yield _TITLES.get(row.contender, row.contender)  # none for that of an earlier commit
    if row.fault:
        yield f"not measured: {row.fault.splitlines()[-1][:120].replace('|', '/')}"
        return
    yield "—" if reference is None else f"{row.cpu_us / reference:.2f}"
    yield f"{row.cpu_us:,.1f}"
    yield f"{row.per_second:,.1f}"
    yield f"{row.p50_ms:,.2f}"
    yield f"{row.p99_ms:,.2f}"
    yield f"{row.peak_rss_mib:,.0f}"
    if held:
        yield f"{row.held_kib:,.1f}"
    yield f"{row.errors:,}"


def _import_table(results: Results) -> str:
    base, package = results.imports["base"], results.imports["package"]
    return "\n".join(
        (
            "**Import, CPU time in a fresh process**",
            "",
            "| | per base | CPU ms |",
            "| --- | --- | --- |",
            f"| fastapi and httpx | 1.00 | {base:,.1f} |",
            f"| and fastapi_proxy_di | {package / base:.2f} | {package:,.1f} |",
        )
    )


def _line(cells: Sequence[str] | Iterator[str]) -> str:
    return "| " + " | ".join(cells) + " |"
