"""What SRV records may say."""

from __future__ import annotations

import dns.rdata
import pytest

from fastapi_proxy_di.discovery.found import LookupFailed, Service
from fastapi_proxy_di.discovery.services import services_of


def _records(*texts: str) -> list[dns.rdata.Rdata]:
    return [dns.rdata.from_text("IN", "SRV", text) for text in texts]


def test_services_are_sorted_and_distinct() -> None:
    """By priority, weight, port and target, which is in lower case."""
    records = _records("10 1 80 a.", "2 9 80 B.Example.", "2 9 80 b.example.", "2 1 81 b.example.")

    assert services_of("_api._tcp.internal.", records) == (
        Service(2, 1, 81, "b.example."),
        Service(2, 9, 80, "b.example."),
        Service(10, 1, 80, "a."),
    )


def test_target_dot_is_no_service() -> None:
    """RFC 2782: the service is decidedly not available."""
    assert services_of("_api._tcp.internal.", _records("0 0 0 .")) == ()


@pytest.mark.parametrize(
    "target",
    [
        *("a\\032b.", "a\\@b.", "a\\\\b.", "a/b.", "a\\000.", "a\\.b.", "a:80.", "\\195\\164."),
        *("10.0.0.1.", "7."),
    ],
)
def test_target_that_is_not_a_host_fails(target: str) -> None:
    """It would become a part of URLs and of the Host header; the text does not show it."""
    with pytest.raises(LookupFailed) as failed:
        services_of("_api._tcp.internal.", _records("0 0 80 good.", f"0 0 80 {target}"))

    assert str(failed.value) == (
        "cannot look up SRV records of _api._tcp.internal.: one has a target that is not the name"
        " of a host"
    )


def test_port_0_fails() -> None:
    """Nothing listens there; Consul writes it for a service without a port."""
    with pytest.raises(LookupFailed, match=r"target a\.example\. has port 0"):
        services_of("_api._tcp.internal.", _records("0 0 0 a.example."))
