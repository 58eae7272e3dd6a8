"""Replaces ``socket.getaddrinfo`` by names of a test: their addresses, failures and silence."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

__all__ = ["Names"]

_SECONDS = 60.0  # a look-up that nobody ends; below the time after which a test is ended


class Names:
    """The names that ``socket.getaddrinfo`` knows; literal addresses stay as they are.

    Attributes:
        looked_up: How often each name was looked up.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.looked_up: Counter[str] = Counter()
        self._results: dict[str, Sequence[str] | OSError] = {}
        self._silent: dict[str, threading.Event] = {}
        self._getaddrinfo = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._look_up)

    def resolve(self, name: str, *addresses: str) -> None:
        """Let a name have these addresses from now on."""
        self._results[name] = addresses

    def fail(self, name: str, number: int = socket.EAI_AGAIN) -> None:
        """Let the look-ups of a name fail from now on, with a number of ``getaddrinfo``."""
        self._results[name] = socket.gaierror(number, "failure of the test")

    def hang(self, *names: str) -> None:
        """Let the look-ups of names begin and not end, until ``release``."""
        for name in names:
            self._silent[name] = threading.Event()
            self._results.setdefault(name, socket.gaierror(socket.EAI_AGAIN, "silent"))

    def release(self, *names: str) -> None:
        """End the look-ups that hang, all of them if no name is given."""
        for name in names or tuple(self._silent):
            self._silent.pop(name).set()

    def _look_up(self, host: str, port: int, *args: Any, **options: Any) -> Any:
        result = self._results.get(host)
        if result is None or options.get("flags", 0) & socket.AI_NUMERICHOST:
            return self._getaddrinfo(host, port, *args, **options)
        self.looked_up[host] += 1
        silent = self._silent.get(host)
        if silent is not None:
            silent.wait(_SECONDS)
            result = self._results[host]
        if isinstance(result, OSError):
            raise type(result)(*result.args)
        found = []
        for address in result:
            found += self._getaddrinfo(address, port, *args, **options)
        return found
