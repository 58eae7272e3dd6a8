"""``usage_tap``: tells access records and spans what responses of language models have used."""

from __future__ import annotations

import json
from typing import Any, Final

from fastapi_proxy_di.forwarding.taps import ChangesRequest, Tap, TapExchange
from fastapi_proxy_di.forwarding.usage import UsageReader
from fastapi_proxy_di.transforms.json_body import JsonBody
from fastapi_proxy_di.wire.event_stream import SseEvent

__all__ = ["UsageTap", "UsageTaps", "usage_tap"]

_OPTIONS: Final = "stream_options"
_ASKED: Final = b'"stream_options":{"include_usage":true},'


class UsageTap(Tap):
    """Tells the usage of one response to its exchange.

    Args:
        exchange: The exchange.
    """

    def __init__(self, exchange: TapExchange) -> None:
        self._exchange: Final = exchange
        self._reader: Final = UsageReader()

    def event(self, event: SseEvent) -> None:
        """Read an event of a stream."""
        if not event.data.startswith("{"):
            return  # the end, or a ping
        try:
            content = json.loads(event.data)
        except (ValueError, RecursionError):
            return
        self._reader.event(content)
        self._tell()

    def answer(self, body: JsonBody) -> None:
        """Read a response that is no stream."""
        if isinstance(body, dict):
            self._reader.answer(body)
            self._tell()

    def _tell(self) -> None:
        # After each event, because the span ends with the last byte of the response.
        self._exchange.usage = self._reader.usage(self._exchange.request_bytes)


class UsageTaps:
    """Makes the taps of a mount."""

    def __call__(self, exchange: TapExchange) -> Tap | None:
        """Make the tap of a response, ``None`` for one that reports an error."""
        return UsageTap(exchange) if exchange.status < 400 else None


class AskingUsageTaps(UsageTaps, ChangesRequest):
    """Makes the taps of a mount, and asks for the usage of streams."""

    def changed(self, target: bytes, content: bytes) -> bytes | None:
        """Add ``include_usage`` to a request for a stream of OpenAI's chat or completions.

        All other bytes stay, unless the request has other ``stream_options``.
        """
        # Other endpoints tell their usage unasked, and some refuse what they do not know.
        if not target.partition(b"?")[0].endswith(b"/completions"):
            return None
        try:
            body: Any = json.loads(content)
        except (ValueError, RecursionError):
            return None
        if not isinstance(body, dict) or body.get("stream") is not True:
            return None
        options = body.get(_OPTIONS)
        if _OPTIONS not in body:
            start = content.find(b"{") + 1
            return content[:start] + _ASKED + content[start:]
        if isinstance(options, dict) and "include_usage" in options:
            return None  # the client knows what it wants
        if options is not None and not isinstance(options, dict):
            return None
        return json.dumps({**body, _OPTIONS: {**(options or {}), "include_usage": True}}).encode()


def usage_tap(*, ask: bool = False) -> UsageTaps:
    """Give a tap that tells what responses of language models have used.

    ```python
    app.include_router(proxy_router("models", tap=usage_tap()), prefix="/models")
    ```

    It reads the streams and the plain JSON of OpenAI's chat, completions and responses, and of
    Anthropic's messages. Access records have ``input_tokens``, ``output_tokens`` and ``usage``,
    and spans ``gen_ai.usage.input_tokens`` and ``gen_ai.usage.output_tokens``. ``usage`` is
    ``exact`` if the response tells it, and ``estimated`` by what was seen if it does not, or
    breaks off before.

    Args:
        ask: Whether streams of chat and completions are asked for their usage, by ``include_usage``
            in ``stream_options`` of the request, unless the client says what it wants. The client
            gets the chunk with the usage, too. This needs a JSON body with a ``Content-Length`` of
            at most ``streams.replay_bytes``, which is read before a destination is picked; other
            requests are sent as they are.
    """
    return AskingUsageTaps() if ask else UsageTaps()
