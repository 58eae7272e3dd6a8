"""Listening sockets."""

from __future__ import annotations

import socket

import pytest

from fastapi_proxy_di.cli.listening import listen, url


@pytest.mark.parametrize(
    ("host", "shown"), [("127.0.0.1", "http://127.0.0.1:{}"), ("::1", "http://[::1]:{}")]
)
def test_listen_takes_a_free_port(host: str, shown: str) -> None:
    """IPv4 and IPv6, and the URL that leads there."""
    listening = listen(host, 0)
    assert listening is not None

    with listening:
        assert listening.proto == socket.IPPROTO_TCP  # else asyncio leaves Nagle on
        assert url(listening) == shown.format(listening.getsockname()[1])


def test_listen_says_that_a_port_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        listening = listen("127.0.0.1", port)

    assert listening is None
    assert capsys.readouterr().err == (
        f"Cannot listen on 127.0.0.1 port {port}: Address already in use\n"
    )


def test_listen_says_that_a_host_is_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    """A name that cannot be resolved."""
    assert listen("no-such-host.invalid", 0) is None
    assert "Cannot listen on no-such-host.invalid port 0: " in capsys.readouterr().err
