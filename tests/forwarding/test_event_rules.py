"""The rules for the first event that counts: recorded events of the APIs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fastapi_proxy_di.forwarding.event_rules import event_rule
from fastapi_proxy_di.wire.event_stream import SseEvent

CONSTANT = 7


async def coroutine_rule(event: SseEvent) -> bool:
    """Refused: a rule does not wait."""
    return True


def chat(**delta: Any) -> dict[str, Any]:
    """Give a chunk of OpenAI's chat."""
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    return {"object": "chat.completion.chunk", "choices": [choice]}


def judged(name: str, data: object, event: str = "message") -> bool | None:
    """Judge an event by a built-in rule; what is no text is sent as JSON."""
    text = data if isinstance(data, str) else json.dumps(data)
    return event_rule(name)(SseEvent(text, event))


ALL = ("any", "openai", "anthropic")


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    ("data", "event", "expected"),
    [
        ("", "message", None),
        (" ", "message", None),
        ({"type": "ping"}, "ping", None),
        ("ping", "message", None),
        ("anything", "message", True),
        ("[DONE]", "message", True),
        ("[1]", "message", True),
        ("{no JSON", "message", True),
        ('{"a":' * 20_000, "message", True),
        ("no", "error", False),
        ({"error": {"message": "no"}}, "message", False),
        ({"error": "no", "choices": []}, "message", False),
        ({"error": None}, "message", True),
        ({"response": {"error": "no"}}, "message", True),
    ],
)
def test_events_that_all_rules_know(
    name: str, data: object, event: str, expected: bool | None
) -> None:
    """Pings wait, errors fail, other data counts."""
    assert judged(name, data, event) is expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (chat(role="assistant", content=""), None),
        (chat(role="assistant", content="", refusal=None), None),
        (chat(), None),
        ({"choices": [], "usage": None}, None),
        (chat(content="a"), True),
        (chat(content=" "), True),
        (chat(reasoning_content="a"), True),
        (chat(refusal="no"), True),
        (chat(tool_calls=[{"index": 0, "function": {"name": "f", "arguments": ""}}]), True),
        ({"choices": [{"delta": {}, "finish_reason": "stop"}]}, True),
        ({"choices": [{"text": "", "finish_reason": None}]}, None),
        ({"choices": [{"text": "a", "finish_reason": None}]}, True),
        ({"choices": ["a"]}, True),
        ({"choices": "a"}, True),
        ({"type": "response.created", "response": {"error": None}}, None),
        ({"type": "response.in_progress"}, None),
        ({"type": "response.output_item.added"}, None),
        ({"type": "response.output_text.delta", "delta": "a"}, True),
        ({"type": "response.function_call_arguments.delta", "delta": "{"}, True),
        ({"type": "response.completed"}, True),
        ({"type": "response.incomplete"}, True),
        ({"type": "response.failed"}, False),
        ({"type": "error", "message": "no"}, False),
        ({"type": 1}, True),
    ],
)
def test_openai_waits_for_content(data: object, expected: bool | None) -> None:
    """The chunk with the role, which servers send before the model has made anything, waits."""
    assert judged("openai", data) is expected


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("message_start", None),
        ("content_block_start", None),
        ("ping", None),
        ("content_block_delta", True),
        ("message_delta", True),
        ("message_stop", True),
        ("error", False),
    ],
)
def test_anthropic_waits_for_a_delta(kind: str, expected: bool | None) -> None:
    """By the type in the data, which is also that of the event."""
    assert judged("anthropic", {"type": kind}) is expected
    assert judged("anthropic", {"type": kind}, kind) is expected


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("no_such_module:f", "cannot be imported"),
        (f"{__name__}:missing", "cannot be imported"),
        (f"{__name__}:CONSTANT", "is not a function"),
        (f"{__name__}:coroutine_rule", "without async"),
    ],
)
def test_rule_of_ones_own_must_be_a_function(spec: str, message: str) -> None:
    """The fault names the setting."""
    with pytest.raises(ValueError, match=rf"streams\.first_event_when: .*{message}"):
        event_rule(spec)


def test_rule_of_ones_own_may_be_an_attribute() -> None:
    """Of a class, for example."""
    assert event_rule(f"{__name__}:judged") is judged
    assert event_rule(judged) is judged
    assert event_rule("builtins:str.upper") is str.upper
