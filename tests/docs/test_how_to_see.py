"""The page "See what it does" works as it is written: its commands run in one shell, in order.

Only the ports and the intervals of scrapes and exports are others.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import metadata
from pathlib import Path
from typing import IO, Any, Final

import httpx
import pytest

from tests.docs.conftest import SNIPPETS
from tests.support.servers import free_port

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(300),  # eight processes start, one after the other
    pytest.mark.skipif(not shutil.which("prometheus"), reason="needs Debian's prometheus"),
]

PAGE: Final = (SNIPPETS.parent / "how-to" / "see-what-it-does.md").read_text()
FILES: Final = ("seen/invoices_service.py", "seen/observed.py", "seen/traces.py")
BLOCKS: Final[list[str]] = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
INSTALL, START, LOAD, STATUS, PROMETHEUS, QUERY, TRACE, KILL, RETRIED, AGAIN, READMIT, END = BLOCKS
(GRAPH,) = re.findall(r"^```promql\n(.*)\n```$", PAGE, re.MULTILINE)
LOGIN: Final = ("operator", "change-me")
_SECONDS: Final = 60.0


class Shell:
    """A shell in a folder with the files of the page.

    Args:
        folder: An empty folder.

    Attributes:
        ports: The port of each server, by the one on the page.
    """

    def __init__(self, folder: Path) -> None:
        self.ports = {port: free_port() for port in ("4318", "9001", "9002", "8000", "9090")}
        self._folder = folder
        self._runs = 0
        for file in FILES:
            # Not copied: coverage measures the files of the documentation.
            (folder / Path(file).name).symlink_to(SNIPPETS / "how_to" / file)
        settings = (SNIPPETS / "how_to" / "seen" / "prometheus.yml").read_text()
        (folder / "prometheus.yml").write_text(self._replaced(settings))
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._process = subprocess.Popen(
            ["/bin/bash"],
            cwd=folder,
            env={**os.environ, "PATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def url(self, port: str, path: str = "/") -> str:
        """Give a URL by the port that the page names."""
        return f"http://127.0.0.1:{self.ports[port]}{path}"

    def run(self, block: str) -> str:
        """Run commands of the page; give what those in the foreground have printed."""
        self._runs += 1
        printed = self._folder / f"{self._runs}.log"
        self._say(f"{{\n{self._replaced(block)}\n}} >{printed.name} 2>&1\necho ready\n")
        stdout: IO[str] | None = self._process.stdout
        assert stdout is not None
        assert stdout.readline() == "ready\n"
        return printed.read_text()

    def log(self) -> str:
        """Give what has been printed by the commands that are in the background."""
        return "".join(file.read_text() for file in sorted(self._folder.glob("*.log")))

    def end(self) -> None:
        """End the shell, after what runs in it."""
        self._say(f"{END}\nwait\nexit\n")
        self._process.communicate(timeout=_SECONDS)

    def _say(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text)
        self._process.stdin.flush()

    def _replaced(self, text: str) -> str:
        for old, new in self.ports.items():
            text = re.sub(rf"(:|--port ){old}\b", rf"\g<1>{new}", text)
        text = text.replace("scrape_interval: 5s", "scrape_interval: 200ms")
        return text.replace("SCHEDULE_DELAY=1000", "SCHEDULE_DELAY=100")


@dataclass(slots=True)
class Seen:
    """What a reader of the page sees, in order.

    Attributes:
        shell: The shell of the reader.
        open: Status of each address without a login and with a wrong one.
        page: The status page.
        status: The same as data.
        attempts: Attempts per second by destination, as Prometheus knows them.
        trace: Traces of requests.
        page_after: The status page after the end of a destination.
        retried: Traces of requests that found no connection.
        log: What the gateway has logged.
        again: The states after the restart of the destination.
    """

    shell: Shell
    open: list[int] = field(default_factory=list)
    page: str = ""
    status: dict[str, Any] = field(default_factory=dict)
    attempts: dict[str, float] = field(default_factory=dict)
    trace: str = ""
    page_after: str = ""
    retried: str = ""
    log: str = ""
    again: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """Follow the page from its first command to its last."""
    shell = Shell(tmp_path_factory.mktemp("seen"))
    try:
        yield _follow(Seen(shell))
    finally:
        shell.end()


def _follow(seen: Seen) -> Seen:
    shell, page = seen.shell, seen.shell.url("8000", "/upstreams/")
    shell.run(START)
    for port in ("4318", "9001", "9002", "8000"):
        until(lambda port=port: reached(shell.url(port)))  # type: ignore[misc]
    until(lambda: all_available(states(shell.run(STATUS))))
    shell.run(LOAD)
    addresses = (page, shell.url("8000", "/metrics"))
    seen.open = [httpx.get(url, timeout=_SECONDS).status_code for url in addresses]
    seen.open.append(httpx.get(page, auth=("operator", "guess"), timeout=_SECONDS).status_code)
    seen.page = httpx.get(page, auth=LOGIN, timeout=_SECONDS).text
    seen.status = json.loads(shell.run(STATUS))
    shell.run(PROMETHEUS)
    # Before that Prometheus refuses queries, with a text instead of JSON.
    until(lambda: reached(shell.url("9090", "/-/ready"), 200))
    seen.attempts = until(lambda: attempts(shell.run(QUERY)))
    seen.trace = until(lambda: tree(shell.run(TRACE), "invoices: GET"))
    shell.run(KILL)
    until(lambda: states(shell.run(STATUS))[1] != "available")
    seen.page_after = httpx.get(page, auth=LOGIN, timeout=_SECONDS).text
    seen.retried = until(lambda: tree(shell.run(RETRIED), "connect"))
    seen.log = shell.log()
    shell.run(AGAIN)
    until(lambda: reached(shell.url("9002")))
    shell.run(READMIT)
    seen.again = until(lambda: all_available(states(shell.run(STATUS))))
    return seen


def until(check: Callable[[], Any]) -> Any:
    """Call a function until it gives something; give that."""
    deadline = time.monotonic() + _SECONDS
    while not (found := check()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def reached(url: str, status: int | None = None) -> bool:
    """Whether a server responds with a status; ``None``: whatever it says."""
    try:
        found = httpx.get(url).status_code
    except httpx.TransportError:
        return False
    return status in (None, found)


def states(text: str) -> list[str]:
    """Give the states of the destinations, in the order of the settings."""
    (upstream,) = json.loads(text)["upstreams"]
    return [one["state"] for one in upstream["destinations"]]


def all_available(found: list[str]) -> list[str]:
    """Give the states if each is available."""
    return found if set(found) == {"available"} else []


def attempts(text: str) -> dict[str, float]:
    """Give the result of the query by destination, once both have traffic."""
    result = json.loads(text)["data"]["result"]
    found = {one["metric"]["proxy_destination"]: float(one["value"][1]) for one in result}
    return found if len(found) == 2 and all(found.values()) else {}


def tree(text: str, part: str) -> str:
    """Give the last tree with a part, once the spans of both processes are in it."""
    whole = [one for one in text.split("\n\n") if part in one and "invoices: GET" in one]
    return whole[-1] if whole else ""


def normalised(text: str, ports: dict[str, int]) -> str:
    """Give a tree as the page shows it: the ports of the page, and no times."""
    for old, new in ports.items():
        text = text.replace(f":{new}", f":{old}")
    return re.sub(r", [\d.]+ ms", "", text).strip()


def test_what_is_installed_exists() -> None:
    """The extras of the first command are extras of the packages."""
    named = dict(re.findall(r"'([\w-]+)\[([\w,]+)\]'", INSTALL))

    assert named.keys() == {"fastapi-proxy-di", "fastapi"}
    for name, extras in named.items():
        assert set(extras.split(",")) <= set(metadata(name).get_all("Provides-Extra") or ())


def test_the_files_are_those_of_the_page() -> None:
    """Each file of the folder is shown."""
    folder = SNIPPETS / "how_to" / "seen"

    shown = set(re.findall(r'--8<-- "how_to/(seen/[\w.]+)"', PAGE))
    assert shown == {f"seen/{file.name}" for file in folder.iterdir() if file.is_file()}


def test_nothing_is_open_to_everybody(seen: Seen) -> None:
    """Page and metrics want the password."""
    assert seen.open == [401, 401, 401]


def test_status_page_has_each_destination_and_its_actions(seen: Seen) -> None:
    """As HTML and as data."""
    urls = [seen.shell.url(port, "") for port in ("9001", "9002")]

    assert all(f'aria-label="drain {url}"' in seen.page for url in urls)
    assert [one["url"] for one in seen.status["upstreams"][0]["destinations"]] == urls
    assert seen.status["actions"] is True


def test_prometheus_accepts_the_settings(seen: Seen, tmp_path: Path) -> None:
    """As they are on the page."""
    file = SNIPPETS / "how_to" / "seen" / "prometheus.yml"
    check = ["promtool", "check", "config", str(file)]
    run = subprocess.run(check, capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stdout + run.stderr
    assert len(file.read_text().splitlines()) == 6


def test_query_has_a_value_for_each_destination(seen: Seen) -> None:
    """The query of the graph and that of the command are one."""
    assert seen.attempts.keys() == {seen.shell.url(port, "") for port in ("9001", "9002")}
    assert all(0 < rate < 1000 for rate in seen.attempts.values())
    assert f"query={GRAPH}'" in QUERY


def test_trace_is_one_tree(seen: Seen) -> None:
    """The attempt is below the gateway's span, and the destination's span below the attempt."""
    shown, found = _shown_trees()[0], normalised(seen.trace, seen.shell.ports)

    assert _any_port(found) == _any_port(shown)


def test_retry_is_two_attempts_in_one_tree(seen: Seen) -> None:
    """The first has found no connection, the second has the response."""
    assert normalised(seen.retried, seen.shell.ports) == _shown_trees()[1]


def test_end_of_a_destination_is_on_the_page_and_in_the_log(seen: Seen) -> None:
    """State and reason; a warning with upstream, destination and reason; no failed client."""
    url = seen.shell.url("9002", "")

    (row,) = re.findall(rf'<tr data-url="{url}"[^>]*>', seen.page_after)
    assert re.search(r'data-state="(ejected|unhealthy)" data-reason="\w', row)
    assert re.search(rf"WARNING billing: {url} is (ejected|down) \(.*connect", seen.log)
    # A probe that finds nobody says "Connect call failed" in the reason; no client failed then.
    out = re.compile(r"WARNING billing: \S+ is (ejected|down) \(")
    failed = [line for line in seen.log.splitlines() if " failed" in line and not out.search(line)]
    assert failed == []


def test_destination_returns(seen: Seen) -> None:
    """Both are available again."""
    assert seen.again == ["available", "available"]


def _shown_trees() -> list[str]:
    trees = re.findall(r"^```text\n(gateway: .*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return [normalised(tree, {}) for tree in trees]


def _any_port(tree: str) -> str:
    return tree.replace(":9002 ", ":9001 ")
