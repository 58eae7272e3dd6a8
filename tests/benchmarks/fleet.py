"""Starts and ends the servers of a run: origins beside the load, gateways on the other core.

Installs the peers' packages into a cache outside the repository.
"""

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tests.benchmarks import nginx
from tests.benchmarks.catalog import Contender, Origin
from tests.benchmarks.processes import Server, ServerError, free_port, pinned
from tests.support.redis_servers import RedisServer

_REPOSITORY: Final = Path(__file__).resolve().parents[2]
_CACHE: Final = (
    Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "fastapi-proxy-di-benchmarks"
)
_MANY: Final = 1000


class Fleet:
    """The servers of one run.

    Args:
        directory: Scratch directory for configuration, logs and the origin's files.
        gateway_core: CPU number of the gateways.
        load_core: CPU number of origins and load generators.
    """

    def __init__(self, directory: Path, *, gateway_core: int, load_core: int) -> None:
        self._directory = directory
        self._gateway_core = gateway_core
        self._load_core = load_core

    def start_origin(self, origin: Origin, stack: ExitStack) -> int:
        """Start an origin that ends with `stack`; gives its port."""
        port = free_port()
        name = f"origin-{origin.value}"
        if origin is Origin.ASGI:
            command = _uvicorn("tests.benchmarks.contenders.asgi:app", port)
        else:
            addresses = nginx.loopback_addresses(_MANY if origin is Origin.MANY else 1)
            command = _nginx(nginx.origin_config(self._directory / name, port, addresses))
        self._start(name, command, port, self._load_core, {}, stack)
        return port

    def start_gateway(
        self,
        contender: Contender,
        origin: Origin,
        origin_port: int,
        stack: ExitStack,
        wrapper: Sequence[str] = (),
        server: str = "uvicorn",
    ) -> Server:
        """Start a gateway that ends with `stack`.

        Args:
            contender: The gateway.
            origin: What it forwards to.
            origin_port: The port of the origin.
            stack: Ends the gateway.
            wrapper: Program and arguments that the gateway runs under.
            server: Module that runs the app, with uvicorn's arguments.

        Raises:
            ServerError: It, or the installation of its packages, failed.
        """
        port = free_port()
        name = f"{contender.name}-{origin.value}"
        if contender.app is None:
            path = self._directory / name
            command = _nginx(nginx.proxy_config(path, port, f"127.0.0.1:{origin_port}"))
        else:
            command = _uvicorn(f"tests.benchmarks.contenders.{contender.app}", port, server)
            if contender.commit is not None:
                package = self._package_of(contender.commit)
                command += ["--app-dir", str(package)]
        addresses = nginx.loopback_addresses(contender.destinations)
        environment = {
            "BENCH_ORIGIN": f"http://127.0.0.1:{origin_port}",
            "UPSTREAM_ORIGIN_DESTINATIONS": ",".join(
                f"http://{host}:{origin_port}" for host in addresses
            ),
            "PYTHONPATH": os.pathsep.join(_search_path(contender.packages)),
            "PYTHONSAFEPATH": "1",  # the working directory has the package of this commit
            **dict(contender.environment),
            **(self._start_store(stack) if contender.store else {}),
        }
        return self._start(name, [*wrapper, *command], port, self._gateway_core, environment, stack)

    def _start_store(self, stack: ExitStack) -> dict[str, str]:
        """Start a store that ends with `stack`; gives the settings of an app that has it."""
        with pinned(self._load_core):
            store = stack.enter_context(RedisServer())
        return {
            "FASTAPI_PROXY_CLUSTER__STORE": store.url,
            "FASTAPI_PROXY_CLUSTER__NAME": "benchmark",
            "FASTAPI_PROXY_CLUSTER__KEY": "k" * 16,
            # All is slow under valgrind; and its many seconds are not to be counted in reports.
            "FASTAPI_PROXY_CLUSTER__TIMEOUT": "10",
            "FASTAPI_PROXY_CLUSTER__SNAPSHOT_INTERVAL": "3600",
        }

    def _package_of(self, commit: str) -> Path:
        """Extract the package as it was at `commit`; gives the directory it is in."""
        target = self._directory / f"commit-{commit}"
        if not target.exists():
            target.mkdir()
            archive = ["git", "-C", str(_REPOSITORY), "archive", commit, "fastapi_proxy_di"]
            done = subprocess.run(archive, capture_output=True, check=False)
            if done.returncode != 0:
                raise ServerError(done.stderr.decode(errors="replace")[-300:])
            subprocess.run(["tar", "-x", "-C", str(target)], input=done.stdout, check=True)
        return target

    def _start(
        self,
        name: str,
        command: Sequence[str],
        port: int,
        core: int,
        environment: dict[str, str],
        stack: ExitStack,
    ) -> Server:
        log = self._directory / f"{name}.log"
        server = Server(command, core=core, port=port, log=log, environment=environment)
        stack.callback(server.stop)
        server.wait_listening()
        return server


def _uvicorn(app: str, port: int, server: str = "uvicorn") -> list[str]:
    return [
        *(sys.executable, "-m", server, app),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--loop", "uvloop", "--http", "httptools", "--ws", "websockets-sansio"),
        *("--no-access-log", "--log-level", "warning"),
        *("--timeout-graceful-shutdown", "1"),
    ]


def _nginx(config: Path) -> list[str]:
    return ["nginx", "-c", str(config), "-e", "stderr"]


def _search_path(packages: Sequence[str]) -> list[str]:
    paths = [str(_REPOSITORY)]
    if packages:
        paths.append(str(_installed(packages)))
    return paths


def _installed(packages: Sequence[str]) -> Path:
    """The directory that holds exactly `packages`; their dependencies are this environment's."""
    key = "\n".join((*packages, sys.version))
    target = _CACHE / hashlib.sha256(key.encode()).hexdigest()[:16]
    if not target.exists():
        partial = target.with_suffix(".partial")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade"]
        done = subprocess.run(
            [*command, "--target", str(partial), *packages],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise ServerError(f"pip: {done.stderr[-300:]}")
        partial.rename(target)
    return target
