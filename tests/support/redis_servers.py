"""A real redis-server of a test, on a free port of the loopback."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from redis import Redis
from redis.exceptions import RedisError

from tests.support.servers import free_port

__all__ = ["RedisServer"]


class RedisServer:
    """Runs redis-server without persistence, from ``start`` to ``stop`` or within a block.

    Args:
        *options: Further arguments, e.g. ``"--requirepass", "secret"``.
        password: The password that the server asks for.
        port: The port, ``0`` for a free one.
    """

    def __init__(self, *options: str, password: str = "", port: int = 0) -> None:
        self.port = port or free_port()
        self._options = options
        self._password = password
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="redis-")
        self.client = Redis(port=self.port, password=password or None, socket_timeout=5)

    @property
    def url(self) -> str:
        """Address of the server, as ``cluster.store`` takes it."""
        login = f":{self._password}@" if self._password else ""
        return f"redis://{login}127.0.0.1:{self.port}/0"

    @property
    def folder(self) -> Path:
        """The server's directory."""
        return Path(self._folder.name)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start the server with an empty database, and wait until it responds."""
        if shutil.which("redis-server") is None:
            pytest.skip("redis-server is not installed; on Debian: apt-get install redis-server")
        self._process = subprocess.Popen(
            [
                *("redis-server", "--port", str(self.port), "--bind", "127.0.0.1"),
                *("--save", "", "--appendonly", "no", "--dir", self._folder.name),
                *self._options,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 10
        while True:
            try:
                self.client.ping()
                return
            except RedisError:
                assert self._process.poll() is None, "redis-server ended at once"
                assert time.monotonic() < deadline, "redis-server does not respond"
                time.sleep(0.02)

    def pause(self) -> None:
        """Stop the server as it is (SIGSTOP): connections stay, nothing responds."""
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on."""
        self._send(signal.SIGCONT)

    def kill(self) -> None:
        """End the server at once (SIGKILL); ``start`` gives an empty one at the same port."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """End the server and remove its directory."""
        self.kill()
        self.client.close()
        self._folder.cleanup()

    def _send(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)
