"""Looks up addresses and services of names, as the machine's own resolver would.

``/etc/hosts`` comes first for addresses, then DNS by the search list of ``/etc/resolv.conf``.
Nothing here waits in a thread: servers are asked by asyncio.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Collection, Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Any, Final, TypeVar

from fastapi_proxy_di.discovery.families import Family, families
from fastapi_proxy_di.discovery.found import Found, LookupFailed, Service
from fastapi_proxy_di.discovery.hosts_file import parse_hosts
from fastapi_proxy_di.discovery.local_file import LocalFile
from fastapi_proxy_di.discovery.pieces import Pieces
from fastapi_proxy_di.discovery.resolv_conf import parse_resolv_conf
from fastapi_proxy_di.discovery.services import services_of
from fastapi_proxy_di.settings.nameservers import parse_nameserver
from fastapi_proxy_di.wire.addresses import parse_address

if TYPE_CHECKING:
    from fastapi_proxy_di.discovery.dns import DnsServers

__all__ = ["HOSTS_SECONDS", "LOOKUP_SECONDS", "Names"]

HOSTS_SECONDS: Final = 5.0
"""Seconds until addresses that no DNS server gave are looked up again: those of ``/etc/hosts``,
of localhost, and literal ones."""
LOOKUP_SECONDS: Final = 5.0
"""Time for one look-up: all servers, and all names of the search list."""
_AT_ONCE: Final = 20
"""Targets of a SRV look-up that are looked up at once."""
_LOOPBACK: Final = {4: "127.0.0.1", 6: "::1"}
_KINDS: Final = {4: "A", 6: "AAAA"}

_Record = TypeVar("_Record")


class _HalfFailed(LookupFailed):
    """There are addresses of one family, and the look-up of the other one failed."""


class Names:
    """Looks names up; one per upstream or process, for use in one event loop.

    Args:
        nameservers: DNS servers to ask in this order, ``10.0.0.53``, ``10.0.0.53:5353`` or
            ``[::1]:5353``; by default those of ``/etc/resolv.conf``.
        family: Kinds of addresses to look up.
        timeout: Seconds for one look-up with all servers and all names of the search list.
        resolv_conf: Path of the file with the search list; read anew when it changes.
        hosts: Path of the file with local addresses; read anew when it changes.

    Raises:
        ValueError: An address of a server is not valid, or the extra ``dns`` is not installed.
    """

    def __init__(
        self,
        nameservers: tuple[str, ...] = (),
        family: Family = "auto",
        timeout: float = LOOKUP_SECONDS,
        *,
        resolv_conf: str = "/etc/resolv.conf",
        hosts: str = "/etc/hosts",
    ) -> None:
        self._servers = tuple(parse_nameserver(text) for text in nameservers)
        self._family: Family = family
        self._seconds = timeout
        self._resolv_conf = LocalFile(
            resolv_conf, lambda text: parse_resolv_conf(text, socket.gethostname())
        )
        self._hosts = LocalFile(hosts, parse_hosts)
        self._dns = _dns_servers()

    async def addresses(self, name: str) -> Found[str]:
        """Look up the addresses of a host.

        Args:
            name: Name of a host; a final dot makes it absolute. A numeric address is its own
                result.

        Returns:
            Numeric addresses, IPv4 first.

        Raises:
            ValueError: The name is not valid.
            LookupFailed: No server gave the addresses, of one family or of both.
        """
        literal = _sorted_addresses([name])
        if literal:
            return Found(_texts(literal), HOSTS_SECONDS)
        return await self._addresses(_ascii(name))

    async def services(self, name: str) -> Found[Service]:
        """Look up the SRV records of a service, e.g. ``_api._tcp.internal`` (RFC 2782).

        Returns:
            The services; none for the single target ``.``, which says that there is no service.

        Raises:
            ValueError: The name is not valid.
            LookupFailed: A server failed, or a record has no valid target or port.
        """

        async def ask(absolute: str, seconds: float, servers: DnsServers) -> Found[Any]:
            return await servers.ask(absolute, "SRV", seconds)

        ascii_name = _ascii(name)
        found = await self._search(ascii_name, ask)
        return Found(services_of(ascii_name, found.records), found.ttl)

    async def service_addresses(self, name: str) -> Found[tuple[Service, str]]:
        """Look up the SRV records of a service and the addresses of their targets.

        Returns:
            One pair for each address of each target; a target without addresses gives none. The
            TTL is the smallest of all look-ups.

        Raises:
            ValueError: The name is not valid.
            LookupFailed: The look-up of the service or of one target failed.
        """
        services = await self.services(name)
        targets = sorted({service.target for service in services.records})
        slots = asyncio.Semaphore(_AT_ONCE)

        async def look_up(target: str) -> Found[str]:
            async with slots:
                return await self._addresses(target)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = {
                    target: group.create_task(look_up(target), name=f"look-up of {target}")
                    for target in targets
                }
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        found = {target: task.result() for target, task in tasks.items()}
        return Found(
            tuple(
                (service, address)
                for service in services.records
                for address in found[service.target].records
            ),
            min([services.ttl, *(one.ttl for one in found.values())]),
        )

    async def _addresses(self, host: str) -> Found[str]:
        versions = families(self._family)
        local = self._local(host, versions)
        if local:
            return Found(local, HOSTS_SECONDS)

        async def ask(absolute: str, seconds: float, servers: DnsServers) -> Found[str]:
            return await _joined(
                await asyncio.gather(
                    *(servers.ask(absolute, _KINDS[version], seconds) for version in versions),
                    return_exceptions=True,
                )
            )

        return await self._search(host, ask)

    def _local(self, host: str, versions: Collection[int]) -> tuple[str, ...]:
        """Give the addresses that need no server; empty for none."""
        bare = host.removesuffix(".")
        anywhere = self._family == "auto"
        listed = [
            one
            for one in _sorted_addresses(self._hosts.content().get(bare, ()))
            if one.version in versions or (anywhere and one.is_loopback)  # that needs no route
        ]
        if listed:
            return _texts(listed)
        if bare == "localhost" or bare.endswith(".localhost"):  # RFC 6761 §6.3
            return tuple(_LOOPBACK[version] for version in versions)
        return ()

    async def _search(
        self,
        name: str,
        ask: Callable[[str, float, DnsServers], Awaitable[Found[_Record]]],
    ) -> Found[_Record]:
        """Ask for the names of the search list one after the other, until one has records.

        As glibc: a name that does not exist or has no such records leads on to the next one,
        SERVFAIL too; after another failure only the name as written is left. Where no name has
        records, a failure decides: a server may know records that it could not give.
        """
        conf = self._resolv_conf.content()
        servers = self._dns(self._servers or tuple((one, 53) for one in conf.nameservers))
        ends_at = asyncio.get_running_loop().time() + self._seconds
        failure: LookupFailed | None = None
        ttls: list[float] = []
        only_as_written = False
        for absolute in conf.absolute_names(name):
            as_written = absolute == f"{name.removesuffix('.')}."
            if only_as_written and not as_written:
                continue
            left = max(0.0, ends_at - asyncio.get_running_loop().time())
            try:
                found = await ask(absolute, left, servers)
            except _HalfFailed:
                raise  # this name is the right one
            except LookupFailed as error:
                failure = failure or error
                only_as_written |= not (error.servfail or as_written)
                continue
            if found.records:
                return found
            ttls.append(found.ttl)
        if failure is not None:
            raise failure
        return Found((), min(ttls))


def _ascii(name: str) -> str:
    """Give a name in lower case and ASCII (IDNA), by the rules for addresses of destinations.

    Raises:
        ValueError: The name is not valid.
    """
    if "/" in name or ":" in name:
        raise ValueError(f"{name!r} is not the name of a host")
    return parse_address(f"http://{name}").host


async def _joined(results: Iterable[Found[Any] | BaseException]) -> Found[str]:
    """Join the results of both families; the failure of one is the failure of both.

    Else the addresses of one family would be gone while its records cannot be read.
    """
    found: list[Found[Any]] = []
    failures: list[BaseException] = []
    for result in results:
        if isinstance(result, BaseException):
            failures.append(result)
        else:
            found.append(result)
    used = [one for one in found if one.records] or found
    for failure in failures:
        if isinstance(failure, LookupFailed) and any(one.records for one in found):
            raise _HalfFailed(
                failure.records,
                f"{failure.reason}; there are addresses of the other family: if that server never"
                " gives these records, set discovery.family to ipv4 or ipv6",
            ) from failure
        raise failure
    records = [record.address for one in used for record in one.records]
    pieces = Pieces()
    keys = set()
    for address in records:
        keys.add(_sort_key(ip_address(address)))
        await pieces.pause()
    return Found(tuple([key[-1] for key in sorted(keys)]), min(one.ttl for one in used))


def _sorted_addresses(texts: Iterable[str]) -> list[IPv4Address | IPv6Address]:
    """Give the texts that are addresses, each once, IPv4 first, by number."""
    addresses: set[IPv4Address | IPv6Address] = set()
    for text in texts:
        with contextlib.suppress(ValueError):
            addresses.add(ip_address(text))
    return sorted(addresses, key=_sort_key)


def _sort_key(address: IPv4Address | IPv6Address) -> tuple[int, int, str]:
    """IPv4 first, by number; the last part is the address as text."""
    return address.version, int(address), str(address)


def _texts(addresses: Iterable[IPv4Address | IPv6Address]) -> tuple[str, ...]:
    return tuple(map(str, addresses))


def _dns_servers() -> type[DnsServers]:
    try:
        # Imported late, because dnspython is an extra.
        from fastapi_proxy_di.discovery.dns import DnsServers  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ValueError(
            "destinations found by DNS need the extra dns; run pip install 'fastapi-proxy-di[dns]'"
        ) from error
    return DnsServers
