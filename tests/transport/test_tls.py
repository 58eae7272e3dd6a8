"""TLS towards destinations, against a real TLS server with new certificates."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from fastapi_proxy_di.errors import Failure, ProxyError, UpstreamConnectError, UpstreamTimeout
from fastapi_proxy_di.settings import TlsSettings
from fastapi_proxy_di.transport.http1.transport import Http1Transport
from fastapi_proxy_di.transport.tls import client_context
from tests.support.gateways import until
from tests.support.origins import Connection, ScriptedOrigin, response_bytes
from tests.transport.http1.engine import body_of, exchange_on, get, post, transport_to
from tests.transport.loops import on_every_loop


@dataclass(frozen=True, slots=True)
class Authority:
    """A throw-away certificate authority on disk."""

    ca: trustme.CA
    folder: Path

    @property
    def ca_file(self) -> Path:
        """The root certificate."""
        path = self.folder / "ca.pem"
        self.ca.cert_pem.write_to_path(path)
        return path

    def server(self, *names: str) -> ssl.SSLContext:
        """Make the context of a server."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert(*names).configure_cert(context)
        return context

    def client_files(self, password: bytes | None = None) -> tuple[Path, Path]:
        """Make a client's certificate and key."""
        issued = self.ca.issue_cert("client@example.org")
        certificate, key = self.folder / "client.pem", self.folder / "client.key"
        issued.cert_chain_pems[0].write_to_path(certificate)
        pem = issued.private_key_pem.bytes()
        if password is not None:
            pem = load_pem_private_key(pem, None).private_bytes(
                Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password)
            )
        key.write_bytes(pem)
        return certificate, key


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Make an authority that no one trusts yet."""
    return Authority(trustme.CA(), tmp_path)


def tls_transport(origin: ScriptedOrigin, settings: TlsSettings, **options: Any) -> Http1Transport:
    """A transport with the context of those settings."""
    context = client_context(settings, alpn=["http/1.1"])
    return transport_to(
        origin.url, ssl_context=context, server_name=settings.server_name, **options
    )


async def failure_of(transport: Http1Transport) -> ProxyError:
    """Give the error of a dial, or of an exchange (TLS 1.3 refuses clients after the handshake)."""
    try:
        with pytest.raises(ProxyError) as caught:
            await body_of(await exchange_on(transport, get()))
        return caught.value
    finally:
        await transport.aclose()
        assert transport.connections == 0


@on_every_loop
async def test_exchange_works_over_tls(authority: Authority) -> None:
    """With a root of one's own; large bodies both ways, and the connection is reused."""
    size = 3 << 20

    async def script(connection: Connection) -> None:
        while True:
            received = await connection.read_request()
            await connection.send(response_bytes(body=received.body))

    async with ScriptedOrigin(script, tls=authority.server("127.0.0.1")) as origin:
        transport = tls_transport(origin, TlsSettings(ca_file=authority.ca_file))
        for _ in range(2):
            exchange = await exchange_on(transport, post(size), b"x" * size)
            assert await body_of(exchange) == b"x" * size
        assert exchange.reused
        await transport.aclose()
        assert transport.connections == 0

    assert origin.connections == 1


@on_every_loop
async def test_reader_that_waits_stops_a_tls_destination(authority: Authority) -> None:
    """Backpressure works through TLS."""
    size = 32 << 20
    sent = 0

    async def script(connection: Connection) -> None:
        nonlocal sent
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while sent < size:
            await connection.send(b"x" * 65536)
            sent += 65536
        await connection.peer_left()

    async with ScriptedOrigin(script, tls=authority.server("127.0.0.1")) as origin:
        transport = tls_transport(origin, TlsSettings(ca_file=authority.ca_file))
        exchange = await exchange_on(transport, get())
        await exchange.head()
        await until(lambda: exchange.stalled_by_reader)
        for _ in range(50):
            await asyncio.sleep(0)
        assert sent < size // 2
        assert exchange._buffered <= 1 << 20
        assert len(await body_of(exchange)) == size
        await transport.aclose()


@on_every_loop
async def test_unknown_root_is_refused(authority: Authority) -> None:
    """The error names TLS and the reason."""
    async with ScriptedOrigin(tls=authority.server("127.0.0.1")) as origin:
        error = await failure_of(tls_transport(origin, TlsSettings()))
        await origin.all_left()

    assert isinstance(error, UpstreamConnectError)
    assert error.failure is Failure.TLS
    assert "certificate" in str(error)
    assert origin.requests == []


@on_every_loop
async def test_other_root_is_refused(authority: Authority, tmp_path: Path) -> None:
    """``ca_file`` replaces the system's roots."""
    (tmp_path / "other").mkdir()
    other = Authority(trustme.CA(), tmp_path / "other")
    async with ScriptedOrigin(tls=authority.server("127.0.0.1")) as origin:
        error = await failure_of(tls_transport(origin, TlsSettings(ca_file=other.ca_file)))

    assert error.failure is Failure.TLS


