"""Command line of the benchmarks: `run`, `instructions`, `goals` on an earlier run, `list`."""

import argparse
import os
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from tests.benchmarks import catalog
from tests.benchmarks.instructions import instructions
from tests.benchmarks.measure import MeasurementError
from tests.benchmarks.results import Results
from tests.benchmarks.run import FULL, QUICK, Run
from tests.benchmarks.tables import goals_table, instructions_table, results_tables

Entry = TypeVar("Entry")


def main() -> int:
    """Run the command; gives the exit status."""
    # A terminated run must still end the servers that it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    arguments = _parser().parse_args()
    if arguments.command == "list":
        for contender in catalog.CONTENDERS:
            print(f"{contender.name:22}{contender.title}")
        for load in catalog.loads(quick=False):
            print(f"{load.name:22}{load.title}")
        return 0
    if arguments.command == "goals":
        print(goals_table(Results.read(arguments.results)))
        return 0
    if arguments.command == "instructions":
        return _count(arguments)
    return _run(arguments)


def _run(arguments: argparse.Namespace) -> int:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        print("two CPU cores are needed", file=sys.stderr)
        return 2
    loads = list(catalog.loads(quick=arguments.quick))
    try:
        contenders = _contenders(arguments)
        # "imports" is no load: alone it means none of them.
        only_imports = arguments.loads == "imports"
        loads = [] if only_imports else _chosen(arguments.loads, {one.name: one for one in loads})
        results = Run(
            contenders,
            loads,
            QUICK if arguments.quick else FULL,
            gateway_core=cores[0],
            load_core=cores[1],
            imports=arguments.only is None and (only_imports or arguments.loads is None),
        ).execute()
    except MeasurementError as error:
        print(error, file=sys.stderr)
        return 2
    if arguments.json is not None:
        results.write(arguments.json)
    print(results_tables(results, loads))
    if arguments.goals:
        print()
        print(goals_table(results))
    return 0


def _count(arguments: argparse.Namespace) -> int:
    cores = sorted(os.sched_getaffinity(0))
    load = catalog.loads(quick=True)[0]
    try:
        with tempfile.TemporaryDirectory(prefix="benchmarks-") as scratch:
            # nginx's worker drops its privileges and must still read the origin's files.
            Path(scratch).chmod(0o755)
            counted = instructions(
                _contenders(arguments), load, Path(scratch), cores=(cores[0], cores[-1])
            )
    except MeasurementError as error:
        print(error, file=sys.stderr)
        return 2
    print(instructions_table(counted))
    return 0


def _contenders(arguments: argparse.Namespace) -> list[catalog.Contender]:
    known = {one.name: one for one in catalog.CONTENDERS}
    chosen = _chosen(arguments.only, known)
    if arguments.before is not None:
        title = f"{known['router'].title}, at {arguments.before}"
        before = replace(known["router"], name="before", title=title, commit=arguments.before)
        chosen.append(before)
    return chosen


def _chosen(names: str | None, known: dict[str, Entry]) -> list[Entry]:
    chosen = names.split(",") if names else list(known)
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise MeasurementError(f"unknown: {', '.join(unknown)}; see `list`")
    return [known[name] for name in chosen]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="measure and print tables")
    run.add_argument("--quick", action="store_true", help="one short round, smaller loads")
    run.add_argument("--loads", metavar="NAMES", help="loads, comma-separated, or `imports`")
    run.add_argument("--json", metavar="FILE", type=Path, help="write all samples here")
    run.add_argument("--goals", action="store_true", help="print the goals, too")
    count = commands.add_parser("instructions", help="count instructions for one GET, by callgrind")
    for each, required in ((run, False), (count, True)):
        each.add_argument(
            "--only", metavar="NAMES", required=required, help="contenders, comma-separated"
        )
        each.add_argument(
            "--before", metavar="COMMIT", help="also proxy_router as it was at a commit"
        )
    goals = commands.add_parser("goals", help="judge the JSON of an earlier run")
    goals.add_argument("results", type=Path)
    commands.add_parser("list", help="names of contenders and loads")
    return parser


if __name__ == "__main__":
    sys.exit(main())
