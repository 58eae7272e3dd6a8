"""The demo's upstream processes."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import sys

import pytest

from fastapi_proxy_di.cli.demo.fleet import Fleet, UpstreamProcess, python_command

pytestmark = pytest.mark.e2e


async def test_fleet_starts_and_ends_all() -> None:
    """Each upstream is a process with a port of its own; all end."""
    fleet = Fleet(2)
    try:
        await fleet.start()
        pids = {upstream.pid for upstream in fleet.upstreams}
        urls = {upstream.url for upstream in fleet.upstreams}
    finally:
        await fleet.stop()

    assert [upstream.name for upstream in fleet.upstreams] == ["a", "b"]
    assert len(pids - {None, os.getpid()}) == 2
    assert len(urls) == 2
    assert all(upstream.pid is None for upstream in fleet.upstreams)


async def test_upstream_comes_back_on_its_port() -> None:
    """The new process has the same address."""
    upstream = UpstreamProcess("a")
    try:
        await upstream.start()
        first, port = upstream.pid, upstream.port
        upstream.signal(signal.SIGKILL)
        await upstream.wait()
        await upstream.start()
        second = upstream.pid
    finally:
        await upstream.stop()

    assert upstream.port == port
    assert None not in {first, second}
    assert first != second


async def test_upstream_that_cannot_start_raises_with_its_output() -> None:
    """The output of the process is in the error."""
    upstream = UpstreamProcess("a")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        upstream.port = taken.getsockname()[1]
        with pytest.raises(RuntimeError, match=r"Upstream a did not start: .*already in use"):
            await upstream.start()
    await upstream.stop()

    assert upstream.pid is None


async def test_upstream_that_ignores_sigterm_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """``stop`` sends SIGKILL after its timeout."""
    monkeypatch.setattr("fastapi_proxy_di.cli.demo.fleet._STOP_SECONDS", 0.01)
    upstream = UpstreamProcess("a")
    await upstream.start()
    upstream.signal(signal.SIGSTOP)  # a stopped process takes no SIGTERM
    await upstream.stop()

    assert upstream.pid is None


async def test_upstream_never_started_may_be_stopped() -> None:
    """``stop`` does nothing before ``start``."""
    upstream = UpstreamProcess("a")
    await upstream.stop()

    assert upstream.pid is None


def test_start_command_can_be_pasted() -> None:
    """The command names the upstream and its port."""
    upstream = UpstreamProcess("c")
    upstream.port = 4711

    words = shlex.split(upstream.start_command)

    assert words[1:] == (
        ["-m", "fastapi_proxy_di", "demo-upstream", "--name", "c", "--port", "4711"]
    )


def test_python_command_is_short_when_the_shell_finds_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The command is a word if PATH leads to this interpreter, else the full path."""
    monkeypatch.setattr("shutil.which", lambda word: sys.executable if word == "python3" else None)
    short = python_command()
    monkeypatch.setattr("shutil.which", lambda word: f"/elsewhere/{word}")
    full = python_command()

    assert short == "python3"
    assert full == sys.executable
