"""Which headers are forwarded, and which headers a user may not give."""

from __future__ import annotations

import pytest

from fastapi_proxy_di.wire.headers import (
    HOP_BY_HOP,
    PROXY_AUTHENTICATION,
    REQUEST_KINDS,
    RESPONSE_KINDS,
    SET_BY_PROXY,
    TOKEN,
    HeaderKind,
    HeaderKinds,
    Headers,
    TitleNames,
    checked_headers,
    list_members,
    nominated,
    set_headers,
)


@pytest.mark.parametrize("name", sorted(HOP_BY_HOP | PROXY_AUTHENTICATION))
def test_hop_by_hop_headers_are_never_kept(name: bytes) -> None:
    """Requests and responses, any case of the name."""
    for kinds in (REQUEST_KINDS, RESPONSE_KINDS):
        table = HeaderKinds(kinds)

        assert table[name] is not HeaderKind.KEEP
        assert table[name.upper()] is table[name]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (b"Host", HeaderKind.HOST),
        (b"Content-Length", HeaderKind.LENGTH),
        (b"Transfer-Encoding", HeaderKind.CODING),
        (b"Expect", HeaderKind.EXPECT),
        (b"TE", HeaderKind.TE),
        (b"Connection", HeaderKind.CONNECTION),
        (b"Forwarded", HeaderKind.FORWARDED),
        (b"X-Real-IP", HeaderKind.FORWARDED),
        (b"X-Forwarded-For", HeaderKind.FORWARDED),
        (b"x-forwarded-anything", HeaderKind.FORWARDED),
        (b"X_Forwarded_For", HeaderKind.FORWARDED),
        (b"x-forwarded_proto", HeaderKind.FORWARDED),
        (b"x_real_ip", HeaderKind.FORWARDED),
        (b"X-Forwarded", HeaderKind.KEEP),
        (b"Cookie", HeaderKind.KEEP),
        (b"Upgrade", HeaderKind.DROP),
        (b"HTTP2-Settings", HeaderKind.DROP),
        (b"X-Gone", HeaderKind.DROP),
        (b"X_Gone", HeaderKind.DROP),
        (b"Content_Length", HeaderKind.DROP),
        (b"X_Kept", HeaderKind.KEEP),
        (b"", HeaderKind.MALFORMED),
        (b"X A", HeaderKind.MALFORMED),
        (b"X:", HeaderKind.MALFORMED),
        (b"X\n", HeaderKind.MALFORMED),
        (b"X\xe9", HeaderKind.MALFORMED),
    ],
)
def test_kinds_of_request_headers(name: bytes, kind: HeaderKind) -> None:
    """The second look-up, from the cache, gives the same."""
    table = HeaderKinds(REQUEST_KINDS, [b"x-gone"])

    assert table[name] is kind
    assert table[name] is kind


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (b"x-forwarded-for", HeaderKind.KEEP),
        (b"forwarded", HeaderKind.KEEP),
        (b"content-length", HeaderKind.KEEP),
        (b"trailer", HeaderKind.TRAILER),
        (b"connection", HeaderKind.CONNECTION),
        (b"transfer-encoding", HeaderKind.DROP),
        (b"date", HeaderKind.DROP),
    ],
)
def test_kinds_of_response_headers(name: bytes, kind: HeaderKind) -> None:
    """Forwarding headers of a response are kept."""
    assert HeaderKinds(RESPONSE_KINDS, [b"date"])[name] is kind


def test_header_kinds_caches_a_bounded_number_of_names() -> None:
    """A client that invents names does not fill the memory."""
    table = HeaderKinds(REQUEST_KINDS)
    kinds = {table[b"x-%d" % number] for number in range(5000)}

    assert kinds == {HeaderKind.KEEP}
    assert len(table) == 4096


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([], set()),
        ([b"close"], {b"close"}),
        ([b"Keep-Alive, X-A"], {b"keep-alive", b"x-a"}),
        ([b" x-a ,, \tX-B,", b"host"], {b"x-a", b"x-b", b"host"}),
    ],
)
def test_nominated_reads_every_connection_header(values: list[bytes], names: set[bytes]) -> None:
    """Names are lower-case; empty members are skipped."""
    assert nominated(values) == names


