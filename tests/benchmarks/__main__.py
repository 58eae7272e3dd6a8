"""Command line of the benchmarks: `run`, `goals` on an earlier run's JSON, `list`."""

import argparse
import os
import signal
import sys
from pathlib import Path

from tests.benchmarks import catalog
from tests.benchmarks.catalog import Contender, Load
from tests.benchmarks.measure import MeasurementError
from tests.benchmarks.results import Results
from tests.benchmarks.run import FULL, QUICK, Run
from tests.benchmarks.tables import goals_table, results_tables


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
    return _run(arguments)


def _run(arguments: argparse.Namespace) -> int:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        print("two CPU cores are needed", file=sys.stderr)
        return 2
    loads = catalog.loads(quick=arguments.quick)
    try:
        chosen_contenders = _chosen_contenders(arguments.only)
        chosen_loads = _chosen_loads(arguments.loads, loads)
        results = Run(
            chosen_contenders,
            chosen_loads,
            QUICK if arguments.quick else FULL,
            gateway_core=cores[0],
            load_core=cores[1],
            imports=arguments.only is None and (arguments.loads or "imports") == "imports",
        ).execute()
    except (MeasurementError, KeyError) as error:
        print(error, file=sys.stderr)
        return 2
    if arguments.json is not None:
        results.write(arguments.json)
    print(results_tables(results, chosen_loads))
    if arguments.goals:
        print()
        print(goals_table(results))
    return 0


def _chosen_contenders(only: str | None) -> list[Contender]:
    known = {contender.name: contender for contender in catalog.CONTENDERS}
    return [known[name] for name in (only.split(",") if only else known)]


def _chosen_loads(only: str | None, loads: tuple[Load, ...]) -> list[Load]:
    known = {load.name: load for load in loads}
    if only == "imports":
        return []
    return [known[name] for name in (only.split(",") if only else known)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="measure and print tables")
    run.add_argument("--quick", action="store_true", help="one short round, smaller loads")
    run.add_argument("--only", metavar="NAMES", help="contenders, comma-separated")
    run.add_argument("--loads", metavar="NAMES", help="loads, comma-separated, or `imports`")
    run.add_argument("--json", metavar="FILE", type=Path, help="write all samples here")
    run.add_argument("--goals", action="store_true", help="print the goals, too")
    goals = commands.add_parser("goals", help="judge the JSON of an earlier run")
    goals.add_argument("results", type=Path)
    commands.add_parser("list", help="names of contenders and loads")
    return parser


if __name__ == "__main__":
    sys.exit(main())
