"""``check``: validates settings and probes destinations."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastapi_proxy_di.cli import main
from tests.support.processes import package
from tests.support.servers import dead_port


@pytest.fixture
def listening() -> Iterator[int]:
    """A port that accepts connections and never sends anything."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def test_check_connects_where_there_is_no_health_path(
    listening: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A connection is enough for exit status 0."""
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", f"http://127.0.0.1:{listening}")

    status = main(["check", "billing"])

    lines = capsys.readouterr().out.splitlines()
    assert status == 0
    assert lines[0].split() == ["upstream", "destination", "probe", "result", "time"]
    assert lines[1].split()[:4] == ["billing", f"http://127.0.0.1:{listening}", "connection", "ok"]


def test_check_names_the_destination_that_refuses(
    listening: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One refused connection of two gives exit status 1."""
    dead = f"http://127.0.0.1:{dead_port()}"
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", f"http://127.0.0.1:{listening},{dead}")

    status = main(["check", "billing"])

    _, good, bad, *_ = capsys.readouterr().out.splitlines()
    assert status == 1
    assert " ok " in good
    assert dead in bad
    assert "cannot connect" in bad


def test_check_connects_by_tls_to_https(
    listening: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A port that speaks no TLS fails."""
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", f"https://127.0.0.1:{listening}")
    monkeypatch.setenv("UPSTREAM_BILLING_TIMEOUTS__CONNECT", "50ms")

    status = main(["check", "billing"])

    out = capsys.readouterr().out
    assert status == 1
    assert "TLS connection" in out
    assert "in time" in out


@pytest.mark.e2e
async def test_check_probes_the_health_path_of_every_upstream() -> None:
    """The response status decides; both upstreams are in one table."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        status = b"200 OK" if head.startswith(b"GET /well ") else b"500 Oh"
        writer.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        environment = {
            "UPSTREAM_BILLING_DESTINATIONS": url,
            "UPSTREAM_BILLING_HEALTH__PATH": "/well",
            "UPSTREAM_SEARCH_DESTINATIONS": url,
            "UPSTREAM_SEARCH_HEALTH__PATH": "/ill",
            "UPSTREAM_SEARCH_POLICI": "first",
        }
        async with package("check", "billing", "search", environment=environment) as running:
            status = await running.end()

    warning, _, good, bad, *_ = running.lines
    assert status == 1
    assert "UPSTREAM_SEARCH_POLICI" in warning
    assert good.split()[:5] == ["billing", url, "GET", "/well", "ok"]
    assert bad.split() == ["search", url, "GET", "/ill", "status", "500", "-"]


@pytest.mark.parametrize("health", [{}, {"UPSTREAM_BILLING_HEALTH__PATH": "/"}])
def test_check_reports_an_unusable_certificate(
    health: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A fault found only on composing the upstream gives exit status 2."""
    bad = tmp_path / "roots.pem"
    bad.write_text("not a certificate")
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", "https://127.0.0.1:9")
    monkeypatch.setenv("UPSTREAM_BILLING_TLS__CA_FILE", str(bad))
    for name, value in health.items():
        monkeypatch.setenv(name, value)

    status = main(["check", "billing"])

    assert status == 2
    assert "upstream 'billing': " in capsys.readouterr().err


_SCRIPT = "import sys; from fastapi_proxy_di.cli import main; sys.exit(main())"


@pytest.mark.e2e
@pytest.mark.parametrize("as_script", [True, False])
def test_check_imports_from_the_working_directory(
    as_script: bool, listening: int, tmp_path: Path
) -> None:
    """The console script and ``python -m`` find a policy in the working directory."""
    script = tmp_path / "bin" / "fastapi-proxy-di"
    script.parent.mkdir()
    script.write_text(_SCRIPT)
    (tmp_path / "near.py").write_text(
        "class Near:\n    name = 'near'\n    def pick(self, available, request): ...\n"
    )

    program = [str(script)] if as_script else ["-m", "fastapi_proxy_di"]
    done = subprocess.run(
        [sys.executable, *program, "check", "billing"],
        cwd=tmp_path,
        env=os.environ
        | {
            "UPSTREAM_BILLING_DESTINATIONS": f"http://127.0.0.1:{listening}",
            "UPSTREAM_BILLING_POLICY": "near:Near",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr


def test_check_reports_every_fault_of_the_settings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Faults of both upstreams are in one message; exit status 2."""
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", "ftp://x")

    status = main(["check", "billing", "search"])

    error = capsys.readouterr().err
    assert status == 2
    assert "UPSTREAM_BILLING_DESTINATIONS" in error
    assert "UPSTREAM_SEARCH_DESTINATIONS" in error


def test_check_reports_late_faults_with_all_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Faults found on composing are reported beside others and a mistyped variable."""
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", "http://127.0.0.1:9")
    monkeypatch.setenv("UPSTREAM_BILLING_POLICY", "nowhere.to_be_found:Policy")
    monkeypatch.setenv("UPSTREAM_SEARCH_DESTINATION", "http://127.0.0.1:9")

    status = main(["check", "billing", "search"])

    error = capsys.readouterr().err
    assert status == 2
    assert "policy (UPSTREAM_BILLING_POLICY): 'nowhere.to_be_found:Policy' cannot be" in error
    assert "destinations (UPSTREAM_SEARCH_DESTINATIONS): is required" in error
    assert "did you mean UPSTREAM_SEARCH_DESTINATIONS?" in error


def test_check_ended_by_ctrl_c_prints_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C gives exit status 130."""

    def interrupt(names: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("fastapi_proxy_di.cli.check.run", interrupt)

    assert main(["check", "billing"]) == 130


def test_check_shows_the_source_of_values_and_no_secret(
    listening: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each setting that is not a default is shown with its variable; secrets are masked."""
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", f"http://127.0.0.1:{listening}")
    monkeypatch.setenv("UPSTREAM_BILLING_TIMEOUTS__CONNECT", "500ms")
    monkeypatch.setenv("UPSTREAM_BILLING_REQUEST_HEADERS__X_KEY", "hush")

    main(["check", "billing"])

    out = capsys.readouterr().out
    rows = [line.split() for line in out.partition("\n\n")[2].splitlines()]
    assert rows == [
        ["upstream", "setting", "value", "source"],
        [
            "billing",
            "destinations",
            f"http://127.0.0.1:{listening}",
            "UPSTREAM_BILLING_DESTINATIONS",
            "(environment)",
        ],
        [
            "billing",
            "request_headers.x-key",
            "**********",
            "UPSTREAM_BILLING_REQUEST_HEADERS__X_KEY",
            "(environment)",
        ],
        [
            "billing",
            "timeouts.connect",
            "0.5",
            "UPSTREAM_BILLING_TIMEOUTS__CONNECT",
            "(environment)",
        ],
    ]
    assert "hush" not in out


def test_check_of_a_class_lists_its_own_fields(
    listening: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With their sources; their values may be secrets, so none is shown."""
    (tmp_path / "shop_settings.py").write_text(
        "from fastapi_proxy_di import Destinations, UpstreamSettings\n"
        "class Billing(UpstreamSettings, name='billing'):\n"
        f"    destinations: Destinations = ['http://127.0.0.1:{listening}']\n"
        "    preserve_host: bool = True\n"
        "    tenant: str = 'hush'\n"
        "    licence: str\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("UPSTREAM_BILLING_LICENCE", "hush")

    status = main(["check", "shop_settings:Billing"])

    output = capsys.readouterr()
    _, *rows = map(str.split, output.out.partition("\n\n")[2].splitlines())
    assert status == 0, output.err
    assert rows == [
        ["billing", "destinations", f"http://127.0.0.1:{listening}", "class", "default"],
        ["billing", "licence", "(own", "field)", "UPSTREAM_BILLING_LICENCE", "(environment)"],
        ["billing", "preserve_host", "True", "class", "default"],
        ["billing", "tenant", "(own", "field)", "class", "default"],
    ]
    assert "hush" not in output.out + output.err


def test_check_reads_the_settings_of_the_app(
    listening: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table has their sources; a misspelt variable is a warning, a fault is status 2."""
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", f"http://127.0.0.1:{listening}")
    monkeypatch.setenv("FASTAPI_PROXY_TELEMETRY__TRACING", "false")
    monkeypatch.setenv("FASTAPI_PROXY_REQUESTID", "true")

    status = main(["check", "billing"])

    shown = capsys.readouterr()
    assert status == 0
    assert shown.out.splitlines()[-1].split() == [
        "(app)",
        "telemetry.tracing",
        "False",
        "FASTAPI_PROXY_TELEMETRY__TRACING",
        "(environment)",
    ]
    assert "did you mean FASTAPI_PROXY_REQUEST_ID?" in shown.err

    monkeypatch.setenv("FASTAPI_PROXY_TELEMETRY__PROPAGATE", "b3")

    assert main(["check", "billing"]) == 2
    assert "telemetry.propagate (FASTAPI_PROXY_TELEMETRY__PROPAGATE)" in capsys.readouterr().err
