"""Which records are looked up: by the setting, or by the routes of the machine."""

from __future__ import annotations

import errno
import socket
from typing import Any, Self

import pytest

from fastapi_proxy_di.discovery.families import Family, families, has_route


@pytest.mark.parametrize(
    ("family", "routed", "expected"),
    [
        ("ipv4", (6,), (4,)),
        ("ipv6", (4,), (6,)),
        ("both", (4,), (4, 6)),
        ("auto", (4,), (4,)),
        ("auto", (6,), (6,)),
        ("auto", (4, 6), (4, 6)),
        ("auto", (), (4, 6)),
    ],
)
def test_families_follow_setting_and_routes(
    family: Family, routed: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    """A machine without any route, e.g. at its start, looks up both."""
    assert families(family, lambda version: version in routed) == expected


class _Socket:
    """A UDP socket of a machine that has routes to some addresses only."""

    routes: tuple[str, ...] = ()
    kernel_has_ipv6 = True

    def __init__(self, family: int, kind: int) -> None:
        assert kind == socket.SOCK_DGRAM
        if family == socket.AF_INET6 and not self.kernel_has_ipv6:
            raise OSError(errno.EAFNOSUPPORT, "not supported")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def connect(self, address: tuple[str, int]) -> None:
        if not address[0].startswith(self.routes):
            raise OSError(errno.ENETUNREACH, "unreachable")


@pytest.mark.parametrize(
    ("routes", "expected"),
    [
        (("198.", "2001:"), (True, True)),
        (("10.",), (True, False)),
        (("192.168.", "fd00:"), (True, True)),
        (("169.254.",), (False, False)),
    ],
)
def test_route_is_the_default_route_or_one_to_a_private_network(
    monkeypatch: pytest.MonkeyPatch, routes: tuple[str, ...], expected: tuple[bool, bool]
) -> None:
    """A network without a way out counts as well."""
    monkeypatch.setattr(_Socket, "routes", routes)
    monkeypatch.setattr(socket, "socket", _Socket)

    assert (has_route(4), has_route(6)) == expected


def test_kernel_without_ipv6_has_no_route_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no such socket can be made, IPv4 alone is looked up."""
    monkeypatch.setattr(_Socket, "routes", ("",))
    monkeypatch.setattr(_Socket, "kernel_has_ipv6", False)
    monkeypatch.setattr(socket, "socket", _Socket)

    assert families("auto") == (4,)


def test_asking_for_a_route_leaves_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each real socket is closed again."""
    made: list[socket.socket] = []

    class Watched(socket.socket):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(socket, "socket", Watched)
    has_route(4)

    assert [one.fileno() for one in made] == [-1]