@pytest.mark.parametrize("verify", [True, False])
@on_every_loop
async def test_certificate_of_another_host_is_refused(authority: Authority, verify: bool) -> None:
    """Unless ``verify`` is off."""
    async with ScriptedOrigin(tls=authority.server("other.example")) as origin:
        settings = TlsSettings(ca_file=authority.ca_file) if verify else TlsSettings(verify=False)
        transport = tls_transport(origin, settings)
        if verify:
            error = await failure_of(transport)
            assert error.failure is Failure.TLS
            assert "IP address mismatch" in str(error)
        else:
            assert await body_of(await exchange_on(transport, get())) == b"ok"
            await transport.aclose()


@on_every_loop
async def test_server_name_is_sent_and_checked(authority: Authority) -> None:
    """Instead of the URL's host."""
    asked: list[str | None] = []
    context = authority.server("billing.internal")
    context.sni_callback = lambda _, name, __: asked.append(name)
    async with ScriptedOrigin(tls=context) as origin:
        settings = TlsSettings(ca_file=authority.ca_file, server_name="billing.internal")
        transport = tls_transport(origin, settings)
        assert await body_of(await exchange_on(transport, get())) == b"ok"
        await transport.aclose()

    assert asked == ["billing.internal"]


@pytest.mark.parametrize("in_one_file", [True, False])
@on_every_loop
async def test_client_certificate_is_sent(authority: Authority, in_one_file: bool) -> None:
    """Certificate and key in two files, or in one."""
    context = authority.server("127.0.0.1")
    context.verify_mode = ssl.CERT_REQUIRED
    authority.ca.configure_trust(context)
    certificate, key = authority.client_files()
    if in_one_file:
        certificate.write_bytes(key.read_bytes() + certificate.read_bytes())
    async with ScriptedOrigin(tls=context) as origin:
        settings = TlsSettings(
            ca_file=authority.ca_file,
            client_cert=certificate,
            client_key=None if in_one_file else key,
        )
        transport = tls_transport(origin, settings)
        assert await body_of(await exchange_on(transport, get())) == b"ok"
        await transport.aclose()

        without = tls_transport(origin, TlsSettings(ca_file=authority.ca_file))
        assert isinstance(await failure_of(without), ProxyError)

    assert len(origin.requests) == 1


@on_every_loop
async def test_plain_server_is_a_tls_failure(authority: Authority) -> None:
    """The server responds to the handshake with plain HTTP."""

    async def script(connection: Connection) -> None:
        await connection.reader.read(100)
        await connection.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await connection.peer_left()

    async with ScriptedOrigin(script) as origin:
        context = client_context(TlsSettings(), alpn=["http/1.1"])
        transport = transport_to(f"https://{origin.authority}", ssl_context=context)
        error = await failure_of(transport)

    assert error.failure is Failure.TLS


@on_every_loop
async def test_handshake_counts_into_the_connect_timeout(authority: Authority) -> None:
    """A server accepts and stays silent; no socket is left."""

    async def script(connection: Connection) -> None:
        await connection.peer_left()

    async with ScriptedOrigin(script) as origin:
        context = client_context(TlsSettings(), alpn=["http/1.1"])
        transport = transport_to(
            f"https://{origin.authority}", ssl_context=context, timeouts={"connect": 0.05}
        )
        error = await failure_of(transport)
        await origin.all_left()

    assert isinstance(error, UpstreamTimeout)
    assert error.failure is Failure.CONNECT_TIMEOUT


@on_every_loop
async def test_alpn_offers_http_1_1(authority: Authority) -> None:
    """The server chooses it."""
    context = authority.server("127.0.0.1")
    context.set_alpn_protocols(["h2", "http/1.1"])
    chosen: list[str | None] = []

    async def script(connection: Connection) -> None:
        chosen.append(connection.writer.get_extra_info("ssl_object").selected_alpn_protocol())
        await connection.read_request()
        await connection.send(response_bytes(body=b"ok"))

    async with ScriptedOrigin(script, tls=context) as origin:
        transport = tls_transport(origin, TlsSettings(ca_file=authority.ca_file))
        assert await body_of(await exchange_on(transport, get())) == b"ok"
        await transport.aclose()

    assert chosen == ["http/1.1"]


def test_unusable_files_name_their_setting(authority: Authority, tmp_path: Path) -> None:
    """The app fails at start, not at the first request."""
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("no certificate")
    certificate, key = authority.client_files()
    with pytest.raises(ValueError, match=r"tls\.ca_file"):
        client_context(TlsSettings(ca_file=garbage), alpn=[])
    with pytest.raises(ValueError, match=r"tls\.client_cert"):
        client_context(TlsSettings(client_cert=garbage), alpn=[])
    with pytest.raises(ValueError, match=r"tls\.client_cert"):
        client_context(TlsSettings(client_cert=certificate), alpn=[])
    client_context(TlsSettings(client_cert=certificate, client_key=key), alpn=[])


def test_encrypted_key_is_refused(authority: Authority) -> None:
    """OpenSSL would wait for a passphrase on the terminal, and the app would never start."""
    certificate, key = authority.client_files(password=b"secret")
    with pytest.raises(ValueError, match=r"tls\.client_cert"):
        client_context(TlsSettings(client_cert=certificate, client_key=key), alpn=[])
