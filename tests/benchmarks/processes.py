"""Starts and ends processes pinned to a core, and reads their CPU seconds and memory."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_CPU_CLOCK_OF_PROCESS: Final = 2
_START_SECONDS: Final = 300.0
_STOP_SECONDS: Final = 10.0
_IDLE_SECONDS: Final = 20.0
_IDLE_PAUSE_SECONDS: Final = 0.05


class ServerError(Exception):
    """A server did not start; the message carries the end of its output."""


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Let processes started in the block inherit an affinity to `core` alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_port() -> int:
    """Give a loopback TCP port that no process listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """One server process with its children, pinned to a core.

    Args:
        command: Program and arguments.
        core: CPU number the process tree may run on.
        port: Loopback TCP port that it will listen on.
        log: File that receives its output.
        environment: Variables added to ours.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        core: int,
        port: int,
        log: Path,
        environment: Mapping[str, str],
    ) -> None:
        self.port = port
        self._log = log
        self._baseline_rss_bytes = 0
        with pinned(core), log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Process ID."""
        return self._process.pid

    def wait_listening(self) -> None:
        """Return when the port accepts connections.

        Raises:
            ServerError: It ended, or was not ready within five minutes (valgrind is slow).
        """
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise ServerError(self.log_tail())
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise ServerError(f"not listening after {_START_SECONDS:g} s\n{self.log_tail()}")

    def log_tail(self) -> str:
        """The last lines of its output."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-6:])

    def cpu_seconds(self) -> float:
        """User and system time of all threads of the process and its children, in seconds."""
        return sum(_cpu_seconds(pid) for pid in self._tree())

    def rss_bytes(self) -> int:
        """Resident memory of the process tree now."""
        return sum(_status_bytes(pid, "VmRSS") for pid in self._tree())

    def baseline_rss_bytes(self) -> int:
        """Lowest resident memory that this method has found so far.

        What a first round allocated stays with the process: later rounds count from where it began.
        """
        self._baseline_rss_bytes = min(self.rss_bytes(), self._baseline_rss_bytes or sys.maxsize)
        return self._baseline_rss_bytes

    def peak_rss_bytes(self) -> int:
        """Highest resident memory since the start or the last `reset_peak_rss`."""
        return sum(_status_bytes(pid, "VmHWM") for pid in self._tree())

    def wait_idle(self) -> None:
        """Return when it uses less than a tenth of its core, at the latest after 20 seconds."""
        deadline = time.monotonic() + _IDLE_SECONDS
        before = self.cpu_seconds()
        while time.monotonic() < deadline:
            time.sleep(_IDLE_PAUSE_SECONDS)
            now = self.cpu_seconds()
            if now - before < _IDLE_PAUSE_SECONDS / 10:
                return
            before = now

    def reset_peak_rss(self) -> None:
        """Start the peak anew from the memory resident now."""
        for pid in self._tree():
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def stop(self) -> None:
        """End the process, by force after 10 seconds."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()

    def _tree(self) -> list[int]:
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]


def _cpu_seconds(pid: int) -> float:
    # The process's CPU clock (clock_getcpuclockid(3)): utime and stime of /proc/PID/stat, ended
    # threads included, in nanoseconds instead of ticks of 10 ms.
    return time.clock_gettime((~pid << 3) | _CPU_CLOCK_OF_PROCESS)


def _status_bytes(pid: int, key: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"{key} missing in /proc/{pid}/status")
