"""Addresses, request targets and paths."""

from urllib.parse import quote, unquote

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from fastapi_proxy_di.wire.urls import (
    Address,
    climbs,
    join_target,
    parse_address,
    raw_path_below,
)

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


@pytest.mark.parametrize(
    ("base_path", "path", "query", "target"),
    [
        (b"", b"/x", b"", b"/x"),
        (b"", b"", b"", b"/"),
        (b"", b"", b"a=1", b"/?a=1"),
        (b"/base", b"", b"", b"/base"),
        (b"/base", b"/", b"", b"/base/"),
        (b"/base", b"//x/%2F;p", b"a=%20&&", b"/base//x/%2F;p?a=%20&&"),
        (b"/base", b"/a/../b", b"", b"/base/a/../b"),
    ],
)
def test_join_target_joins_bytes(
    base_path: bytes, path: bytes, query: bytes, target: bytes
) -> None:
    """Nothing is decoded, merged or resolved."""
    assert target == join_target(base_path, path, query)


@pytest.mark.parametrize(
    ("raw_path", "mount", "below"),
    [
        (b"/billing/x", "/billing", b"/x"),
        (b"/billing", "/billing", b""),
        (b"/billing/", "/billing", b"/"),
        (b"/billing//x", "/billing", b"//x"),
        (b"/billing/%2Fx;a", "/billing", b"/%2Fx;a"),
        (b"/bill%69ng/x", "/billing", b"/x"),
        (b"/bill%69ng", "/billing", b""),
        (b"/billing%2Fx", "/billing", None),
        (b"/billing%2fx/y", "/billing", None),
        (b"/billings/x", "/billing", None),
        (b"/bill", "/billing", None),
        (b"/", "/a/b", None),
        (b"/a/b/c", "/a/b", b"/c"),
        (b"/a%2Fb/c", "/a/b", None),
        (b"/x", "", b"/x"),
        (b"", "", b""),
        (b"*", "", None),
        (b"/b%C3%BCcher/x", "/bücher", b"/x"),
        ("/bücher/x".encode(), "/bücher", b"/x"),
        (b"/a%25b/x", "/a%b", b"/x"),
        (b"/a%2525b/x", "/a%25b", b"/x"),
        (b"/a%25b/x", "/a%25b", None),
    ],
)
def test_raw_path_below_finds_whole_segments(
    raw_path: bytes, mount: str, below: bytes | None
) -> None:
    """Each raw segment decodes to its segment of the mount, or the path is not below it."""
    assert below == raw_path_below(raw_path, mount)


@given(st.lists(SEGMENT.filter(lambda s: "/" not in s), max_size=3), RAW_PATH, st.data())
def test_raw_path_below_returns_the_rest_byte_for_byte(
    segments: list[str], rest: bytes, data: st.DataObject
) -> None:
    """The rest is unchanged, however the client encoded the mount."""
    mount = "".join("/" + segment for segment in segments)
    raw = b""
    for segment in segments:
        safe = data.draw(st.sampled_from(["", "!$&'()*+,;=:@"]))
        raw += b"/" + quote(segment, safe=safe).encode()

    assert rest == raw_path_below(raw + rest, mount)


@pytest.mark.parametrize(
    "path",
    [
        b"/..",
        b"/../x",
        b"/a/../..",
        b"/%2e%2e/x",
        b"/.%2E/x",
        b"/a/%2e./%2E%2e",
        b"/..%2fx",
        b"/x%2f..%2f..%2f..",
        b"/..\\x",
        b"/%5c..",
        b"/a//../..",
        b"/./../a/b",
        b"/..;x/y",
        b"/a%2fb/../..",
        b"..",
    ],
)
def test_climbs_finds_dot_segments_in_every_form(path: bytes) -> None:
    """Plain or encoded, with any separator that some server reads as a slash."""
    assert climbs(path)


@pytest.mark.parametrize(
    "path",
    [
        b"",
        b"/",
        b"/a/b",
        b"/a/..",
        b"/a/../b",
        b"/a/%2e%2e/b",
        b"/a/b/../..",
        b"/...",
        b"/..a",
        b"/a..b/c",
        b"/%252e%252e/x",
        b"/./.",
        b"/a%20b/%2f",
        b"/v1..v2",
    ],
)
def test_climbs_allows_paths_that_stay_below(path: bytes) -> None:
    """Dot segments alone are allowed; only one level of encoding counts."""
    assert not climbs(path)


@given(RAW_PATH)
@example(b"/a/../..")
def test_climbs_is_never_more_lenient_than_a_resolver(path: bytes) -> None:
    """Whatever a server that decodes once and resolves puts above the start, climbs."""
    decoded = unquote(path.decode()).replace("\\", "/")
    depth = lowest = 0
    for segment in decoded.split("/"):
        if segment == "..":
            depth -= 1
        elif segment not in ("", "."):
            depth += 1
        lowest = min(lowest, depth)

    assert climbs(path) or lowest >= 0


@given(st.binary(max_size=30))
def test_climbs_needs_a_double_dot(path: bytes) -> None:
    """Without two dots in a row, plain or encoded, no path climbs."""
    assume(b".." not in path.lower().replace(b"%2e", b"."))

    assert not climbs(path)
