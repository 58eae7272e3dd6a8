"""A whole run: starts all contenders of an origin together and measures each load in turns."""

import importlib.metadata
import os
import platform
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.catalog import Contender, Kind, Load, Origin
from tests.benchmarks.fleet import Fleet
from tests.benchmarks.imports import import_milliseconds
from tests.benchmarks.measure import (
    Effort,
    MeasurementError,
    Sample,
    check_response,
    measure,
    warm_up,
)
from tests.benchmarks.processes import Server, ServerError
from tests.benchmarks.results import Results, Row

_HEAVY: Final = frozenset({Kind.DOWNLOAD, Kind.UPLOAD, Kind.EVENTS, Kind.IDLE})
_NO_UPSTREAM: Final = frozenset(
    {"asgi", "fastapi", "fastapi-cors", "fastapi-depends", "fastapi-telemetry"}
)
_VERSIONS_OF: Final = ("fastapi", "starlette", "uvicorn", "uvloop", "httptools", "httpx")
_SEED: Final = 20

FULL: Final = Effort(rounds=5, heavy_rounds=3, seconds=3, events=20, interval=0.25)
QUICK: Final = Effort(rounds=1, heavy_rounds=1, seconds=1, events=8, interval=0.25)


class Run:
    """One run of chosen contenders under chosen loads.

    Args:
        contenders: Whom to measure.
        loads: Under what.
        effort: For how long.
        gateway_core: CPU number of the gateways.
        load_core: CPU number of origins and load generators.
        imports: Whether to measure the package's import time.
    """

    def __init__(
        self,
        contenders: Sequence[Contender],
        loads: Sequence[Load],
        effort: Effort,
        *,
        gateway_core: int,
        load_core: int,
        imports: bool,
    ) -> None:
        self._contenders = contenders
        self._loads = loads
        self._effort = effort
        self._cores = (gateway_core, load_core)
        self._imports = imports
        self._rows: list[Row] = []

    def execute(self) -> Results:
        """Measure everything; a contender that fails becomes a row with its fault."""
        for program in ("wrk", "nginx"):
            if shutil.which(program) is None:
                raise MeasurementError(f"{program} is not installed")
        os.sched_setaffinity(0, {self._cores[1]})
        about = self._about()
        with tempfile.TemporaryDirectory(prefix="benchmarks-") as scratch:
            # nginx's worker drops its privileges and must still read the origin's files.
            Path(scratch).chmod(0o755)
            for origin in Origin:
                self._measure_behind(origin, Path(scratch))
        imports = self._import_times() if self._imports else {}
        about["load_average_at_end"] = os.getloadavg()
        about["seconds"] = round(time.time() - about["started"])
        return Results(about=about, rows=tuple(self._rows), imports=imports)

    def _about(self) -> dict[str, Any]:
        return {
            "command": " ".join(("python -m tests.benchmarks", *sys.argv[1:])),
            "started": round(time.time()),
            "python": platform.python_version(),
            "system": platform.platform(),
            "cpu": _cpu_model(),
            "versions": {name: importlib.metadata.version(name) for name in _VERSIONS_OF},
            "rounds": self._effort.rounds,
            "seconds_per_turn": self._effort.seconds,
            "load_average_at_start": os.getloadavg(),
        }

    def _import_times(self) -> dict[str, float]:
        _say("import time")
        try:
            return import_milliseconds(3 * self._effort.rounds)
        except MeasurementError as error:
            _say(f"  {error}")
            return {}

    def _measure_behind(self, origin: Origin, scratch: Path) -> None:
        loads = [load for load in self._loads if load.origin is origin]
        kinds = {load.kind for load in loads}
        chosen = [contender for contender in self._contenders if contender.kinds & kinds]
        if not chosen:
            return
        gateway_core, load_core = self._cores
        fleet = Fleet(scratch, gateway_core=gateway_core, load_core=load_core)
        servers: dict[str, Server] = {}
        faults: dict[str, str] = {}
        with ExitStack() as stack:
            port = fleet.start_origin(origin, stack)
            for contender in chosen:
                _say(f"start {contender.name} in front of {origin.value}")
                try:
                    servers[contender.name] = fleet.start_gateway(contender, origin, port, stack)
                except ServerError as error:
                    faults[contender.name] = str(error)
                    _say(f"  failed: {error}")
            for load in loads:
                able = [contender.name for contender in chosen if load.kind in contender.kinds]
                self._measure_load(load, able, servers, dict(faults))

    def _measure_load(
        self,
        load: Load,
        names: Sequence[str],
        servers: dict[str, Server],
        faults: dict[str, str],
    ) -> None:
        _say(load.title)
        samples: dict[str, list[Sample]] = {name: [] for name in names}
        effort = self._effort
        order = random.Random(_SEED)
        for _ in range(effort.heavy_rounds if load.kind in _HEAVY else effort.rounds):
            # A new order each round, so that no contender always follows the same one.
            for name in order.sample(names, len(names)):
                if name in faults:
                    continue
                try:
                    check_response(servers[name], load, proxied=name not in _NO_UPSTREAM)
                    warm_up(servers[name], load)
                    sample = measure(servers[name], load, effort)
                except (MeasurementError, OSError, ValueError) as error:
                    faults[name] = f"{servers[name].log_tail()}\n{error}".strip()
                    _say(f"  {name}: {faults[name]}")
                    continue
                finally:
                    # Peers go on with requests of clients that have left: not in others' turns.
                    servers[name].wait_idle()
                samples[name].append(sample)
                _say(f"  {name}: {sample.cpu_us:,.1f} µs/{load.unit}, {sample.errors} errors")
        for name in names:
            if name in faults:
                self._rows.append(Row(load=load.name, contender=name, fault=faults[name]))
            else:
                self._rows.append(Row.of(load.name, name, samples[name]))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
