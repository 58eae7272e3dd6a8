"""Request headers: order and repeats are kept, hop-by-hop headers removed, none added."""

import pytest

from tests.support.gateways import gateway
from tests.support.http_client import fetch
from tests.support.origins import Headers, Received, ScriptedOrigin, always, response_bytes

pytestmark = pytest.mark.e2e


_OURS = {
    b"host",
    b"via",
    b"x-forwarded-for",
    b"x-forwarded-proto",
    b"x-forwarded-host",
    b"x-forwarded-prefix",
}


def _theirs(received: Received) -> Headers:
    """Give the headers that are not the gateway's own, in order."""
    return [(name.lower(), value) for name, value in received.headers if name.lower() not in _OURS]


async def test_request_headers_keep_order_and_repeats() -> None:
    """Repeated names are not joined."""
    pairs = [
        (b"x-b", b"1"),
        (b"accept", b"text/html"),
        (b"x-a", b"2"),
        (b"x-b", b"3"),
        (b"accept", b"*/*;q=0.1"),
        (b"cookie", b"a=1"),
        (b"cookie", b"b=2"),
        (b"x-b", b"1"),
    ]
    async with ScriptedOrigin() as origin, gateway(origin.url) as gate:
        await fetch(gate.address, target="/billing/x", headers=pairs)

    assert _theirs(origin.request) == pairs


async def test_request_headers_keep_bytes() -> None:
    """Values are bytes: latin-1, UTF-8, tabs, commas, quotes and nothing at all."""
    pairs = [
        (b"x-latin", b"caf\xe9"),
        (b"x-utf8", "é".encode()),
        (b"x-tab", b"a\tb"),
        (b"x-list", b'a,  b ,"c,d"'),
        (b"x-empty", b""),
        (b"x_underscore", b"1"),
        (b"x-long", b"y" * 8000),
    ]
    async with ScriptedOrigin() as origin, gateway(origin.url) as gate:
        await fetch(gate.address, target="/billing/x", headers=pairs)

    assert _theirs(origin.request) == pairs


async def test_no_request_header_is_added() -> None:
    """A request with only Host arrives with only Host."""
    async with (
        ScriptedOrigin() as origin,
        gateway(origin.url, forwarded={"mode": "off", "via": False}) as gate,
    ):
        await fetch(gate.address, target="/billing/x")

    assert origin.request.names == [b"host"]


async def test_length_of_zero_is_the_only_framing_of_a_post_without_body() -> None:
    """The length is kept, and nothing is added."""
    async with ScriptedOrigin() as origin, gateway(origin.url) as gate:
        await fetch(gate.address, "POST", "/billing/x", body=b"")

    assert _theirs(origin.request) == [(b"content-length", b"0")]


@pytest.mark.parametrize(
    "header",
    [
        (b"Connection", b"keep-alive"),
        (b"Keep-Alive", b"timeout=5"),
        (b"Proxy-Connection", b"keep-alive"),
        (b"TE", b"gzip"),
        (b"Upgrade", b"foo/2"),
    ],
)
async def test_hop_by_hop_request_header_is_removed(header: tuple[bytes, bytes]) -> None:
    """RFC 9110 section 7.6.1: these headers are for the gateway only."""
    async with ScriptedOrigin() as origin, gateway(origin.url) as gate:
        await fetch(gate.address, target="/billing/x", headers=[header, (b"X-Kept", b"1")])

    assert _theirs(origin.request) == [(b"x-kept", b"1")]


@pytest.mark.parametrize(
    "connection",
    [[b"close, X-Hop"], [b"x-hOP"], [b"close", b"X-Hop"], [b"a,,X-Hop ,b"], [b"\tX-Hop"]],
)
async def test_nominated_request_header_is_removed(connection: list[bytes]) -> None:
    """Every header that Connection names, in any case and in any of its lines."""
    pairs = [(b"X-Hop", b"secret"), (b"X-Kept", b"1"), (b"X-Hop", b"again")]
    pairs += [(b"Connection", value) for value in connection]
    async with ScriptedOrigin() as origin, gateway(origin.url) as gate:
        await fetch(gate.address, target="/billing/x", headers=pairs)

    assert _theirs(origin.request) == [(b"x-kept", b"1")]


async def test_te_trailers_is_the_only_te_that_stays() -> None:
    """Transfer codings are negotiated per hop."""
    async with ScriptedOrigin() as origin, gateway(origin.url) as gate:
        await fetch(
            gate.address, target="/billing/x", headers=[(b"TE", b"trailers, deflate;q=0.5")]
        )

    assert origin.request.one(b"te") in (None, b"trailers")


async def test_nominated_framing_and_identity_stay_ours() -> None:
    """Connection cannot remove Host, the length or the forwarding headers."""
    async with ScriptedOrigin() as origin, gateway(origin.url) as gate:
        await fetch(
            gate.address,
            "POST",
            "/billing/x",
            [
                (b"Connection", b"close, Host, Content-Length, Transfer-Encoding, Via"),
                (b"Connection", b"X-Forwarded-For, X-Forwarded-Host, X-Forwarded-Proto"),
                (b"Connection", b"X-Forwarded-Prefix"),
                (b"X-Forwarded-For", b"6.6.6.6"),
            ],
            b"hello",
        )

    assert origin.request.one(b"host") == origin.authority.encode()
    assert origin.request.one(b"content-length") == b"5"
    assert origin.request.body == b"hello"
    assert origin.request.one(b"x-forwarded-for") == b"127.0.0.1"
    assert origin.request.one(b"x-forwarded-host") == b"gateway.test"
    assert origin.request.one(b"x-forwarded-proto") == b"http"
    assert origin.request.one(b"x-forwarded-prefix") == b"/billing"
    assert origin.request.one(b"via") is not None


async def test_offer_of_h2c_is_not_forwarded() -> None:
    """The offer is for this hop; the request itself is served."""
    async with ScriptedOrigin() as origin, gateway(origin.url) as gate:
        reply = await fetch(
            gate.address,
            target="/billing/x",
            headers=[
                (b"Connection", b"Upgrade, HTTP2-Settings"),
                (b"Upgrade", b"h2c"),
                (b"HTTP2-Settings", b"AAMAAABkAARAAAAAAAIAAAAA"),
            ],
        )

    assert reply.status == 200
    assert _theirs(origin.request) == []


async def test_host_is_the_destination_s() -> None:
    """By default Host names the destination, once, and is first."""
    async with ScriptedOrigin() as origin, gateway(origin.url) as gate:
        await fetch(gate.address, target="/billing/x")

    assert origin.request.headers[0][0].lower() == b"host"
    assert origin.request.one(b"host") == origin.authority.encode()


async def test_host_can_be_preserved() -> None:
    """With ``preserve_host`` the client's Host is sent."""
    async with ScriptedOrigin() as origin, gateway(origin.url, preserve_host=True) as gate:
        await fetch(gate.address, target="/billing/x", host=b"shop.example:8443")

    assert origin.request.one(b"host") == b"shop.example:8443"


async def test_cookies_of_one_client_do_not_reach_another() -> None:
    """The gateway keeps no cookie that a destination sets."""
    reply = response_bytes(body=b"ok", headers=[(b"Set-Cookie", b"session=alice; Path=/")])
    async with ScriptedOrigin(always(reply)) as origin, gateway(origin.url) as gate:
        await fetch(gate.address, target="/billing/x")
        await fetch(gate.address, target="/billing/x")

    assert [seen.all(b"cookie") for seen in origin.requests] == [[], []]
