"""Reading ``/etc/hosts``."""

from __future__ import annotations

from fastapi_proxy_di.discovery.hosts_file import parse_hosts

_TEXT = """\
127.0.0.1\tlocalhost
10.0.0.1   API.internal api  # of the test
# 10.0.0.9 api
fd00::1 api.internal

10.0.0.2
not-an-address broken
"""


def test_hosts_have_all_addresses_of_a_name() -> None:
    """Names in lower case; comments, empty lines and lines without names say nothing."""
    assert parse_hosts(_TEXT) == {
        "localhost": ("127.0.0.1",),
        "api.internal": ("10.0.0.1", "fd00::1"),
        "api": ("10.0.0.1",),
        "broken": ("not-an-address",),
    }
