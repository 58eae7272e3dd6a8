"""Requests that two servers might split differently are sent with one framing, or refused."""

import pytest

from tests.support.gateways import gateway, until
from tests.support.http_client import connect, fetch
from tests.support.origins import ScriptedOrigin

pytestmark = pytest.mark.e2e


_POST = b"POST /billing/x HTTP/1.1\r\nHost: gateway.test\r\n"
_EVIL = b"GET /billing/evil HTTP/1.1\r\nHost: gateway.test\r\n\r\n"
_AMBIGUOUS = {
    "length and chunked": _POST
    + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": _POST
    + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "two equal lengths": _POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nab",
    "two lengths": _POST + b"Content-Length: 2\r\nContent-Length: 9\r\n\r\nab",
    "list of lengths": _POST + b"Content-Length: 2, 2\r\n\r\nab",
    "signed length": _POST + b"Content-Length: +2\r\n\r\nab",
    "gzip, chunked": _POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked, gzip": _POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "chunked twice": _POST
    + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "xchunked": _POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "coding behind a tab": _POST + b"Transfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n",
    "space before the colon": _POST + b"Content-Length : 2\r\n\r\nab",
    "folded length": _POST + b"Content-Length:\r\n 2\r\n\r\nab",
    "bare CR in a value": _POST + b"X-A: 1\rContent-Length: 2\r\n\r\nab",
    "bare LF in a value": _POST + b"X-A: 1\nX-B: 2\r\nContent-Length: 2\r\n\r\nab",
    "NUL in a value": _POST + b"X-A: 1\0\r\nContent-Length: 2\r\n\r\nab",
    "signed chunk size": _POST + b"Transfer-Encoding: chunked\r\n\r\n+2\r\nab\r\n0\r\n\r\n",
    "length in the trailer": _POST
    + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nContent-Length: 9\r\n\r\n",
    "coding in the trailer": _POST
    + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nTransfer-Encoding: gzip\r\n\r\n",
}


@pytest.mark.parametrize("http", ["httptools", "h11"])
@pytest.mark.parametrize("name", _AMBIGUOUS)
async def test_ambiguous_request_is_refused_or_sent_with_one_framing(name: str, http: str) -> None:
    """By the server or by us; no byte follows the request."""
    async with (
        ScriptedOrigin() as origin,
        gateway(origin.url, server={"http": http}) as gate,
        connect(gate.address) as client,
    ):
        await client.send(_AMBIGUOUS[name])
        status = (await client.read_response()).status
        after = await fetch(gate.address, target="/billing/after")
        await until(lambda: gate.in_flight == 0, 10)

    begun = [seen for seen in origin.requests if seen.target == b"/x"]
    assert status in (200, 400)
    assert len(begun) == 1 if status == 200 else len(begun) <= 1
    for seen in begun:
        framing = len(seen.all(b"content-length")) + len(seen.all(b"transfer-encoding"))
        assert framing == 1
        assert seen.one(b"transfer-encoding") in (None, b"chunked")
        # The server may find out amid the body: then the destination sees no end of it.
        assert seen.complete is (status == 200)
    assert after.status == 200
    assert {seen.target for seen in origin.requests} <= {b"/x", b"/after"}


@pytest.mark.parametrize("http", ["httptools", "h11"])
@pytest.mark.parametrize("framing", [b"Content-Length: %d", b"Transfer-Encoding: chunked"])
async def test_request_within_a_body_stays_body(framing: bytes, http: str) -> None:
    """Bytes that look like a request are part of the body."""
    if b"%d" in framing:
        data = _POST + framing % len(_EVIL) + b"\r\n\r\n" + _EVIL
    else:
        data = _POST + framing + b"\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(_EVIL), _EVIL)
    async with (
        ScriptedOrigin() as origin,
        gateway(origin.url, server={"http": http}) as gate,
        connect(gate.address) as client,
    ):
        await client.send(data)
        await client.read_response()

    assert (origin.request.target, origin.request.body) == (b"/x", _EVIL)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "GET"])
async def test_request_without_framing_gets_a_length_if_bodies_are_usual(method: str) -> None:
    """RFC 9110 section 8.6: 0 for POST, PUT and PATCH, none for methods without a body."""
    async with ScriptedOrigin() as origin, gateway(origin.url) as gate:
        reply = await fetch(gate.address, method, "/billing/x")

    length = [b"0"] if method in ("POST", "PUT", "PATCH") else []
    assert reply.status == 200
    assert origin.request.all(b"content-length") == length
    assert origin.request.all(b"transfer-encoding") == []


@pytest.mark.parametrize("http", ["httptools", "h11"])
@pytest.mark.parametrize("blanks", [b" ", b"\t", b" \t "])
async def test_blanks_around_a_length_are_no_part_of_it(blanks: bytes, http: str) -> None:
    """RFC 9112 section 5.1: as an ordinary endpoint reads the request."""
    head = _POST + b"X-A:%bb c%b\r\nContent-Length:%b2%b\r\n\r\n" % ((blanks,) * 4)
    async with (
        ScriptedOrigin() as origin,
        gateway(origin.url, server={"http": http}) as gate,
        connect(gate.address) as client,
    ):
        await client.send(head + b"ab")
        status = (await client.read_response()).status

    assert status == 200
    assert origin.request.body == b"ab"
    assert origin.request.all(b"content-length") == [b"2"]
    assert origin.request.all(b"x-a") == [b"b c"]


_HOSTS = {
    "none": b"",
    "two": b"Host: good.test\r\nHost: evil.test\r\n",
    "the same twice": b"Host: good.test\r\nHost: good.test\r\n",
    "empty": b"Host:\r\n",
    "a list": b"Host: good.test, evil.test:80, x y\r\n",
    "user": b"Host: user@good.test\r\n",
    "path": b"Host: good.test/evil\r\n",
    "port": b"Host: good.test:evil\r\n",
    "quote": b'Host: good.test";for=1.2.3.4\r\n',
}


@pytest.mark.parametrize("http", ["httptools", "h11"])
@pytest.mark.parametrize("name", _HOSTS)
async def test_request_without_one_valid_host_is_refused(name: str, http: str) -> None:
    """RFC 9112 section 3.2; ``TrustedHostMiddleware`` checks only the first one."""
    async with (
        ScriptedOrigin() as origin,
        gateway(origin.url, server={"http": http}, preserve_host=True) as gate,
        connect(gate.address) as client,
    ):
        await client.send(b"GET /billing/x HTTP/1.1\r\n" + _HOSTS[name] + b"\r\n")
        status = (await client.read_response()).status
        failures = gate.balancer.destinations[0].failures

    assert (status, failures) == (400, 0)
    assert origin.connections == 0


@pytest.mark.parametrize("http", ["httptools", "h11"])
async def test_http_1_0_may_be_without_a_host(http: str) -> None:
    """RFC 9112 section 3.2 asks it of HTTP/1.1 only; no host is invented."""
    async with (
        ScriptedOrigin() as origin,
        gateway(origin.url, server={"http": http}, preserve_host=True) as gate,
        connect(gate.address) as client,
    ):
        await client.send(b"GET /billing/x HTTP/1.0\r\n\r\n")
        status = (await client.read_response()).status

    assert status == 200
    assert origin.request.one(b"host") == origin.authority.encode()
    assert origin.request.one(b"x-forwarded-host") is None
