"""Faults before the first byte give an error with the right status and without an address."""

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

from fastapi_proxy_di.transport.dialling.dialler import Dialler
from tests.support.gateways import gateway
from tests.support.http_client import RawResponse, connect, fetch, request
from tests.support.origins import Connection, Script, ScriptedOrigin, always, chunk, response_bytes
from tests.support.servers import blackhole, dead_port

pytestmark = pytest.mark.e2e


def _raw(*lines: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


_OK = b"HTTP/1.1 200 OK"
_MALFORMED = {
    "no HTTP at all": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "garbage": b"\x00\xff\x00\xff\r\n\r\n",
    "no status": _raw(b"HTTP/1.1"),
    "status of letters": _raw(b"HTTP/1.1 abc OK"),
    "status of two digits": _raw(b"HTTP/1.1 20 OK", b"Content-Length: 0"),
    "status of four digits": _raw(b"HTTP/1.1 2000 OK", b"Content-Length: 0"),
    "status 600": _raw(b"HTTP/1.1 600 X", b"Content-Length: 0"),
    "status 999": _raw(b"HTTP/1.1 999 X", b"Content-Length: 0"),
    "status 000": _raw(b"HTTP/1.1 000 X", b"Content-Length: 0"),
    "version 2.0": _raw(b"HTTP/2.0 200 OK", b"Content-Length: 0"),
    "version 9.9": _raw(b"HTTP/9.9 200 OK", b"Content-Length: 0"),
    "two lengths": _raw(_OK, b"Content-Length: 2", b"Content-Length: 3", body=b"abc"),
    "list of lengths": _raw(_OK, b"Content-Length: 2, 3", body=b"abc"),
    "negative length": _raw(_OK, b"Content-Length: -1"),
    "signed length": _raw(_OK, b"Content-Length: +2", body=b"ab"),
    "length with a letter": _raw(_OK, b"Content-Length: 2x", body=b"ab"),
    "hexadecimal length": _raw(_OK, b"Content-Length: 0x2", body=b"ab"),
    "empty length": _raw(_OK, b"Content-Length:"),
    "length beyond 64 bits": _raw(_OK, b"Content-Length: 99999999999999999999999"),
    "length and chunked": _raw(
        _OK, b"Content-Length: 2", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"
    ),
    "chunked, gzip": _raw(_OK, b"Transfer-Encoding: chunked, gzip", body=b"0\r\n\r\n"),
    "gzip, chunked": _raw(_OK, b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
    "gzip": _raw(_OK, b"Transfer-Encoding: gzip", body=b"x"),
    "xchunked": _raw(_OK, b"Transfer-Encoding: xchunked", body=b"x"),
    "identity": _raw(_OK, b"Transfer-Encoding: identity", body=b"x"),
    "chunked twice": _raw(
        _OK, b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"
    ),
    "space before the colon": _raw(_OK, b"X-A : 1", b"Content-Length: 0"),
    "no colon": _raw(_OK, b"X-A", b"Content-Length: 0"),
    "no name": _raw(_OK, b": 1", b"Content-Length: 0"),
    "space in a name": _raw(_OK, b"X A: 1", b"Content-Length: 0"),
    "folded header": _raw(_OK, b"X-A: 1", b" 2", b"Content-Length: 0"),
    "NUL in a value": _raw(_OK, b"X-A: a\x00b", b"Content-Length: 0"),
    "CR in a value": _raw(_OK, b"X-A: a\rb", b"Content-Length: 0"),
    "switch without an Upgrade": _raw(b"HTTP/1.1 101 X", b"Upgrade: x", b"Connection: upgrade"),
    "bad chunk size": _raw(_OK, b"Transfer-Encoding: chunked", body=b"zz\r\n"),
}
# llhttp fails on a bad chunk while the head is still being handed out, or right after it.
_HEAD_MAY_PASS = {"bad chunk size"}


def _is_clean(reply: RawResponse, status: int) -> bool:
    """Whether the response is an error of ours that shows nothing internal."""
    return (
        reply.status == status
        and reply.whole
        and b"127.0.0.1" not in reply.body
        and reply.one(b"content-type") == b"application/problem+json"
    )


@pytest.mark.parametrize("name", [name for name in _MALFORMED if name not in _HEAD_MAY_PASS])
async def test_malformed_response_is_bad_gateway(name: str) -> None:
    """A response that is not valid HTTP/1.1 is refused."""
    async with ScriptedOrigin(always(_MALFORMED[name])) as origin, gateway(origin.url) as gate:
        reply = await fetch(gate.address, "POST", "/billing/x", body=b"x")
        await origin.all_left()

    assert _is_clean(reply, 502), reply
    assert len(origin.requests) == 1


async def test_malformed_chunk_right_after_the_head_never_ends_cleanly() -> None:
    """The client gets an error, or a transfer that breaks."""
    raw = _MALFORMED["bad chunk size"]
    async with ScriptedOrigin(always(raw)) as origin, gateway(origin.url) as gate:
        reply = await fetch(gate.address, "POST", "/billing/x", body=b"x")

    assert reply.status == 502 or not reply.whole


@pytest.mark.parametrize(
    "script_head",
    [
        _raw(_OK, b"X-Long: " + b"y" * 3000, b"Content-Length: 0"),
        _raw(_OK, *[b"X-%d: y" % n for n in range(400)], b"Content-Length: 0"),
        _raw(b"HTTP/1.1 200 " + b"y" * 3000, b"Content-Length: 0"),
        _OK + b"\r\nX-Endless: " + b"y" * 100_000,
    ],
    ids=["one header", "many headers", "reason", "endless"],
)
async def test_head_over_the_limit_is_bad_gateway(script_head: bytes) -> None:
    """``max_response_header_bytes`` counts the whole head."""

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(script_head)
        await connection.peer_left()

    async with (
        ScriptedOrigin(script) as origin,
        gateway(origin.url, limits={"max_response_header_bytes": 2000}) as gate,
    ):
        reply = await fetch(gate.address, "POST", "/billing/x", body=b"x")
        await origin.all_left()

    assert _is_clean(reply, 502), reply


async def test_head_under_the_limit_is_accepted() -> None:
    """The default allows large heads."""
    raw = response_bytes(body=b"ok", headers=[(b"X-Long", b"y" * 60_000)])
    async with ScriptedOrigin(always(raw)) as origin, gateway(origin.url) as gate:
        reply = await fetch(gate.address, target="/billing/x")

    assert reply.status == 200


async def test_interim_responses_are_not_the_response() -> None:
    """The final response follows 103 and 102."""
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </x.css>; rel=preload\r\n\r\n"
    raw = early + b"HTTP/1.1 102 Processing\r\n\r\n" + response_bytes(201, b"made")
    async with ScriptedOrigin(always(raw)) as origin, gateway(origin.url) as gate:
        first = await fetch(gate.address, target="/billing/x")
        second = await fetch(gate.address, target="/billing/x")

    assert (first.status, first.body) == (201, b"made")
    assert first.one(b"link") is None
    assert second.status == 201
    assert origin.connections == 1


async def _close(connection: Connection) -> None:
    await connection.read_request()


async def _reset(connection: Connection) -> None:
    await connection.read_request()
    connection.reset()


async def _close_in_the_head(connection: Connection) -> None:
    await connection.read_request()
    await connection.send(b"HTTP/1.1 200 OK\r\nContent-Le")


async def _close_unread(connection: Connection) -> None:
    connection.reset()


@pytest.mark.parametrize("script", [_close, _reset, _close_in_the_head, _close_unread])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_close_before_a_response_is_bad_gateway(script: Script, method: str) -> None:
    """A connection that ends without a response is an error of the destination."""
    async with ScriptedOrigin(script) as origin, gateway(origin.url) as gate:
        reply = await fetch(gate.address, method, "/billing/x", body=b"x")

    assert _is_clean(reply, 502), reply


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("middlewares", [0, 1])
async def test_refused_connection_is_bad_gateway(method: str, middlewares: int) -> None:
    """Nothing listens on the port: 502."""
    async with gateway(f"http://127.0.0.1:{dead_port()}", middlewares=middlewares) as gate:
        reply = await fetch(gate.address, method, "/billing/x", body=b"x")

    assert _is_clean(reply, 502), reply


async def test_unknown_host_is_bad_gateway() -> None:
    """A name that does not resolve: 502."""
    async with gateway("http://no-such-host.invalid") as gate:
        reply = await fetch(gate.address, target="/billing/x")

    assert _is_clean(reply, 502), reply


@pytest.mark.parametrize("policy", ["round_robin", "power_of_two_choices", "first", "random"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_dead_destination_is_no_failed_request(method: str, policy: str) -> None:
    """A refused connection is retried at another destination, with any method."""
    dead = f"http://127.0.0.1:{dead_port()}"
    async with ScriptedOrigin() as origin, gateway(dead, origin.url, policy=policy) as gate:
        statuses = [
            (await fetch(gate.address, method, "/billing/x", body=b"hello")).status
            for _ in range(20)
        ]

    assert statuses == [200] * 20
    assert {seen.body for seen in origin.requests} == {b"hello"}


async def test_connect_timeout_is_gateway_timeout() -> None:
    """A host drops every SYN: 504 after ``timeouts.connect``."""
    with blackhole() as port:
        async with gateway(f"http://127.0.0.1:{port}", timeouts={"connect": 0.1}) as gate:
            reply = await fetch(gate.address, target="/billing/x")

    assert _is_clean(reply, 504), reply


def _shorten_connect_timeout(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let connections to ``port`` time out after a second; others have the upstream's timeout."""
    original = Dialler.dial

    async def dial(dialler: Dialler, connection: Any) -> Any:
        if dialler.address.port == port:
            dialler._connect_seconds = 1.0
        return await original(dialler, connection)

    monkeypatch.setattr(Dialler, "dial", dial)


async def test_connect_timeout_is_retried_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was sent, so the request may go to another destination."""
    loop = asyncio.get_running_loop()
    with blackhole() as port:
        async with (
            ScriptedOrigin() as origin,
            gateway(
                f"http://127.0.0.1:{port}", origin.url, policy="first", timeouts={"connect": 60}
            ) as gate,
        ):
            _shorten_connect_timeout(port, monkeypatch)
            began = loop.time()
            reply = await fetch(gate.address, "POST", "/billing/x", body=b"hello")
            waited = loop.time() - began

    assert waited >= 1  # less if the connection were refused
    assert reply.status == 200
    assert origin.request.body == b"hello"


@pytest.mark.parametrize("timeout", ["first_byte", "activity", "total"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_silent_destination_is_gateway_timeout(method: str, timeout: str) -> None:
    """A destination that never responds: 504, and it sees the close."""

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.peer_left()

    async with (
        ScriptedOrigin(script) as origin,
        gateway(origin.url, timeouts={timeout: 0.1}) as gate,
    ):
        reply = await fetch(gate.address, method, "/billing/x", body=b"x")
        await origin.all_left()

    assert _is_clean(reply, 504), reply


@pytest.mark.parametrize("chunked", [False, True])
async def test_upload_survives_a_slow_connect(
    chunked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No byte of the body is lost during a dial."""
    body = bytes(range(256)) * 2000
    framing = (
        (b"Transfer-Encoding", b"chunked") if chunked else (b"Content-Length", b"%d" % len(body))
    )
    with blackhole() as port:
        async with (
            ScriptedOrigin() as origin,
            gateway(
                f"http://127.0.0.1:{port}", origin.url, policy="first", timeouts={"connect": 60}
            ) as gate,
            connect(gate.address) as client,
        ):
            _shorten_connect_timeout(port, monkeypatch)
            await client.send(request("POST", "/billing/x", [framing]))
            await client.send(chunk(body) + chunk(b"") if chunked else body)
            reply = await client.read_response()

    assert reply.status == 200
    assert origin.request.body == body


async def test_plain_origin_behind_https_is_bad_gateway() -> None:
    """A TLS handshake that fails: 502."""

    async def script(connection: Connection) -> None:
        await connection.reader.read(65536)
        await connection.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await connection.peer_left()

    async with (
        ScriptedOrigin(script) as origin,
        gateway(origin.url.replace("http:", "https:")) as gate,
    ):
        reply = await fetch(gate.address, target="/billing/x")

    assert _is_clean(reply, 502), reply
    assert origin.requests == []


@pytest.mark.parametrize("trusted", [False, True])
async def test_certificate_is_verified(trusted: bool, tmp_path: Path) -> None:
    """An unknown authority is a 502 before anything is sent; a known one works."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    tls = {"ca_file": str(ca_file)} if trusted else {}

    async with ScriptedOrigin(tls=context) as origin, gateway(origin.url, tls=tls) as gate:
        reply = await fetch(gate.address, target="/billing/x")

    if trusted:
        assert (reply.status, reply.body) == (200, b"ok")
    else:
        assert _is_clean(reply, 502), reply
        assert origin.requests == []


async def test_unix_socket_is_reached(tmp_path: Path) -> None:
    """``http+unix://`` with the socket's path encoded, and a base path behind it."""
    path = tmp_path / "o.sock"
    async with (
        ScriptedOrigin(unix_path=str(path)) as origin,
        gateway(origin.url + "/base") as gate,
    ):
        reply = await fetch(gate.address, target="/billing/x")

    assert reply.status == 200
    assert origin.request.target == b"/base/x"


async def test_missing_unix_socket_is_bad_gateway(tmp_path: Path) -> None:
    """A missing socket is a refused connection."""
    path = str(tmp_path / "none.sock").replace("/", "%2F")
    async with gateway(f"http+unix://{path}") as gate:
        reply = await fetch(gate.address, target="/billing/x")

    assert _is_clean(reply, 502), reply
