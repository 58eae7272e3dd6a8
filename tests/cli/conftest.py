"""Restores logging after each test of the command line."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

_LOGGERS = (
    "fastapi_proxy_di",
    "fastapi_proxy_di.access",
    "uvicorn",
    "uvicorn.access",
    "uvicorn.error",
)


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    """Undo what the commands, and uvicorn for them, set up for a whole process."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [(one.level, list(one.handlers), one.propagate) for one in loggers]
    yield
    for logger, (level, handlers, propagate) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.handlers, logger.propagate = handlers, propagate
