"""Addresses are parsed once, and say what would be right."""

from urllib.parse import quote, unquote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fastapi_proxy_di.wire.addresses import Address, parse_address
from fastapi_proxy_di.wire.targets import climbs

SEGMENT = st.text(st.sampled_from("aZ09-._~%!$&'()*+,;=:@é/ "), min_size=1, max_size=6)
RAW_PATH = st.lists(
    st.sampled_from(["a", ".", "..", "%2e", "%2E.", "", "%2f", "%5C", "\\", "..;x", "%20", "b"]),
    max_size=8,
).map(lambda parts: ("/" + "/".join(parts)).encode())


def test_parse_address_gives_all_parts_of_a_tcp_address() -> None:
    """Scheme and host are normalised, the base path stays raw and loses its last slash."""
    expected = Address(
        url="https://api.example.com:8443/a%2fb//c",
        scheme="https",
        host="api.example.com",
        port=8443,
        authority=b"api.example.com:8443",
        base_path=b"/a%2fb//c",
    )

    assert expected == parse_address(" HTTPS://API.Example.com:8443/a%2fb//c/ ")


@pytest.mark.parametrize(
    ("text", "url", "host", "port", "authority"),
    [
        ("http://a", "http://a", "a", 80, b"a"),
        ("http://a:80/", "http://a", "a", 80, b"a"),
        ("https://a:443", "https://a", "a", 443, b"a"),
        ("https://a:80", "https://a:80", "a", 80, b"a:80"),
        ("http://10.0.0.1:8080", "http://10.0.0.1:8080", "10.0.0.1", 8080, b"10.0.0.1:8080"),
        ("http://my_svc:1", "http://my_svc:1", "my_svc", 1, b"my_svc:1"),
        (
            "http://bücher.de",
            "http://xn--bcher-kva.de",
            "xn--bcher-kva.de",
            80,
            b"xn--bcher-kva.de",
        ),
        ("http://[::1]", "http://[::1]", "::1", 80, b"[::1]"),
        ("http://[FD00:0::1]:81", "http://[fd00::1]:81", "fd00::1", 81, b"[fd00::1]:81"),
        (
            "http://[fe80::1%25eth0]:81",
            "http://[fe80::1%25eth0]:81",
            "fe80::1%eth0",
            81,
            b"[fe80::1]:81",
        ),
        ("http://a.svc.:81", "http://a.svc.:81", "a.svc.", 81, b"a.svc:81"),
    ],
)
def test_parse_address_normalises_host_and_port(
    text: str, url: str, host: str, port: int, authority: bytes
) -> None:
    """The default port is removed; brackets, zones and final dots are where they belong."""
    address = parse_address(text)

    assert (url, host, port, authority) == (
        address.url,
        address.host,
        address.port,
        address.authority,
    )
    assert address == parse_address(address.url)


@pytest.mark.parametrize(
    ("text", "name"),
    [("https://a.svc.", "a.svc"), ("https://[fe80::1%25eth0]", "fe80::1"), ("https://a", "a")],
)
def test_server_name_has_no_final_dot_and_no_zone(text: str, name: str) -> None:
    """As certificates name hosts."""
    assert name == parse_address(text).server_name


def test_parse_address_reads_a_unix_socket() -> None:
    """The socket path is percent-encoded in place of the host."""
    expected = Address(
        url="http+unix://%2Frun%2Fapp.sock/base",
        scheme="http+unix",
        host="localhost",
        port=80,
        authority=b"localhost",
        base_path=b"/base",
        socket_path="/run/app.sock",
    )

    assert expected == parse_address("http+unix://%2frun%2Fapp.sock/base/")


