"""DNS servers of tests: dnsmasq and bind9 as processes, and one in the test that says anything.

dnsmasq and bind9 listen on a free port of 127.0.0.1. Tests write their records and reload them.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import shutil
import signal
import socket
import struct
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from tests.support.processes import Process, running
from tests.support.servers import free_port

__all__ = ["Bind", "DnsMasq", "ScriptedDns", "bind", "dnsmasq", "known", "reply", "scripted_dns"]

_PATH: Final = f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin"
_DNSMASQ: Final = shutil.which("dnsmasq", path=_PATH)
_NAMED: Final = shutil.which("named", path=_PATH)


class DnsMasq:
    """A running dnsmasq that knows the names below ``internal`` and refuses all others.

    Attributes:
        nameserver: Its address, for the setting ``nameservers``.
    """

    def __init__(self, process: Process, port: int, hosts: Path) -> None:
        self.nameserver = f"127.0.0.1:{port}"
        self._process = process
        self._hosts = hosts

    async def write(self, lines: str) -> None:
        """Replace all addresses, and wait until dnsmasq gives the new ones.

        Args:
            lines: As in ``/etc/hosts``: ``10.0.0.1 api.internal``.
        """
        self._hosts.write_text(lines)
        self._process.signal(signal.SIGHUP)
        await self._process.line(r"read .*hosts\b")

    async def stop(self) -> None:
        """End the process, so that its port refuses look-ups."""
        await self._process.stop()


@contextlib.asynccontextmanager
async def dnsmasq(
    folder: Path, lines: str = "", *options: str, port: int = 0
) -> AsyncIterator[DnsMasq]:
    """Run dnsmasq.

    Args:
        folder: For its file.
        lines: The addresses, as in ``/etc/hosts``. Their TTL is 0.
        *options: Of its command line, e.g. ``--srv-host=_api._tcp.internal,a.internal,80``.
        port: Where it listens; 0 for a free one.
    """
    if _DNSMASQ is None:  # pragma: no cover
        pytest.skip("dnsmasq is not installed; on Debian and Ubuntu: apt-get install dnsmasq-base")
    port = port or free_port()
    hosts = folder / f"{port}.hosts"
    hosts.write_text(lines)
    words = (
        *(_DNSMASQ, "--keep-in-foreground", "--conf-file=/dev/null", "--log-facility=-"),
        *("--listen-address=127.0.0.1", "--bind-interfaces", f"--port={port}", "--pid-file="),
        *("--no-resolv", "--no-hosts", f"--addn-hosts={hosts}", "--local=/internal/"),
        f"--user={getpass.getuser()}",  # else it becomes one that may not read the folder
    )
    async with running(*words, *options) as process:
        await process.line(r"read .*hosts\b")
        yield DnsMasq(process, port, hosts)


class Bind:
    """A running bind9 with one zone, ``example``.

    Attributes:
        nameserver: Its address, for the setting ``nameservers``.
    """

    def __init__(self, process: Process, port: int, zone: Path, config: Path) -> None:
        self.nameserver = f"127.0.0.1:{port}"
        self._process = process
        self._zone = zone
        self._config = config
        self._serial = 1

    async def write(self, records: str) -> None:
        """Replace the records of the zone, and wait until bind9 gives the new ones.

        Args:
            records: As in a zone file, names below ``example.``: ``api 30 A 10.0.0.1``.
        """
        self._serial += 1
        self._zone.write_text(_zone(records, self._serial))
        self._process.signal(signal.SIGHUP)
        await self._process.line(rf"zone example/IN: loaded serial {self._serial}\b")

    async def fail(self) -> None:
        """Lose the zone, so that all look-ups get SERVFAIL."""
        gone = self._zone.with_suffix(".gone")
        self._config.write_text(self._config.read_text().replace(str(self._zone), str(gone)))
        self._process.signal(signal.SIGHUP)
        await self._process.line("zone example/IN: not loaded due to errors")

    async def stop(self) -> None:
        """End the process, so that its port refuses look-ups."""
        await self._process.stop()


@contextlib.asynccontextmanager
async def bind(folder: Path, records: str = "", options: str = "") -> AsyncIterator[Bind]:
    """Run bind9.

    Args:
        folder: For its files.
        records: Of the zone, as for `Bind.write`. A zone that is not valid gives SERVFAIL.
        options: More statements of ``options { }``, each with a semicolon.
    """
    if _NAMED is None:  # pragma: no cover
        pytest.skip("bind9 is not installed; on Debian and Ubuntu: apt-get install bind9")
    port = free_port()
    zone = folder / f"{port}.zone"
    zone.write_text(_zone(records, 1))
    config = folder / f"{port}.conf"
    config.write_text(
        f"""
