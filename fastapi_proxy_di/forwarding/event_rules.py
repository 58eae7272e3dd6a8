"""Decides which event of a stream is the first that counts, and which one means failure.

A rule is a function of one event. Its result is ``True`` if the event counts, ``False`` if it
means that the request failed, and ``None`` if a later event decides. Pure but for the import of
a rule of your own.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final, TypeAlias

from fastapi_proxy_di.wire.event_stream import SseEvent

__all__ = ["EventRule", "event_rule"]

EventRule: TypeAlias = Callable[[SseEvent], bool | None]

_PING: Final = "ping"
_CONTENT: Final = (
    "content",
    "reasoning_content",
    "reasoning",
    "refusal",
    "tool_calls",
    "function_call",
    "audio",
)
"""Parts of a chunk of OpenAI's chat that a model has made; reasoning as vLLM and others send it."""


_ANTHROPIC_STARTS: Final = ("message_start", "content_block_start", _PING)


def event_rule(spec: object) -> EventRule:
    """Give the rule that ``streams.first_event_when`` names; called at start.

    Raises:
        ValueError: The import fails, or the object is no function of an event.
    """
    found = spec
    if isinstance(spec, str):
        builtin = _RULES.get(spec)
        if builtin is not None:
            return builtin
        module, _, name = spec.partition(":")
        try:
            found = import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError) as fault:
            raise ValueError(
                f"streams.first_event_when: {spec!r} cannot be imported: {fault}"
            ) from fault
    if not callable(found) or inspect.iscoroutinefunction(found):
        raise ValueError(
            f"streams.first_event_when: {spec!r} is not a function without async, which takes an"
            " event and returns True, False or None"
        )
    rule: EventRule = found
    return rule


def any_event(event: SseEvent) -> bool | None:
    """Count any event with data that is no ping; an error means failure."""
    return _judged(event)[0]


def openai_event(event: SseEvent) -> bool | None:
    """Count the first content or tool call of OpenAI's chat, completions or responses."""
    verdict, content = _judged(event)
    if content is None:
        return verdict
    kind = content.get("type")
    if kind in ("error", "response.failed"):
        return False
    if isinstance(kind, str) and kind.startswith("response."):
        return True if kind.endswith((".delta", ".completed", ".incomplete")) else None
    choices = content.get("choices")
    if not isinstance(choices, list):
        return verdict
    return True if any(_has_content(choice) for choice in choices) else None


def anthropic_event(event: SseEvent) -> bool | None:
    """Count the first delta of content or of a tool call of Anthropic's messages."""
    verdict, content = _judged(event)
    if content is None:
        return verdict
    kind = content.get("type")
    if kind == "error":
        return False
    return None if kind in _ANTHROPIC_STARTS else verdict


def _has_content(choice: Any) -> bool:
    if not isinstance(choice, dict):
        return True
    delta = choice.get("delta")
    made = isinstance(delta, dict) and any(delta.get(part) for part in _CONTENT)
    # A stream may end without content, and the older completions have text.
    return made or bool(choice.get("text")) or choice.get("finish_reason") is not None


def _judged(event: SseEvent) -> tuple[bool | None, dict[str, Any] | None]:
    """Judge an event as ``any`` does; also give its JSON object if it counts and is one."""
    if event.event == "error":
        return False, None
    data = event.data.strip()
    if event.event == _PING or not data or data == _PING:
        return None, None
    if not data.startswith("{"):
        return True, None
    try:
        content: dict[str, Any] = json.loads(data)
    except (ValueError, RecursionError):
        return True, None
    if content.get("error") is not None:
        return False, None
    return True, content


_RULES: Final[dict[str, EventRule]] = {
    "any": any_event,
    "openai": openai_event,
    "anthropic": anthropic_event,
}
