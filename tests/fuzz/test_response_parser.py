"""A short run of the response fuzzer, and hypothesis on well-formed responses."""

from __future__ import annotations

import asyncio
import string
import sys
from collections.abc import Iterable
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastapi_proxy_di.transport.protocol import Headers
from tests.fuzz import response_parser
from tests.fuzz.response_parser import Disagreement, Second, check, fuzz, run_case
from tests.fuzz.responses import Case, make_case
from tests.transport.http1.stand_in import Outcome, response_to

_TOKEN = "!#$%&'*+.^_`|~-" + string.digits + string.ascii_letters
_FRAMING = {"content-length", "transfer-encoding", "connection", "keep-alive", "upgrade"}
# Drawn as one string: of a regex, each character is a draw of its own.
_NAMES = (
    st.text(_TOKEN, min_size=1, max_size=20)
    .filter(lambda name: name.lower() not in _FRAMING)
    .map(str.encode)
)
_VALUES = st.binary(max_size=30).map(
    lambda value: bytes(byte for byte in value if byte >= 0x20 and byte != 0x7F).strip(b" \t")
)
_HEADERS = st.lists(st.tuples(_NAMES, _VALUES), max_size=6)
_BODIES = st.lists(st.binary(min_size=1, max_size=200), max_size=5)


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    """Split ``data`` at the given places."""
    places = sorted({place % (len(data) + 1) for place in cuts})
    edges = zip([0, *places], [*places, len(data)], strict=True)
    return [data[start:stop] for start, stop in edges if stop > start]


@settings(max_examples=300, deadline=None)
@given(
    status=st.integers(200, 599).filter(lambda status: status not in {204, 304}),
    headers=_HEADERS,
    body=_BODIES,
    framing=st.sampled_from(["length", "chunked", "close"]),
    trailers=_HEADERS,
    cuts=st.lists(st.integers(0, 5000), max_size=6),
)
def test_any_well_formed_response_is_read(
    status: int,
    headers: Headers,
    body: list[bytes],
    framing: str,
    trailers: Headers,
    cuts: list[int],
) -> None:
    """Status, headers and body are right for any framing and any split of the bytes."""
    head = b"HTTP/1.1 %d X\r\n" % status
    head += b"".join(b"%b: %b\r\n" % header for header in headers)
    content = b"".join(body)
    if framing == "length":
        data = head + b"Content-Length: %d\r\n\r\n" % len(content) + content
    elif framing == "chunked":
        data = head + b"Transfer-Encoding: chunked\r\n\r\n"
        data += b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in body)
        data += b"0\r\n" + b"".join(b"%b: %b\r\n" % header for header in trailers) + b"\r\n"
    else:
        data = head + b"\r\n" + content
    outcome = asyncio.run(response_to(cut(data, cuts), eof=framing == "close"))

    assert outcome.error is None
    assert outcome.status == status
    assert outcome.headers[: len(headers)] == [(name.lower(), value) for name, value in headers]
    assert outcome.body == content
    if framing == "chunked":
        assert outcome.trailers == [(name.lower(), value) for name, value in trailers]
    assert outcome.reusable == (framing != "close")


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=300), cuts=st.lists(st.integers(0, 300), max_size=4))
def test_any_bytes_are_refused_or_read_as_by_h11(data: bytes, cuts: list[int]) -> None:
    """Random bytes, alone and after the beginning of a response."""
    for prefix in (
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ):
        asyncio.run(run_case(Case(b"GET", tuple(cut(prefix + data, cuts)))))


def test_mutated_responses_never_smuggle() -> None:
    """Some thousand cases of the long run, with every kind of end."""

    async def run() -> set[str]:
        ends = set()
        for number in range(3000):
            ours = await run_case(make_case(Random(f"test/{number}")))
            ends.add(type(ours.error).__name__ if ours.error else str(ours.reusable))
        return ends

    assert asyncio.run(run()) >= {"True", "False", "UpstreamProtocolError", "TimeoutError"}


async def test_fuzz_counts_its_cases() -> None:
    """The long form runs for an instant."""
    counts = await fuzz(1, 0.01)

    assert counts["cases"] == sum(counts.values()) - counts["cases"]
    assert counts["cases"] % 500 == 0


async def test_fuzz_names_the_case_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The seed and the number reproduce the case."""

    def disagree(*_: object) -> None:
        raise Disagreement("x")

    monkeypatch.setattr(response_parser, "check", disagree)
    with pytest.raises(Disagreement) as caught:
        await fuzz(7, 1)

    assert caught.value.__notes__[0].startswith("seed 7, case 0: Case(")


async def test_fuzz_finds_a_parser_that_keeps_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each case is also read by a used parser, with the same result."""

    async def remembering(pieces: Iterable[bytes], **options: Any) -> Outcome:
        outcome = await response_to(pieces, **options)
        return replace(outcome, status=299) if "parser" in options else outcome

    monkeypatch.setattr(response_parser, "response_to", remembering)
    with pytest.raises(Disagreement, match="a used parser"):
        await run_case(Case(b"GET", (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",)))


def test_main_prints_the_counts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The fuzzer runs as a command."""
    monkeypatch.setattr(sys, "argv", ["response_parser", "--seconds", "0.01", "--seed", "3"])
    response_parser.main()

    assert "'cases'" in capsys.readouterr().out


_FINE = Outcome(200, [(b"x", b"y")], b"hello", [(b"t", b"u")], None, True)
_AGREED = Second(200, [(b"x", b"y")], b"hello", [(b"t", b"u")], True, b"", False, True)


@pytest.mark.parametrize(
    ("ours", "second"),
    [
        (replace(_FINE, status=0, error=TimeoutError()), _AGREED),
        (_FINE, replace(_AGREED, ended=False, refused=True, keep_alive=False)),
        (_FINE, replace(_AGREED, ended=False, keep_alive=False)),
        (_FINE, replace(_AGREED, surplus=b"x")),
        (_FINE, replace(_AGREED, keep_alive=False)),
        (_FINE, replace(_AGREED, status=201)),
        (_FINE, replace(_AGREED, body=b"hell")),
        (_FINE, replace(_AGREED, headers=[])),
        (_FINE, replace(_AGREED, headers=[(b"x", b"Y")])),
        (_FINE, replace(_AGREED, trailers=[])),
        (replace(_FINE, reusable=False), replace(_AGREED, refused=True)),
        (replace(_FINE, body=b"x", error=TimeoutError(), reusable=False), _AGREED),
        (replace(_FINE, headers=[(b"x", b"\n")]), replace(_AGREED, headers=[(b"x", b"\n")])),
    ],
)
def test_check_finds_each_disagreement(ours: Outcome, second: Second) -> None:
    """A check that never fails would find nothing."""
    check(Case(b"GET", ()), _FINE, _AGREED)
    with pytest.raises(Disagreement):
        check(Case(b"GET", ()), ours, second)
