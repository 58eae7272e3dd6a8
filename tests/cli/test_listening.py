"""Listening sockets of the commands."""

from __future__ import annotations

import socket

import pytest

from fastapi_proxy_di.cli.listening import listen, url


@pytest.mark.parametrize(
    ("host", "shown"), [("127.0.0.1", "http://127.0.0.1:{}"), ("::1", "http://[::1]:{}")]
)
def test_listen_takes_a_free_port(host: str, shown: str) -> None:
    """IPv4 and IPv6 sockets listen, and ``url`` gives their URL."""
    listening = listen(host, 0)
    assert listening is not None

    with listening:
        assert listening.proto == socket.IPPROTO_TCP  # else asyncio leaves Nagle on
        assert url(listening) == shown.format(listening.getsockname()[1])


def test_listen_reports_a_port_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    """A message is on the standard error."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        listening = listen("127.0.0.1", port)

    assert listening is None
    assert capsys.readouterr().err == (
        f"Cannot listen on 127.0.0.1 port {port}: Address already in use\n"
    )


def test_listen_reports_an_unknown_host(capsys: pytest.CaptureFixture[str]) -> None:
    """A message is on the standard error."""
    assert listen("no-such-host.invalid", 0) is None
    assert "Cannot listen on no-such-host.invalid port 0: " in capsys.readouterr().err
