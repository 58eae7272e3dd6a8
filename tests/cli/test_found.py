"""``check`` with sources of destinations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import dns.message
import dns.rcode
import pytest

from fastapi_proxy_di.cli import main
from fastapi_proxy_di.discovery import discovery
from tests.discovery.plug_in import installed
from tests.support.dns_servers import reply, scripted_dns
from tests.support.servers import dead_port


def test_check_shows_what_a_file_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each destination is probed as well."""
    dead = f"http://127.0.0.1:{dead_port()}"
    path = tmp_path / "a.toml"
    path.write_text(f'destinations = [{{url = "{dead}", weight = 2, tier = 1}}]')
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", f"file://{path}")
    status = main(["check", "billing"])
    out = capsys.readouterr().out.splitlines()

    assert out[0].split() == ["upstream", "source", "destination", "tier", "weight", "TTL", "fault"]
    assert out[1].split() == ["billing", f"file://{path}", dead, "1", "2", "1", "s"]
    assert any(dead in line and "cannot connect" in line for line in out[3:])
    assert status == 1


def test_check_shows_sources_without_destinations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the reason, or that there is no response; a query is not shown."""
    monkeypatch.setattr(discovery, "START_SECONDS", 0.05)
    code = "import asyncio\nasync def find(search):\n    await asyncio.sleep(9)\n    yield []\n"
    installed(tmp_path, monkeypatch, code, silent="find")
    missing = f"file://{tmp_path}/a.toml"
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", f"{missing},silent://a?token=s3cret")
    status = main(["check", "billing"])
    out = capsys.readouterr().out

    assert status == 1
    assert f"there is no file {tmp_path}/a.toml" in out
    assert "it has found nothing yet" in out
    assert "s3cret" not in out


def _answers(query: dns.message.Message, by_tcp: bool) -> list[dns.message.Message]:
    if "gone" in str(query.question[0].name):
        return [reply(query, rcode=dns.rcode.NXDOMAIN)]
    return [reply(query, "api.internal. 17 IN A 127.0.0.1")]


@pytest.fixture
async def nameserver() -> AsyncIterator[str]:
    """A server in the test's loop that knows one name."""
    async with scripted_dns(_answers) as server:
        yield server.nameserver


async def test_check_shows_what_each_name_resolves_to(
    nameserver: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With its TTL; a name that does not exist is a fault."""
    port = dead_port()
    url, gone = f"dns+http://api.internal:{port}", "dns+http://gone.internal"
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", f"{url},{gone}")
    monkeypatch.setenv("UPSTREAM_BILLING_DISCOVERY__NAMESERVERS", nameserver)
    monkeypatch.setenv("UPSTREAM_BILLING_DISCOVERY__FAMILY", "ipv4")
    status = await asyncio.to_thread(main, ["check", "billing"])
    rows = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]

    assert status == 1
    assert rows[1] == f"billing {url} http://127.0.0.1:{port} 0 1 17 s"
    assert rows[2] == f"billing {gone} - - - - it has no destinations"
