"""Reads SRV records (RFC 2782) and checks what they name, since a server may send anything."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from fastapi_proxy_di.discovery.found import LookupFailed, Service

__all__ = ["services_of"]

# No number at the end: that would be an IPv4 address, which RFC 2782 does not allow.
_TARGET: Final = re.compile(r"(?=.{2,254}$)(?!(.*\.)?[0-9]+\.$)([a-z0-9_-]{1,63}\.)+")


def services_of(name: str, records: Iterable[Any]) -> tuple[Service, ...]:
    """Give the services of records, sorted, each once.

    Args:
        name: Whose records they are, for the message.
        records: SRV records as dnspython has them.

    Raises:
        LookupFailed: A target is not the name of a host, or a port is 0.
    """
    services: set[Service] = set()
    for record in records:
        target = str(record.target).lower()
        if target == ".":
            continue  # "the service is decidedly not available at this domain"
        if not _TARGET.fullmatch(target):
            # The target is not shown: it may hold anything.
            raise LookupFailed(
                f"SRV records of {name}", "one has a target that is not the name of a host"
            )
        if not record.port:
            raise LookupFailed(f"SRV records of {name}", f"the one with target {target} has port 0")
        services.add(Service(record.priority, record.weight, record.port, target))
    return tuple(sorted(services))
