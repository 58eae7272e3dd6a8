"""Runs a test on asyncio, asyncio in debug mode, and uvloop.

A test fails if it leaves a task, or makes asyncio log.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

import pytest
import uvloop

__all__ = ["on_every_loop"]

_FACTORIES: Final[dict[str, tuple[Callable[[], asyncio.AbstractEventLoop], bool]]] = {
    "asyncio": (asyncio.SelectorEventLoop, False),
    "debug": (asyncio.SelectorEventLoop, True),
    "uvloop": (uvloop.new_event_loop, False),
}


class _Records(logging.Handler):
    """Records the log of asyncio: exceptions never retrieved, callbacks that failed."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        # A slow callback says how busy the machine is; the second is the server's side of a
        # TLS handshake that the client has refused.
        if not text.startswith(("Executing ", "Error on transport creation for incoming")):
            self.texts.append(text)


async def _alone(test: Coroutine[Any, Any, None]) -> None:
    await test
    left = asyncio.all_tasks() - {asyncio.current_task()}
    # What was cancelled at the very end is gone after a turn.
    if left:
        await asyncio.wait(left, timeout=10)
    assert not [task for task in left if not task.done()], "tasks are left"


def on_every_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Turn an async test into a plain one that runs once per event loop."""

    def run(event_loop: str, **arguments: Any) -> None:
        factory, debug = _FACTORIES[event_loop]
        records = _Records()
        logger = logging.getLogger("asyncio")
        logger.addHandler(records)
        try:
            with asyncio.Runner(loop_factory=factory, debug=debug) as runner:
                runner.run(_alone(test(**arguments)))
        finally:
            logger.removeHandler(records)
        assert records.texts == []

    functools.update_wrapper(run, test)
    del run.__dict__["__wrapped__"]
    wanted = inspect.signature(test)
    first = inspect.Parameter("event_loop", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    run.__dict__["__signature__"] = wanted.replace(
        parameters=[first, *wanted.parameters.values()], return_annotation=None
    )
    marked: Callable[..., None] = pytest.mark.parametrize("event_loop", list(_FACTORIES))(run)
    return marked
