"""One measurement: drives one load at one server, and reads its cost from the kernel.

wrk drives small requests, `load_generator` the rest.
"""

import http.client
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from tests.benchmarks.catalog import Kind, Load
from tests.benchmarks.processes import Server
from tests.benchmarks.wire_format import API_KEY, API_KEY_HEADER, GET_BODY_BYTES

_SCRIPT: Final = Path(__file__).with_name("report.lua")
_BY_WRK: Final = frozenset({Kind.GET, Kind.POST, Kind.MANY})
_WRK_TIMEOUT_SECONDS: Final = 30
_PATIENCE_SECONDS: Final = 240


class MeasurementError(Exception):
    """A load could not be driven, or the server responded wrongly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How long each load runs.

    Attributes:
        rounds: Turns of every contender per load.
        heavy_rounds: The same for transfers, event streams and idle tunnels.
        seconds: Duration of one turn.
        events: Server-sent events per stream.
        interval: Seconds between two of them.
    """

    rounds: int
    heavy_rounds: int
    seconds: int
    events: int
    interval: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The result of one turn.

    Attributes:
        units: Requests, transfers, events, messages or handshakes done.
        seconds: Time they took.
        cpu_us: CPU time of the gateway per unit, in microseconds.
        p50_ms: Median latency; of an event: its delay, of a transfer: its duration.
        p99_ms: 99th percentile of the same.
        peak_rss_mib: Highest resident memory of the gateway.
        held_kib: Memory added per tunnel still open at the end, in KiB; 0 for other loads.
        errors: Units that failed, non-2xx responses included.
    """

    units: int
    seconds: float
    cpu_us: float
    p50_ms: float
    p99_ms: float
    peak_rss_mib: float
    held_kib: float
    errors: int


def check_response(server: Server, load: Load, *, proxied: bool) -> None:
    """Send one request and compare the response with what the origin gives.

    Raises:
        MeasurementError: Another status or body, or for POST an origin that missed the body.
    """
    if load.kind not in _BY_WRK:
        return
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request(
            "POST" if load.body_bytes else "GET",
            load.path,
            body=b"x" * load.body_bytes or None,
            headers={API_KEY_HEADER: API_KEY},
        )
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise MeasurementError(f"no response: {error!r}") from error
    finally:
        connection.close()
    if response.status != 200:
        raise MeasurementError(f"status {response.status}: {body[:200]!r}")
    if not proxied:
        return
    if body != b"x" * GET_BODY_BYTES:
        raise MeasurementError(f"unexpected body of {len(body)} bytes")
    if load.body_bytes and int(response.headers.get("x-request-length", 0)) < load.body_bytes:
        raise MeasurementError("the request body did not reach the origin")


def warm_up(server: Server, load: Load) -> None:
    """Drive a wrk load for a second, uncounted, so that connections to the origin are open."""
    if load.kind in _BY_WRK:
        _wrk(server, load, 1)


def measure(server: Server, load: Load, effort: Effort) -> Sample:
    """Run one turn of `load`.

    Raises:
        MeasurementError: The load generator failed or nothing succeeded.
    """
    server.reset_peak_rss()
    if load.kind in _BY_WRK:
        cpu_before = server.cpu_seconds()
        result = _wrk(server, load, effort.seconds)
        cpu_seconds, held_bytes = server.cpu_seconds() - cpu_before, 0
    else:
        result, cpu_seconds, held_bytes = _generate(server, load, effort)
    units = int(result["units"])
    if units == 0:
        raise MeasurementError(f"nothing succeeded, {result['errors']} errors")
    return Sample(
        units=units,
        seconds=result["seconds"],
        cpu_us=cpu_seconds / units * 1e6,
        p50_ms=result["p50_ms"],
        p99_ms=result["p99_ms"],
        peak_rss_mib=server.peak_rss_bytes() / 2**20,
        held_kib=held_bytes / units / 1024 if load.kind is Kind.IDLE else 0.0,
        errors=int(result["errors"]),
    )


def _wrk(server: Server, load: Load, seconds: int) -> dict[str, Any]:
    command = [
        "wrk",
        "--threads=1",
        f"--connections={load.connections}",
        f"--duration={seconds}s",
        f"--timeout={_WRK_TIMEOUT_SECONDS}s",
        "--latency",
        f"--script={_SCRIPT}",
        f"http://127.0.0.1:{server.port}{load.path}",
        "--",
        "POST" if load.body_bytes else "GET",
        load.path,
        str(load.body_bytes),
        API_KEY,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        if line.startswith("JSON "):
            raw = json.loads(line.removeprefix("JSON "))
            # wrk counts a response with an error status as a request, too.
            return {
                "units": max(0, raw["requests"] - raw["errors"]),
                "seconds": raw["duration_us"] / 1e6,
                "p50_ms": raw["p50_us"] / 1e3,
                "p99_ms": raw["p99_us"] / 1e3,
                "errors": raw["errors"],
            }
    raise MeasurementError(f"wrk said: {(done.stdout + done.stderr)[-300:]}")


def _generate(server: Server, load: Load, effort: Effort) -> tuple[dict[str, Any], float, int]:
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks.load_generator",
        load.kind.value,
        f"--port={server.port}",
        f"--path={load.path}",
        f"--connections={load.connections}",
        f"--seconds={effort.seconds}",
        f"--events={effort.events}",
        f"--interval={effort.interval}",
    ]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            _expect_line(process, process.stdout)
            cpu_before, rss_before = server.cpu_seconds(), server.baseline_rss_bytes()
            _release(process.stdin)
            result: dict[str, Any] = json.loads(_expect_line(process, process.stdout))
            cpu_seconds = server.cpu_seconds() - cpu_before
            held_bytes = server.rss_bytes() - rss_before
            _release(process.stdin)
            process.wait(_PATIENCE_SECONDS)
        finally:
            process.kill()
    return result, cpu_seconds, held_bytes


def _expect_line(process: subprocess.Popen[str], output: IO[str]) -> str:
    line = output.readline()
    if not line:
        assert process.stderr is not None
        raise MeasurementError(f"load generator said: {process.stderr.read()[-300:]}")
    return line


def _release(stdin: IO[str]) -> None:
    stdin.write("\n")
    stdin.flush()
