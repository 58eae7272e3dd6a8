"""Reading ``/etc/resolv.conf``, and the names that it makes of one."""

from __future__ import annotations

import pytest

from fastapi_proxy_di.discovery.resolv_conf import ResolvConf, parse_resolv_conf

_KUBERNETES = """\
search shop.svc.cluster.local svc.cluster.local cluster.local
nameserver 10.96.0.10
options ndots:5
"""


def test_resolv_conf_of_a_pod() -> None:
    """Servers, search list and ndots."""
    assert parse_resolv_conf(_KUBERNETES, "pod") == ResolvConf(
        ("10.96.0.10",), ("shop.svc.cluster.local", "svc.cluster.local", "cluster.local"), 5
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ResolvConf(("127.0.0.1",), ("corp.example",), 1)),
        (
            "nameserver 10.0.0.1 # first\nnameserver fe80::1%eth0\nnameserver\nnameserver dns",
            ResolvConf(("10.0.0.1", "fe80::1%eth0"), ("corp.example",), 1),
        ),
        ("domain A.example.\n", ResolvConf(("127.0.0.1",), ("a.example",), 1)),
        ("search a b\ndomain c", ResolvConf(("127.0.0.1",), ("c",), 1)),
        ("domain c\nsearch a b", ResolvConf(("127.0.0.1",), ("a", "b"), 1)),
        ("search . ok -_1 ä a..b " + "x" * 64, ResolvConf(("127.0.0.1",), ("", "ok", "-_1"), 1)),
        (" search a\n; search b\n#search c", ResolvConf(("127.0.0.1",), ("corp.example",), 1)),
        ("search", ResolvConf(("127.0.0.1",), ("corp.example",), 1)),
        (
            "options rotate ndots:99 timeout:1\noptions ndots:x",
            ResolvConf(("127.0.0.1",), ("corp.example",), 15),
        ),
        ("options ndots:0", ResolvConf(("127.0.0.1",), ("corp.example",), 0)),
    ],
)
def test_resolv_conf_is_read_as_by_glibc(text: str, expected: ResolvConf) -> None:
    """The last search list counts; the domain of the machine stands in for a missing one."""
    assert parse_resolv_conf(text, "gate.Corp.example") == expected


def test_machine_without_a_domain_has_no_search_list() -> None:
    """As in most containers."""
    assert parse_resolv_conf("", "gate").search == ()


@pytest.mark.parametrize(
    ("name", "ndots", "expected"),
    [
        ("api", 1, ("api.a.", "api.b.c.", "api.")),
        ("api.x", 1, ("api.x.", "api.x.a.", "api.x.b.c.")),
        ("api.x", 2, ("api.x.a.", "api.x.b.c.", "api.x.")),
        ("api", 0, ("api.", "api.a.", "api.b.c.")),
        ("api.", 5, ("api.",)),
        ("_api._tcp.x", 2, ("_api._tcp.x.", "_api._tcp.x.a.", "_api._tcp.x.b.c.")),
    ],
)
def test_absolute_names_follow_ndots(name: str, ndots: int, expected: tuple[str, ...]) -> None:
    """With enough dots the name as written comes first, else last; a final dot leaves it alone."""
    assert ResolvConf((), ("a", "b.c"), ndots).absolute_names(name) == expected


def test_root_in_the_search_list_is_the_name_as_written() -> None:
    """At its place, and only there."""
    assert ResolvConf((), ("a", "", "b"), 2).absolute_names("x") == ("x.a.", "x.", "x.b.")


def test_name_that_gets_too_long_is_left_out() -> None:
    """It cannot exist (RFC 1035 §2.3.4)."""
    name = ".".join(["x" * 60] * 4)

    assert ResolvConf((), ("a" * 20,), 9).absolute_names(name) == (f"{name}.",)