options {{
    directory "{folder}"; pid-file none; session-keyfile none; recursion no;
    listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
    {options}
}};
controls {{ }};
zone "example" {{ type primary; file "{zone}"; }};
"""
    )
    async with running(_NAMED, "-g", "-n", "1", "-c", str(config)) as process:
        await process.line(r"\brunning$")
        yield Bind(process, port, zone, config)


def _zone(records: str, serial: int) -> str:
    # The TTL of "there is no such record" is the last number (RFC 2308).
    return (
        f"$ORIGIN example.\n$TTL 60\n@ SOA ns mail {serial} 3600 600 86400 7\n@ NS ns\n"
        f"ns A 127.0.0.1\n{records}\n"
    )


Script = Callable[[dns.message.Message, bool], Sequence[dns.message.Message | bytes]]
"""Gives the packets to send for a query; the flag is whether the query came by TCP."""


class ScriptedDns(asyncio.DatagramProtocol):
    """A DNS server in the test's own loop, by UDP and TCP on one port.

    Attributes:
        nameserver: Its address, for the setting ``nameservers``.
        script: Gives what is sent for a query; a test may replace it.
        asked: Name and kind of each query, in order, e.g. ``("api.internal.", "A")``.
        by_tcp: How many queries came by TCP.
    """

    def __init__(self, nameserver: str, script: Script) -> None:
        self.nameserver = nameserver
        self.script = script
        self.asked: list[tuple[str, str]] = []
        self.by_tcp = 0
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        for packet in self._packets(data, by_tcp=False):
            self._transport.sendto(packet, addr)

    async def serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            (size,) = struct.unpack("!H", await reader.readexactly(2))
            self.by_tcp += 1
            for packet in self._packets(await reader.readexactly(size), by_tcp=True):
                writer.write(struct.pack("!H", len(packet)) + packet)
            await writer.drain()
        writer.close()

    def _packets(self, data: bytes, *, by_tcp: bool) -> list[bytes]:
        query = dns.message.from_wire(data)
        question = query.question[0]
        self.asked.append((question.name.to_text(), question.rdtype.name))
        packets = self.script(query, by_tcp)
        return [one if isinstance(one, bytes) else one.to_wire(max_size=65535) for one in packets]


def reply(
    query: dns.message.Message,
    *records: str,
    rcode: dns.rcode.Rcode = dns.rcode.NOERROR,
    truncated: bool = False,
) -> dns.message.Message:
    """Make the response to a query.

    Args:
        query: What was asked.
        *records: As in a zone file: ``api.internal. 30 IN A 10.0.0.1``. Records of other kinds
            than the query's are left out, except aliases.
        rcode: Response code.
        truncated: Whether the response says that it is not whole.
    """
    message = dns.message.make_response(query)
    message.set_rcode(rcode)
    if truncated:
        message.flags |= dns.flags.TC
    for record in records:
        name, ttl, _, kind, data = record.split(" ", 4)
        if kind in (query.question[0].rdtype.name, "CNAME"):
            message.answer.append(dns.rrset.from_text(name, int(ttl), "IN", kind, data))
    return message


def known(*records: str, failing: Mapping[str, dns.rcode.Rcode] | None = None) -> Script:
    """Respond with these records; NXDOMAIN to other names, other codes to the failing ones.

    A key of ``failing`` is a name, or a name and a kind: ``api. AAAA``.
    """

    def respond(query: dns.message.Message, by_tcp: bool) -> list[dns.message.Message]:
        name, kind = query.question[0].name.to_text(), query.question[0].rdtype.name
        codes = failing or {}
        code = codes.get(name, codes.get(f"{name} {kind}"))
        of_name = [record for record in records if record.startswith(f"{name} ")]
        if code is None:
            code = dns.rcode.NOERROR if of_name else dns.rcode.NXDOMAIN
        message = reply(query, *of_name, rcode=code)
        message.flags |= dns.flags.RA
        return [message]

    return respond


@contextlib.asynccontextmanager
async def scripted_dns(
    script: Script, host: str = "127.0.0.1", *, tcp: bool = True
) -> AsyncIterator[ScriptedDns]:
    """Run a server that sends what a script gives.

    Args:
        script: Gives the packets for a query.
        host: Where it listens, ``127.0.0.1`` or ``::1``.
        tcp: Whether it accepts TCP; else its port refuses TCP.
    """
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, 0), family=family)
    port = listener.getsockname()[1]
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    server = ScriptedDns(shown, script)
    transport, _ = await loop.create_datagram_endpoint(lambda: server, local_addr=(host, port))
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(transport.close)
        if tcp:
            await stack.enter_async_context(
                await asyncio.start_server(server.serve_tcp, sock=listener)
            )
        else:
            listener.close()
        yield server
