"""Runs a function in the event loop of an upstream, whichever thread calls.

FastAPI runs plain ``def`` endpoints and dependencies in threads. Pools, policies and timers
belong to the event loop, so a change that is asked for in a thread is made by the loop, and the
thread waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, TypeVar

__all__ = ["in_loop"]

_BLOCKED_SECONDS: Final = 10.0
"""Seconds that a thread waits for the loop to begin, before an error says that it is blocked."""

_Result = TypeVar("_Result")


def in_loop(loop: asyncio.AbstractEventLoop, function: Callable[[], _Result]) -> _Result:
    """Call ``function`` in ``loop``, and give its result.

    Args:
        loop: The event loop of the upstream.
        function: A function that does not block; called at once if this is the loop's thread.

    Raises:
        RuntimeError: The loop does not run any more, or is blocked for ten seconds; then nothing
            was called, and nothing will be.
    """
    try:
        here = asyncio.get_running_loop()
    except RuntimeError:  # a thread without a loop
        here = None
    if here is loop:
        return function()
    if not loop.is_running():
        raise RuntimeError(
            "the event loop of this upstream does not run any more, so the upstream cannot be "
            "changed; take the Balancer from Depends(Upstream(...)) in each request"
        )
    result: Future[_Result] = Future()

    def call() -> None:
        if not result.set_running_or_notify_cancel():
            return
        try:
            result.set_result(function())
        except BaseException as error:  # noqa: BLE001  # raised in the thread that asked
            result.set_exception(error)

    loop.call_soon_threadsafe(call)
    try:
        return result.result(_BLOCKED_SECONDS)
    except TimeoutError:
        if not result.cancel():  # the loop has begun after all
            return result.result()
        raise RuntimeError(
            "the event loop of this upstream is blocked, so the upstream was not changed; do not "
            "let the loop wait for a thread without `await`"
        ) from None
