"""Asks DNS servers for the records of one absolute name, by dnspython's asyncio resolver.

Knows neither search lists nor the machine's files: see ``names.py``.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Sequence
from typing import Any, Final

import dns.asyncbackend
import dns.asyncresolver
import dns.exception
import dns.flags
import dns.name
import dns.rdatatype
import dns.resolver

from fastapi_proxy_di.discovery.found import Found, LookupFailed
from fastapi_proxy_di.discovery.name_server import NameServer

__all__ = ["EMPTY_SECONDS", "DnsServers"]

EMPTY_SECONDS: Final = 30.0
"""The longest TTL of a response without records, and its TTL where it has no SOA record."""
_PAYLOAD_BYTES: Final = 1232
"""What a response by UDP may have, so that no network splits it (DNS flag day 2020)."""
_TRIES: Final = 2  # of each server, as glibc's "attempts"
_LATE_SECONDS: Final = 2.0  # dnspython's longest pause between two rounds of the servers


class DnsServers:
    """The servers that are asked, one after the other until one responds.

    Args:
        servers: Numeric addresses and ports, in the order to ask them.
    """

    def __init__(self, servers: Sequence[tuple[str, int]]) -> None:
        self._servers = servers
        self._shown = {f"Do53:{host}@{port}": _shown(host, port) for host, port in servers}
        self._backend = dns.asyncbackend.get_backend("asyncio")  # only for its pauses

    async def ask(self, name: str, kind: str, seconds: float) -> Found[Any]:
        """Ask for the records of one kind.

        Each server is asked twice, with an equal share of the time. A server that refuses, fails
        or cannot be reached is not asked again. A truncated response is asked for again by TCP.

        Args:
            name: Absolute name in ASCII.
            kind: ``A``, ``AAAA`` or ``SRV``.
            seconds: Time for all servers together.

        Returns:
            dnspython's records in the order of the response.

        Raises:
            LookupFailed: No server gave a valid response in time.
        """
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers = [NameServer(*server) for server in self._servers]
        resolver.use_edns(0, 0, _PAYLOAD_BYTES)
        resolver.timeout = seconds / (_TRIES * len(self._servers))
        try:
            # dnspython reads the machine's clock; this one cannot be set back.
            async with asyncio.timeout(seconds + _LATE_SECONDS):
                answer = await resolver.resolve(
                    dns.name.from_text(name),
                    kind,
                    raise_on_no_answer=False,
                    lifetime=seconds,
                    search=False,
                    backend=self._backend,
                )
        except dns.resolver.NXDOMAIN as missing:
            (response,) = missing.kwargs["responses"].values()
            return Found((), min(response.resolve_chaining().minimum_ttl, EMPTY_SECONDS))
        except (dns.exception.DNSException, TimeoutError) as error:
            errors = list(getattr(error, "kwargs", {}).get("errors", ()))
            reason = self._reasons(errors) or f"{', '.join(self._shown.values())} {_reason(error)}"
            servfail = bool(errors) and errors[-1][3] == "SERVFAIL"
            raise LookupFailed(f"{kind} records of {name}", reason, servfail=servfail) from error
        if doubt := _doubt(answer):
            server = _shown(answer.nameserver or "", answer.port or 0)
            raise LookupFailed(f"{kind} records of {name}", f"{server} {doubt}")
        ttl = float(answer.chaining_result.minimum_ttl)
        if answer.rrset is None:
            return Found((), min(ttl, EMPTY_SECONDS))
        return Found(tuple(answer.rrset), ttl)

    def _reasons(self, errors: Iterable[tuple[Any, ...]]) -> str:
        """Give what each server did, once, without the text of dnspython's exceptions."""
        reasons = (
            f"{self._shown.get(server, server)}{' by TCP' if by_tcp else ''} {_reason(error)}"
            for server, by_tcp, _, error, _ in errors
        )
        return ", ".join(dict.fromkeys(reasons))


def _doubt(answer: dns.resolver.Answer) -> str | None:
    """Say why a response that dnspython accepts may lack records that exist."""
    flags = answer.response.flags
    if flags & dns.flags.TC:
        return "sent a truncated response by TCP"
    refers = any(one.rdtype == dns.rdatatype.NS for one in answer.response.authority)
    if answer.rrset is None and refers and not flags & (dns.flags.AA | dns.flags.RA):
        return "only refers to other servers"  # it has not the zone, and does not ask them
    return None


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _reason(error: object) -> str:
    if isinstance(error, str):
        return f"says {error}"  # a response code, by dnspython's own names
    if isinstance(error, (dns.exception.Timeout, TimeoutError)):
        return "sent no response in time"
    if isinstance(error, OSError) and error.errno:
        return f"failed: {os.strerror(error.errno)}"
    if isinstance(error, EOFError):
        return "closed the connection"
    return f"sent a response that is not valid ({type(error).__name__})"
