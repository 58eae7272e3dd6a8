"""Counts the instructions of a gateway for one GET, with valgrind's callgrind.

Other work on the machine changes times by a tenth and more, and instructions hardly at all. Counted
are instructions in user mode; the kernel's work is not in them. Python's garbage collector is off.
"""

import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tests.benchmarks.catalog import Contender, Load, Origin
from tests.benchmarks.fleet import Fleet
from tests.benchmarks.measure import MeasurementError
from tests.benchmarks.processes import Server

_CONNECTIONS: Final = 8
_WARM_UP: Final = 25
_ROUNDS: Final = 25
"""Requests on each connection: first uncounted, then counted."""

_SUMMARY: Final = re.compile(r"^(?:summary|totals): (\d+)", re.MULTILINE)


def instructions(
    contenders: Sequence[Contender], load: Load, scratch: Path, *, cores: tuple[int, int]
) -> dict[str, float]:
    """Give the instructions for one request of ``load``, by contender.

    Args:
        contenders: Whom to measure, one after the other.
        load: A load of small GETs.
        scratch: Directory for logs and callgrind's files.
        cores: CPU numbers of the gateways and of the origin.

    Raises:
        MeasurementError: valgrind is missing, or a gateway responded wrongly.
    """
    for program in ("valgrind", "callgrind_control", "nginx"):
        if shutil.which(program) is None:
            raise MeasurementError(f"{program} is not installed")
    fleet = Fleet(scratch, gateway_core=cores[0], load_core=cores[1])
    counted: dict[str, float] = {}
    with ExitStack() as stack:
        port = fleet.start_origin(Origin.NGINX, stack)
        for contender in contenders:
            print(f"count {contender.name}", file=sys.stderr, flush=True)
            out = scratch / f"{contender.name}.callgrind"
            with ExitStack() as only_this:
                gateway = fleet.start_gateway(
                    contender,
                    Origin.NGINX,
                    port,
                    only_this,
                    wrapper=_callgrind(out),
                    server="tests.benchmarks.without_collector",
                )
                counted[contender.name] = _count(gateway, load, out)
    return counted


def _callgrind(out: Path) -> tuple[str, ...]:
    # The start is not counted, and so is several times as fast.
    options = ("--tool=callgrind", "--quiet", "--instr-atstart=no")
    return ("valgrind", *options, f"--callgrind-out-file={out}")


def _count(gateway: Server, load: Load, out: Path) -> float:
    with ExitStack() as stack:
        connections = [
            stack.enter_context(socket.create_connection(("127.0.0.1", gateway.port), timeout=60))
            for _ in range(_CONNECTIONS)
        ]
        get_many(connections, load.path, _WARM_UP)
        _control("--instr=on", gateway.pid)
        get_many(connections, load.path, _ROUNDS)
        _control("--dump", gateway.pid)
    text = Path(f"{out}.1").read_text(errors="replace")
    found = _SUMMARY.search(text)
    if found is None:
        raise MeasurementError("callgrind wrote no sum")
    return int(found[1]) / (_CONNECTIONS * _ROUNDS)


def _control(what: str, pid: int) -> None:
    subprocess.run(["callgrind_control", what, str(pid)], check=True, capture_output=True)


def get_many(
    connections: Sequence[socket.socket], path: str, times: int, further: str = ""
) -> None:
    """Send a GET on all connections at once, and read the responses, that many times.

    Args:
        connections: The connections.
        path: The path.
        times: How often.
        further: Further header lines.
    """
    request = f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: */*\r\n{further}\r\n".encode()
    for _ in range(times):
        for connection in connections:
            connection.sendall(request)
        for connection in connections:
            _read_response(connection)


def _read_response(connection: socket.socket) -> None:
    received = b""
    while b"\r\n\r\n" not in received:
        received += _some(connection)
    head, _, body = received.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise MeasurementError(f"not a good response: {head[:100]!r}")
    length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    missing = int(length[1] if length else 0) - len(body)
    while missing > 0:
        missing -= len(_some(connection))


def _some(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise MeasurementError("the gateway closed a connection")
    return data
