"""Reads from what a language model responds how many tokens it has used. Pure.

It knows the events and the plain JSON of OpenAI's chat, completions and responses, and of
Anthropic's messages. Where a response does not say what it has used, or ends before it does, the
usage is estimated by the text that was seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

__all__ = ["BYTES_A_TOKEN", "Usage", "UsageReader"]

BYTES_A_TOKEN: Final = 4
"""About how many bytes of text are a token."""

_MOST_TOKENS: Final = 1 << 40
"""A larger count is none."""

_CACHED: Final = ("cache_creation_input_tokens", "cache_read_input_tokens")
"""Tokens of the request that Anthropic counts apart; ``gen_ai.usage.input_tokens`` has them."""

_TEXT: Final = frozenset(
    {
        "arguments",
        "content",
        "delta",
        "function",
        "function_call",
        "input",
        "message",
        "partial_json",
        "reasoning",
        "reasoning_content",
        "refusal",
        "text",
        "thinking",
        "tool_calls",
    }
)
"""Names in a part of a response that have text which the model has made, or lead to it."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that a request has used.

    Attributes:
        input_tokens: Tokens of the request, cached ones too.
        output_tokens: Tokens that the model has made.
        exact: Whether the destination has told them; else they are estimated.
    """

    input_tokens: int
    output_tokens: int
    exact: bool


class UsageReader:
    """Reads the usage of one response from its JSON objects, in their order."""

    def __init__(self) -> None:
        self._known = False  # whether it is the response of a language model
        self._input: int | None = None
        self._output = 0
        self._exact = False
        self._bytes = 0  # of text that the model has made

    def usage(self, request_bytes: int) -> Usage | None:
        """Give the usage so far; ``None`` for a response of another kind.

        Args:
            request_bytes: Bytes of the body of the request, to estimate its tokens.
        """
        if not self._known:
            return None
        if self._exact:
            return Usage(self._input or 0, self._output, exact=True)
        tokens = _tokens(request_bytes) if self._input is None else self._input
        return Usage(tokens, max(self._output, _tokens(self._bytes)), exact=False)

    def event(self, content: dict[str, Any]) -> None:
        """Read the object of an event."""
        kind = content.get("type")
        if kind == "message_start":  # Anthropic's: has the input, and no output to speak of
            self._known = True
            self._take(_object(_object(content, "message"), "usage"), exact=False)
        elif kind in ("content_block_delta", "message_delta"):
            self._known = True
            self._see(content.get("delta"))
            self._take(_object(content, "usage"), exact=True)
        elif isinstance(kind, str) and kind.startswith("response."):  # OpenAI's responses
            self._known = True
            self._see(content.get("delta"))
            self._take(_object(_object(content, "response"), "usage"), exact=True)
        elif isinstance(content.get("choices"), list):  # OpenAI's chat and completions
            self._known = True
            self._see(content["choices"])
            self._take(_object(content, "usage"), exact=True)

    def answer(self, content: dict[str, Any]) -> None:
        """Read the object of a response that is no stream."""
        self._take(_object(content, "usage"), exact=True)
        if self._exact:
            self._known = True
        elif isinstance(content.get("choices"), list):
            self._known = True
            self._see(content["choices"])
        elif (content.get("type"), content.get("role")) == ("message", "assistant"):
            self._known = True
            self._see(content.get("content"))

    def _take(self, usage: dict[str, Any], *, exact: bool) -> None:
        """Take what a response says about its usage, if it does."""
        tokens = _count(usage, "prompt_tokens")
        if tokens is None and (tokens := _count(usage, "input_tokens")) is not None:
            tokens += sum(_count(usage, name) or 0 for name in _CACHED)
        output = _count(usage, "completion_tokens")
        if output is None:
            output = _count(usage, "output_tokens")
        if tokens is not None:
            self._input = tokens
        if output is not None:
            self._output = output
        if exact and self._input is not None and (tokens, output) != (None, None):
            self._exact = True

    def _see(self, part: Any) -> None:
        """Count the text of a part of a response, wherever in the part it is."""
        parts = [part]
        while parts:
            one = parts.pop()
            if isinstance(one, str):
                self._bytes += len(one.encode("utf-8", "replace"))
            elif isinstance(one, list):
                parts.extend(one)
            elif isinstance(one, dict):
                parts.extend(value for name, value in one.items() if name in _TEXT)


def _object(content: dict[str, Any], name: str) -> dict[str, Any]:
    value = content.get(name)
    return value if isinstance(value, dict) else {}


def _count(usage: dict[str, Any], name: str) -> int | None:
    value = usage.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _MOST_TOKENS:
        return None
    return value


def _tokens(size: int) -> int:
    return -(-size // BYTES_A_TOKEN)