def test_parse_address_reads_an_app() -> None:
    """Names in Python keep their case."""
    expected = Address(
        url="asgi://pkg.Mod:make.App/v1",
        scheme="asgi",
        host="localhost",
        port=80,
        authority=b"localhost",
        base_path=b"/v1",
        app="pkg.Mod:make.App",
    )

    assert expected == parse_address("asgi://pkg.Mod:make.App/v1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("10.0.0.1:8080", "has no scheme; write http://10.0.0.1:8080"),
        ("/run/app.sock", "has no scheme"),
        ("//", "write http://host:port"),
        ("10.0.0.1:80;10.0.0.2:80", "is not one address; separate addresses by commas"),
        ("ftp://a", "use http, https, http\\+unix or asgi"),
        ("http://a?x=1", "has a query"),
        ("http://a/?", "has a query"),
        ("http://a/#f", "has a fragment"),
        ("http://a b", "percent-encode"),
        ("http://a/\\b", "percent-encode"),
        ("http://a/b\nc", "percent-encode"),
        ("http://a:0", "1 to 65535"),
        ("http://a:", "1 to 65535"),
        ("http://a:65536", "1 to 65535"),
        ("http://a:٣", "1 to 65535"),
        ("http://", "has no host"),
        ("http://:80", "has no host"),
        ("http://::1:80", "IPv6 in brackets"),
        ("http://[::1", "bad IPv6 address"),
        ("http://[::1]x", "1 to 65535"),
        ("http://[::1]x:1", "bad IPv6 address"),
        ("http://[zz]:1", "bad IPv6 address"),
        ("http://[[::1]]", "bad IPv6 address"),
        ("http://256.1.1.1", "bad IPv4 address"),
        ("http://127.1", "bad IPv4 address"),
        ("http://a..b", "bad host name"),
        ("http://a:80:80", "has more than one ':' after http://; write http://host:port"),
        ("https://a::443/x", "has more than one ':' after https://; write https://host:port"),
        ("http://fd00::1", "IPv6 in brackets"),
        ("http://.a", "bad host name"),
        ("http://a*b", "bad host name"),
        ("http://" + "ü" * 70, "bad host name"),
        ("http://a/%zz", "write it as %25"),
        ("http://a/x/../y", "dot segments"),
        ("http://a/%2e", "dot segments"),
        ("http://a/x%2f..%5cy", "dot segments"),
        ("http+unix:///run/app.sock", "%2Frun%2Fapp.sock"),
        ("http+unix://app.sock", "%2Frun%2Fapp.sock"),
        ("http+unix://%2Frun%00", "%2Frun%2Fapp.sock"),
        ("http+unix://%2Frun%zz", "%2Frun%2Fapp.sock"),
        ("asgi://package.module", "asgi://package.module:app"),
        ("asgi://1a:b", "asgi://package.module:app"),
    ],
)
def test_parse_address_explains_each_fault(text: str, message: str) -> None:
    """The message names the fault and how to write the address."""
    with pytest.raises(ValueError, match=message):
        parse_address(text)


@pytest.mark.parametrize(
    "text",
    [
        "http://user:geheim@a",
        "http://user:geheim/x@a",
        "http://user:geheim?x@a",
        "http://user:geheim#x@a",
        "user:geheim@a",
        "user@geheim@a",
        "ftp://user:geheim@a",
        "http://a?token=geheim",
        "a?token=geheim",
        "http://a#geheim",
    ],
)
def test_parse_address_shows_no_credentials(text: str) -> None:
    """No message shows a part that may be secret."""
    with pytest.raises(ValueError, match=r"has|holds") as caught:
        parse_address(text)

    assert "geheim" not in str(caught.value)


@given(SEGMENT)
def test_parse_address_keeps_the_meaning_of_a_base_path(segment: str) -> None:
    """Encoded parts stay as written; encoding the others keeps the meaning."""
    path = "/" + quote(segment, safe="")
    assume(segment not in (".", "..") and not climbs(path.encode()))
    assume("." not in segment and "/" not in segment)

    assert path.encode() == parse_address("http://a" + path).base_path
    assert segment == unquote(
        parse_address("http://a/" + segment.replace("%", "%25").replace(" ", "%20"))
        .base_path[1:]
        .decode()
    )
