"""Writes the package's warnings to the standard error where the app has configured no logging.

uvicorn, hypercorn and granian configure only their own loggers. Python's own last resort
(``logging.lastResort``) then writes the bare message, without time and level.
"""

from __future__ import annotations

import logging
import sys
from typing import TextIO

__all__ = ["LastResort"]


class LastResort(logging.StreamHandler[TextIO]):
    """A handler that does nothing while any other handler takes the record."""

    stream: TextIO

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self.setLevel(logging.WARNING)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, unless the app handles it: checked each time, as logging may change."""
        if not self._is_taken(record.name):
            self.stream = sys.stderr  # which an app may replace
            super().emit(record)

    def _is_taken(self, name: str) -> bool:
        logger: logging.Logger | None = logging.getLogger(name)
        while logger is not None:
            if any(handler is not self for handler in logger.handlers):
                return True
            logger = logger.parent if logger.propagate else None
        return False
