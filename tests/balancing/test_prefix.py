"""Policy ``prefix``: which part of a body is the key, and that the key decides."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest

from fastapi_proxy_di.balancing.prefix import Prefix, prefix_key
from tests.balancing.drawing import Keyed
from tests.pools.samples import destinations_of
from tests.support.requests_in_flight import begin

SYSTEM = "You are helpful. " * 100


def key(document: Any, length: int = 1024) -> bytes | None:
    """Give the key of a JSON body."""
    return prefix_key(json.dumps(document).encode(), document, length)


def message(content: Any, role: str = "user") -> dict[str, Any]:
    """Give one message of a conversation."""
    return {"role": role, "content": content}


def part(text: str, **more: Any) -> dict[str, Any]:
    """Give one part of a message."""
    return {"type": "text", "text": text, **more}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"system": SYSTEM, "messages": []}, {"system": SYSTEM, "messages": [message("?")]}),
        ({"model": "a", "prompt": "x"}, {"prompt": "x", "stream": True}),
        ({"input": ["x", "y"]}, {"input": [message("x"), message("y")]}),
        (
            {"messages": [message(SYSTEM, "system"), message("a")]},
            {"messages": [message(SYSTEM, "system"), message("b"), message("c")]},
        ),
        (
            {"system": [part("x", cache_control={"type": "ephemeral"})], "messages": []},
            {"system": "x"},
        ),
        (
            {"messages": [message([part("x"), {"type": "image", "source": {"data": "1"}}])]},
            {"messages": [message("x")], "prompt": None, "system": 3},
        ),
    ],
)
def test_prompts_that_begin_alike_have_one_key(one: Any, other: Any) -> None:
    """Whatever the rest of the body is, and however the API writes a text."""
    assert key(one) == key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"system": "a", "messages": [message("?")]}, {"system": "b", "messages": [message("?")]}),
        ({"messages": [message("a")]}, {"messages": [message("b")]}),
        ({"prompt": "a"}, {"prompt": "b"}),
        ({"input": [message([part("a")])]}, {"input": [message([part("b")])]}),
        ({"prompt": "é" * 512}, {"prompt": "é" * 511 + "x"}),
    ],
)
def test_prompts_that_begin_otherwise_have_two_keys(one: Any, other: Any) -> None:
    """Within the first 1,024 bytes as UTF-8."""
    assert key(one) != key(other)


def test_key_ends_at_its_length() -> None:
    """What comes later does not count."""
    assert key({"prompt": "é" * 512 + "x"}) == key({"prompt": "é" * 512 + "y"})
    assert key({"prompt": "abcd"}, 3) == key({"prompt": "abce"}, 3)
    assert key({"prompt": "abcd"}, 4) != key({"prompt": "abce"}, 4)


@pytest.mark.parametrize("document", [None, {}, [], "a", 1, {"prompt": [1, 2]}, {"messages": {}}])
def test_body_without_a_prompt_counts_by_its_raw_bytes(document: Any) -> None:
    """Up to the same length; an empty body has no key."""
    assert prefix_key(b"abcd", document, 3) == prefix_key(b"abce", document, 3) is not None
    assert prefix_key(b"abcd", document, 4) != prefix_key(b"abce", document, 4)
    assert prefix_key(b"", document, 4) is None


def test_prompt_is_read_to_a_level() -> None:
    """A client may nest as deep as it likes; the raw bytes count then."""
    deep: Any = "x"
    for _ in range(900):
        deep = [deep]
    body = {"prompt": deep}
    content = json.dumps(body).encode()

    assert key({"messages": [message([part("a"), {"content": [part("b")]}])]}) == key(
        {"prompt": "ab"}
    )
    assert prefix_key(content, body, 1024) == prefix_key(content, None, 1024)


def test_surrogates_and_other_values_make_a_key() -> None:
    """JSON may have half of a pair, which no UTF-8 has."""
    assert key({"prompt": "\ud800"}) not in (None, key({"prompt": "x"}))


def test_prefix_sends_a_busy_key_on() -> None:
    """Of 64 requests with one key, none of four destinations gets over 1.25 times its share."""
    destinations = destinations_of(4)
    policy, same = Prefix(random=Random(1)), Keyed(b"key")
    first = policy.pick(destinations, same)
    for _ in range(64):
        picked = policy.pick(destinations, same)
        assert picked is not None
        begin(picked)

    assert first is not None
    assert first.in_flight == max(one.in_flight for one in destinations)
    assert 16 < first.in_flight <= 20 + 1