@pytest.mark.parametrize(
    "given_headers",
    [
        {"X-A": "1", "x-b": " é "},
        {b"X-A": b"1", b"x-b": b"\xe9"},
        [("X-A", b"1"), (b"x-b", "\xe9\t")],
        iter([("X-A", "1"), ("x-b", "\xe9")]),
    ],
)
def test_checked_headers_takes_mappings_and_pairs(given_headers: object) -> None:
    """Text is latin-1, names become lower-case, the whitespace around values goes."""
    checked = checked_headers(given_headers, refuse=SET_BY_PROXY, what="x")  # type: ignore[arg-type]

    assert checked == [(b"x-a", b"1"), (b"x-b", b"\xe9")]


def test_checked_headers_keeps_repeats() -> None:
    """``None`` gives no headers."""
    assert checked_headers(None, refuse=SET_BY_PROXY, what="x") == []
    assert checked_headers([("a", "1"), ("A", "2")], refuse=SET_BY_PROXY, what="x") == [
        (b"a", b"1"),
        (b"a", b"2"),
    ]


@pytest.mark.parametrize(
    "name", [*sorted(SET_BY_PROXY), b"X-Forwarded-For", b"x-forwarded-new", b"HOST"]
)
def test_checked_headers_refuses_headers_set_by_the_proxy(name: bytes) -> None:
    """Host, framing, hop-by-hop and forwarding headers."""
    with pytest.raises(ValueError, match=r"additional_headers: .* is set by the proxy"):
        checked_headers([(name, b"x")], refuse=SET_BY_PROXY, what="additional_headers")


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("", "x", "not a header name"),
        ("a b", "x", "not a header name"),
        ("a:", "x", "not a header name"),
        ("a\n", "x", "not a header name"),
        ("é", "x", "not a header name"),
        ("a", "x\r\nb: c", "CR, LF or NUL"),
        ("a", "\n", "CR, LF or NUL"),
        ("a", "x\0", "CR, LF or NUL"),
        ("a", "€", "latin-1"),
    ],
)
def test_checked_headers_refuses_malformed_headers(name: str, value: str, text: str) -> None:
    """Names must be tokens; values may hold no line end."""
    with pytest.raises(ValueError, match=text):
        checked_headers({name: value}, refuse=SET_BY_PROXY, what="x")


def test_set_headers_replaces_by_name() -> None:
    """All former values go; the new ones keep their order and repeats."""
    headers: Headers = [(b"x-y", b"forged"), (b"a_b", b"1"), (b"x_y", b"again")]

    assert set_headers(headers, [(b"x-y", b"1"), (b"x-y", b"2")]) == [
        (b"a_b", b"1"),
        (b"x-y", b"1"),
        (b"x-y", b"2"),
    ]


def test_list_members_reads_all_headers_of_the_name() -> None:
    """Members are lower-case; empty ones are skipped."""
    headers = [(b"a", b"X, y"), (b"b", b"n"), (b"a", b",Z ,")]

    assert list_members(headers, b"a") == [b"x", b"y", b"z"]
    assert list_members(headers, b"c") == []


@pytest.mark.parametrize("name", [b"a\n", b"", b"a b", b"a\x7f", b"a/b", b'a"'])
def test_token_is_anchored(name: bytes) -> None:
    """A token may not be followed by a line end or anything else."""
    assert not TOKEN.match(name)


@pytest.mark.parametrize(
    ("name", "title"),
    [
        (b"content-length", b"Content-Length"),
        (b"x-request-id", b"X-Request-Id"),
        (b"host", b"Host"),
        (b"x--1a", b"X--1a"),
    ],
)
def test_title_names_have_a_capital_in_each_word(name: bytes, title: bytes) -> None:
    """The second look-up gives the same."""
    names = TitleNames()

    assert [names[name], names[name]] == [title, title]


def test_title_names_are_bounded() -> None:
    """Names that clients invent do not fill the memory."""
    names = TitleNames()
    for number in range(5000):
        assert names[b"x-%d" % number] == b"X-%d" % number

    assert len(names) == 4096
