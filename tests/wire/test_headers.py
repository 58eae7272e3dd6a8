"""Which fields cross, and which header arguments are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_proxy_di.wire.headers import (
    HOP_BY_HOP,
    OURS,
    PROXY_AUTHENTICATION,
    REQUEST_FATES,
    RESPONSE_FATES,
    TOKEN,
    Fate,
    FieldTable,
    Headers,
    fields_of,
    is_safe_block,
    list_members,
    nominated,
    set_fields,
)


@pytest.mark.parametrize("name", sorted(HOP_BY_HOP | PROXY_AUTHENTICATION))
def test_table_keeps_no_field_of_the_hop(name: bytes) -> None:
    """Neither way, in any case."""
    for fates in (REQUEST_FATES, RESPONSE_FATES):
        table = FieldTable(fates)

        assert table[name] is not Fate.KEEP
        assert table[name.upper()] is table[name]


@pytest.mark.parametrize(
    ("name", "fate"),
    [
        (b"Host", Fate.HOST),
        (b"Content-Length", Fate.LENGTH),
        (b"Transfer-Encoding", Fate.CODING),
        (b"Expect", Fate.EXPECT),
        (b"TE", Fate.TE),
        (b"Connection", Fate.CONNECTION),
        (b"Forwarded", Fate.FORWARDED),
        (b"X-Real-IP", Fate.FORWARDED),
        (b"X-Forwarded-For", Fate.FORWARDED),
        (b"x-forwarded-anything", Fate.FORWARDED),
        (b"X-Forwarded", Fate.KEEP),
        (b"Cookie", Fate.KEEP),
        (b"Upgrade", Fate.DROP),
        (b"HTTP2-Settings", Fate.DROP),
        (b"X-Gone", Fate.DROP),
        (b"", Fate.MALFORMED),
        (b"X A", Fate.MALFORMED),
        (b"X:", Fate.MALFORMED),
        (b"X\n", Fate.MALFORMED),
        (b"X\xe9", Fate.MALFORMED),
    ],
)
def test_table_of_requests(name: bytes, fate: Fate) -> None:
    """Asked twice, it answers the same."""
    table = FieldTable(REQUEST_FATES, [b"x-gone"])

    assert table[name] is fate
    assert table[name] is fate


@pytest.mark.parametrize(
    ("name", "fate"),
    [
        (b"x-forwarded-for", Fate.KEEP),
        (b"forwarded", Fate.KEEP),
        (b"content-length", Fate.KEEP),
        (b"trailer", Fate.TRAILER),
        (b"connection", Fate.CONNECTION),
        (b"transfer-encoding", Fate.DROP),
        (b"date", Fate.DROP),
    ],
)
def test_table_of_responses(name: bytes, fate: Fate) -> None:
    """An upstream's forwarding fields are its own affair."""
    assert FieldTable(RESPONSE_FATES, [b"date"])[name] is fate


def test_table_remembers_a_bounded_number_of_names() -> None:
    """A client that invents names does not fill our memory."""
    table = FieldTable(REQUEST_FATES)
    fates = {table[b"x-%d" % number] for number in range(5000)}

    assert fates == {Fate.KEEP}
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
def test_nominated_reads_every_line(values: list[bytes], names: set[bytes]) -> None:
    """Lower-case, over all lines, empty members skipped."""
    assert nominated(values) == names


@pytest.mark.parametrize(
    "given_fields",
    [
        {"X-A": "1", "x-b": " é "},
        {b"X-A": b"1", b"x-b": b"\xe9"},
        [("X-A", b"1"), (b"x-b", "\xe9\t")],
        iter([("X-A", "1"), ("x-b", "\xe9")]),
    ],
)
def test_fields_of_takes_mappings_and_pairs(given_fields: object) -> None:
    """Text is latin-1, names become lower-case, the whitespace around values goes."""
    fields = fields_of(given_fields, refuse=OURS, what="x")  # type: ignore[arg-type]

    assert fields == [(b"x-a", b"1"), (b"x-b", b"\xe9")]


def test_fields_of_nothing() -> None:
    """``None`` is no field; repeats stay."""
    assert fields_of(None, refuse=OURS, what="x") == []
    assert fields_of([("a", "1"), ("A", "2")], refuse=OURS, what="x") == [
        (b"a", b"1"),
        (b"a", b"2"),
    ]


@pytest.mark.parametrize("name", [*sorted(OURS), b"X-Forwarded-For", b"x-forwarded-new", b"HOST"])
def test_fields_of_refuses_what_is_ours(name: bytes) -> None:
    """Host, framing, hop-by-hop and forwarding."""
    with pytest.raises(ValueError, match=r"additional_headers: .* is set by the proxy"):
        fields_of([(name, b"x")], refuse=OURS, what="additional_headers")


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
def test_fields_of_refuses_what_is_malformed(name: str, value: str, text: str) -> None:
    """A line end never gets into a head this way."""
    with pytest.raises(ValueError, match=text):
        fields_of({name: value}, refuse=OURS, what="x")


def test_set_fields_replaces_by_name() -> None:
    """Whatever stood under those names goes; ours keep order and repeats."""
    headers: Headers = [(b"x", b"forged"), (b"a", b"1"), (b"x", b"again")]

    assert set_fields(headers, [(b"x", b"1"), (b"x", b"2")]) == [
        (b"a", b"1"),
        (b"x", b"1"),
        (b"x", b"2"),
    ]


@given(st.lists(st.binary(max_size=10), min_size=1, max_size=5))
def test_safe_block_has_no_line_end_but_its_own(parts: list[bytes]) -> None:
    """Exactly when no part holds CR, LF or NUL."""
    safe = not any(byte in b"\r\n\0" for part in parts for byte in part)

    assert is_safe_block(b"\r\n".join(parts), len(parts) - 1) == safe


@pytest.mark.parametrize(
    ("block", "lines"),
    [
        (b"a\n\r", 1),
        (b"a\r\r\n\n", 2),
        (b"a\n\rb\r\n", 2),
        (b"a\0\r", 1),
        (b"a\r\nb", 0),
        (b"a", 1),
    ],
)
def test_block_with_other_line_ends_is_not_safe(block: bytes, lines: int) -> None:
    """The right number of bytes in the wrong order is as bad."""
    assert not is_safe_block(block, lines)


def test_list_members_over_all_lines() -> None:
    """Lower-case, without empty ones."""
    headers = [(b"a", b"X, y"), (b"b", b"n"), (b"a", b",Z ,")]

    assert list_members(headers, b"a") == [b"x", b"y", b"z"]
    assert list_members(headers, b"c") == []


@pytest.mark.parametrize("name", [b"a\n", b"", b"a b", b"a\x7f", b"a/b", b'a"'])
def test_token_is_anchored(name: bytes) -> None:
    """A final line end is no part of a token."""
    assert not TOKEN.match(name)
