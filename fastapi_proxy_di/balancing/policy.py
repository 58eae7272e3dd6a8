"""What a balancing policy is: a name and one pure question.

Owns: the protocols that policies, ours and users', fit. Must not know: any policy.

A policy gets a snapshot of destinations that are available (or all that are not draining,
in panic) and picks one. It need not look at limits: a pick that is full, or was tried
before, is refused and asked for again (``fastapi_proxy_di.balancing.selection``). The
snapshot is a tuple replaced whole on each change, so whatever is derived from it may be
kept for as long as ``available`` is the very same object.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

from fastapi_proxy_di.pools.destination import Destination

__all__ = ["BalancingPolicy", "ObservingPolicy", "OrderingPolicy", "PickRequest"]


class PickRequest(Protocol):
    """The request a destination is picked for, as far as policies may see it."""

    def key(self) -> bytes | None:
        """Give what ``hash`` hashes, looked up only when asked; ``None`` if absent."""


@runtime_checkable
class BalancingPolicy(Protocol):
    """The choice of a destination."""

    @property
    def name(self) -> str:
        """Name used in settings, logs and status."""

    def pick(
        self, available: Sequence[Destination], request: PickRequest | None
    ) -> Destination | None:
        """Choose one of ``available``.

        Args:
            available: A snapshot; empty or of any length. Never changed in place.
            request: The request it is for, ``None`` outside requests.

        Returns:
            A member of ``available``, or ``None`` to leave the choice to the caller.
        """


@runtime_checkable
class OrderingPolicy(BalancingPolicy, Protocol):
    """A policy with a second choice, and a third: asked when its pick was refused.

    A policy without ``order`` draws again twice; then the least loaded destination with
    room is taken.
    """

    def order(
        self, available: Sequence[Destination], request: PickRequest | None
    ) -> Iterator[Destination]:
        """Give the destinations of ``available``, best first."""


@runtime_checkable
class ObservingPolicy(BalancingPolicy, Protocol):
    """A policy that learns from live traffic."""

    def observe(
        self, destination: Destination, seconds_to_first_byte: float, failed: bool, now: float
    ) -> None:
        """Take note of one exchange.

        Args:
            destination: Where it went.
            seconds_to_first_byte: From sending to the first byte of the answer, or to the
                failure.
            failed: Whether it failed on the destination's side, by status or transport.
            now: Monotonic seconds.
        """
