"""DNS rebinding against addresses that code gives, with dnsmasq as the name server."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import dns.resolver
import pytest

from tests.support.dns_servers import dnsmasq
from tests.support.given import given_app, to
from tests.support.http_client import fetch
from tests.websocket.gateways import serving

pytestmark = pytest.mark.e2e

NAME = "bob.internal"


def _ask(nameserver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the look-ups of ``NAME`` ask this server, which is not in ``/etc/resolv.conf``."""
    resolver = dns.resolver.Resolver(configure=False)
    host, _, port = nameserver.partition(":")
    resolver.nameservers, resolver.port = [host], int(port)
    getaddrinfo = socket.getaddrinfo

    def look_up(host: str, port: int, *args: Any, **options: Any) -> list[Any]:
        if host != NAME or options.get("flags", 0) & socket.AI_NUMERICHOST:
            return getaddrinfo(host, port, *args, **options)
        addresses = [record.to_text() for record in resolver.resolve(NAME, "A")]
        return [one for it in addresses for one in getaddrinfo(it, port, *args, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


async def test_name_that_moves_to_a_forbidden_address_is_refused_before_the_dial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both addresses listen on the port; one forbidden address refuses the whole dial."""
    monkeypatch.setattr("fastapi_proxy_di.transport.dialling.known_name.FRESH_SECONDS", 0.0)
    accepted: Counter[str] = Counter()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted[writer.get_extra_info("sockname")[0]] += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
        writer.close()

    app = given_app(origins=["http://*.internal:*"], networks=["127.0.0.1/32"])
    async with (
        await asyncio.start_server(serve, "0.0.0.0", 0) as server,
        dnsmasq(tmp_path, f"127.0.0.1 {NAME}\n") as names,
        serving(app) as gateway,
    ):
        _ask(names.nameserver, monkeypatch)
        address = f"http://{NAME}:{server.sockets[0].getsockname()[1]}"
        replies = []
        for addresses in (["127.0.0.1"], ["127.0.0.2"], ["127.0.0.1", "127.0.0.2"], ["127.0.0.1"]):
            await names.write("".join(f"{one} {NAME}\n" for one in addresses))
            reply = await fetch(gateway.address, target="/billing/x", headers=to(address))
            replies.append((reply.status, dict(accepted)))
            if reply.status != 200:
                assert json.loads(reply.body)["failure"] == "refused_address"

    assert replies == [
        (200, {"127.0.0.1": 1}),
        (502, {"127.0.0.1": 1}),
        (502, {"127.0.0.1": 1}),
        (200, {"127.0.0.1": 2}),
    ]
