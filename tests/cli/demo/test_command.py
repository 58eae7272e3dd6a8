"""``demo``: the command with real upstream processes."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from pathlib import Path

import pytest

from fastapi_proxy_di.cli import main
from fastapi_proxy_di.cli.demo import command as demo
from fastapi_proxy_di.cli.demo.fleet import Fleet
from fastapi_proxy_di.cli.demo.live import how_to_reach
from tests.support.processes import package
from tests.support.terminal import package_in_terminal

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def upstream_pids(parent: int) -> list[int]:
    """The processes that a demo has started, by what the system says."""
    children = Path(f"/proc/{parent}/task/{parent}/children")
    return [int(pid) for pid in children.read_text().split()]


def alive(pid: int) -> bool:
    """Whether the process is there."""
    return Path(f"/proc/{pid}").exists()


async def test_once_loses_no_request_while_upstreams_restart() -> None:
    """``demo --once`` ends with 0."""
    async with package("demo", "--once") as running:
        status = await running.end()

    text = "\n".join(running.lines)
    assert status == 0, text
    assert re.search(r"^SIGTERM to upstream a, pid \d+$", text, re.MULTILINE)
    assert re.search(r"^SIGKILL to upstream b, pid \d+$", text, re.MULTILINE)
    assert len(re.findall(r"started again, pid \d+, has traffic after", text)) == 2
    assert re.search(r"^0 failed of \d{3,} requests\.$", text, re.MULTILINE)
    assert "Traceback" not in text
    assert "\x1b" not in text


async def test_demo_shows_commands_that_work() -> None:
    """Each printed command gets its response; Ctrl-C leaves no process behind."""
    async with package("demo", "--port", "0", "--upstreams", "2") as running:
        base = (await running.line(r"^Gateway: (http://\S+)"))[1]
        await running.line(r"^a: kill \d+ ")
        commands = dict(how_to_reach(base))
        children = upstream_pids(running.pid)
        responses = {name: await shell(commands[name]) for name in ("JSON", "POST", "Upload")}
        echo = await typed(commands["WebSocket"], "hello")
        page, metrics = [
            await shell(f"curl -s {commands[name]}") for name in ("Status page", "Metrics")
        ]
        foreign = await shell(f"curl -s -H 'Host: evil.example' {commands['Status page']}")
        running.signal(signal.SIGINT)
        status = await running.end()

    assert foreign == "Invalid host header"
    assert f"WebSocket     {commands['WebSocket']}" in running.lines
    assert '"pid":' in responses["JSON"]
    assert '"order":{"tea":2}' in responses["POST"]
    assert echo in {"a", "b"}
    assert "<title>Upstreams</title>" in page
    assert 'data-action="drain"' in page
    assert re.search(
        r'^proxy_attempts_total\{.*proxy_destination="http://127', metrics, re.MULTILINE
    )
    assert '"bytes":50000000' in responses["Upload"]
    assert len(children) == 2
    assert not any(alive(pid) for pid in children)
    assert status == 130
    assert not any("Traceback" in line for line in running.lines)


async def test_killed_upstream_returns_when_started_by_hand() -> None:
    """The printed command restarts it; the process outlives the demo."""
    async with package("demo", "--port", "0", "--upstreams", "2") as running:
        pid = int((await running.line(r"^a: kill (\d+) "))[1])
        os.kill(pid, signal.SIGKILL)
        down = await running.line(r"^a  http://127\.0\.0\.1:(\d+) +- +(?:down|ejected)")
        again = ("demo-upstream", "--name", "a", "--port", down[1])
        async with package(*again) as by_hand:
            await by_hand.line("^listening on ")
            up = await running.line(r"^a  http://127\.0\.0\.1:\d+ +(\d+) +up")
            running.signal(signal.SIGTERM)
            status = await running.end()
            survived = by_hand.status is None

    assert int(up[1]) == by_hand.pid
    assert survived
    assert status == 143


async def test_demo_killed_leaves_no_upstream_behind() -> None:
    """Upstreams end when the demo is killed by SIGKILL."""
    async with package("demo", "--port", "0", "--upstreams", "1") as running:
        await running.line(r"^a: kill \d+ ")
        children = upstream_pids(running.pid)
        running.signal(signal.SIGKILL)
        await running.end()
        async with asyncio.timeout(10):
            while any(alive(pid) for pid in children):  # noqa: ASYNC110 - not our child
                await asyncio.sleep(0.05)

    assert len(children) == 1


@pytest.mark.parametrize(("width", "height"), [(80, 24), (60, 20), (200, 50)])
async def test_terminal_shows_addresses_commands_and_the_log(width: int, height: int) -> None:
    """On one screen, also after the death of an upstream."""
    async with package_in_terminal("demo", "--port", "0", width=width, height=height) as (
        terminal,
        process,
    ):
        base = (await terminal.shows(r"^Starting 3 upstreams behind (http://\S+) \.\.\.$"))[1]
        await terminal.shows(rf"^Gateway: {base} \(Ctrl-C ends everything\)$")
        await terminal.shows(rf"^Status page: {base}/upstreams/ ")
        await terminal.shows(r"^\d\d:\d\d:\d\d all have started")
        pid = int((await terminal.shows(r"^a: kill (\d+)  or  kill -9 \1$"))[1])
        response = await shell(f"curl -s {base}/")
        os.kill(pid, signal.SIGKILL)
        a = (await terminal.shows(r"^a  http://127\.0\.0\.1:(\d+) .*down"))[1]
        await terminal.shows(rf"^\d\d:\d\d:\d\d demo: http://127\.0\.0\.1:{a}\s+is down")
        await terminal.shows(rf"demo-upstream[\s\\]+--name[\s\\]+a[\s\\]+--port[\s\\]+{a}$")
        lines = terminal.lines
        process.send_signal(signal.SIGINT)
        status = await process.wait()

    assert '"pid":' in response
    assert f"Gateway: {base} (Ctrl-C ends everything)" in lines
    assert len([line for line in lines if "http://127.0.0.1:" in line and "  up  " in line]) == 2
    assert "…" not in "\n".join(lines)
    assert b"\x1b[32m" in terminal.raw
    assert status == 130
    assert b"Traceback" not in terminal.raw


@pytest.mark.parametrize(
    ("environment", "codes"),
    [({"NO_COLOR": "1"}, rb"\x1b\[[\d;]*3[0-7]m"), ({"TERM": "dumb"}, rb"\x1b")],
)
async def test_terminal_without_colours_gets_none(
    environment: dict[str, str], codes: bytes
) -> None:
    """A dumb terminal gets no control codes at all; both show the same text."""
    async with package_in_terminal(
        "demo", "--port", "0", "--upstreams", "2", width=80, height=24, environment=environment
    ) as (terminal, process):
        await terminal.shows(r"^b  http://127\.0\.0\.1:\d+  up .*\n.*GET [1-9]")
        process.send_signal(signal.SIGINT)
        status = await process.wait()

    assert re.search(codes, terminal.raw) is None
    assert status == 130


def activated() -> dict[str, str]:
    """Make the environment of a shell in which this interpreter is ``python``."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path}


