"""What `rate_limit` costs: CPU of the server's process per GET, beside endpoints without it.

Run `python -m tests.benchmarks.limits`. The endpoints run at the same time and are measured in
turns; each figure is the median of the rounds, in parts of the bare endpoint.
"""

from __future__ import annotations

import os
import socket
import statistics
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tests.benchmarks.instructions import get_many
from tests.benchmarks.processes import Server, free_port, pinned
from tests.benchmarks.wire_format import API_KEY, API_KEY_HEADER
from tests.support.redis_servers import RedisServer

_ROUNDS: Final = 9
_REQUESTS: Final = 400
_CONNECTIONS: Final = 8
_HEADER: Final = f"{API_KEY_HEADER}: {API_KEY}\r\n"


def main() -> None:
    """Measure and print."""
    cores = sorted(os.sched_getaffinity(0))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        with pinned(cores[-1]):
            redis = stack.enter_context(RedisServer())
        shared = {
            "FASTAPI_PROXY_CLUSTER__STORE": redis.url,
            "FASTAPI_PROXY_CLUSTER__NAME": "benchmark",
            "FASTAPI_PROXY_CLUSTER__KEY": "k" * 16,
        }
        servers = {}
        for name, app, environment in (
            ("bare", "fastapi_constant:app", {}),
            ("one Depends", "fastapi_depends:app", {}),
            ("rate_limit in memory", "limited:app", {}),
            ("rate_limit through Redis", "limited:app", shared),
        ):
            servers[name] = _server(app, cores[0], folder / f"{name}.log", environment)
            stack.callback(servers[name].stop)
        for server in servers.values():
            server.wait_listening()
        stack.enter_context(pinned(cores[-1]))
        connections = {
            name: [
                stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
                for _ in range(_CONNECTIONS)
            ]
            for name, server in servers.items()
        }
        seconds: dict[str, list[float]] = {name: [] for name in servers}
        for number in range(_ROUNDS + 1):
            for name, server in servers.items():
                before = server.cpu_seconds()
                get_many(connections[name], "/1k", _REQUESTS, _HEADER)
                if number:  # the first warms up
                    seconds[name].append(server.cpu_seconds() - before)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, median in medians.items():
        microseconds = 1e6 * median / (_REQUESTS * _CONNECTIONS)
        print(f"{name:26}{microseconds:8.1f} us{median / medians['bare']:8.2f}")


def _server(app: str, core: int, log: Path, environment: Mapping[str, str]) -> Server:
    port = free_port()
    command = [
        *(sys.executable, "-m", "uvicorn", f"tests.benchmarks.contenders.{app}"),
        *("--port", str(port), "--loop", "uvloop", "--http", "httptools", "--no-access-log"),
        *("--log-level", "warning", "--timeout-keep-alive", "60"),
    ]
    return Server(command, core=core, port=port, log=log, environment=environment)


if __name__ == "__main__":
    main()