async def shell(line: str) -> str:
    """Give the output of a line typed into a shell."""
    process = await asyncio.create_subprocess_shell(
        line, stdout=asyncio.subprocess.PIPE, env=activated()
    )
    out, _ = await process.communicate()
    return out.decode()


async def typed(line: str, message: str) -> str:
    """Type into an interactive command; give the name that is echoed."""
    process = await asyncio.create_subprocess_shell(
        line,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**activated(), "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{message}\n".encode())
    shown = ""
    async with asyncio.timeout(10):
        while not (echo := re.search(rf"< (\w): {message}", shown)):
            data = await process.stdout.read(1024)
            assert data, shown
            shown += data.decode()
        process.stdin.close()
        await process.communicate()
    return echo[1]


def test_demo_reports_a_port_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 2 and one line."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status = main(["demo", "--port", str(port)])

    assert status == 2
    assert capsys.readouterr().err == (
        f"Cannot listen on 127.0.0.1 port {port}: Address already in use\n"
    )


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ExceptionGroup("starting", [RuntimeError("Upstream a did not start")]), "Upstream a did"),
        (TimeoutError("upstream a got no request"), "FAILED upstream a got no request"),
    ],
)
def test_demo_reports_an_upstream_that_does_not_start(
    error: Exception,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An upstream that does not start or return gives exit status 1, no traceback."""

    async def fail(listening: socket.socket, fleet: Fleet) -> int:
        raise error

    monkeypatch.setattr(demo, "_once", fail)

    status = main(["demo", "--once"])

    assert status == 1
    assert capsys.readouterr().err.startswith(said)


def test_demo_ended_by_sigterm_has_its_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit status is 128 plus the number of the signal."""

    async def terminated(listening: socket.socket, fleet: Fleet) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        return await asyncio.Future()

    monkeypatch.setattr(demo, "_once", terminated)

    assert main(["demo", "--once"]) == 143
