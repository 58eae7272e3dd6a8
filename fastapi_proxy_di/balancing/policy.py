"""The protocols of balancing policies, for built-in policies and your own.

A policy gets a snapshot of the available destinations (in panic: of all that are not draining)
and picks one. A policy need not check limits: a pick that is full or was tried before is
refused, and the policy is asked again (``fastapi_proxy_di.balancing.selection``). The snapshot
is a tuple that is replaced whole on each change, so a policy may keep data that it derives from
``available`` as long as it gets the same object.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

from fastapi_proxy_di.pools.destination import Destination

__all__ = ["BalancingPolicy", "ObservingPolicy", "OrderingPolicy", "PickRequest", "TrackingPolicy"]


class PickRequest(Protocol):
    """The part of a request that policies may see."""

    def key(self) -> bytes | None:
        """Read the key that ``hash`` hashes from the request, ``None`` if there is none."""


@runtime_checkable
class BalancingPolicy(Protocol):
    """Chooses one of the available destinations for a request."""

    @property
    def name(self) -> str:
        """Name used in settings, logs and status."""

    def pick(
        self, available: Sequence[Destination], request: PickRequest | None
    ) -> Destination | None:
        """Choose one of ``available``.

        Args:
            available: A snapshot; empty or of any length. Never changed in place.
            request: The request that is to be sent, ``None`` outside requests.

        Returns:
            A member of ``available``, or ``None`` to leave the choice to the caller.
        """


@runtime_checkable
class OrderingPolicy(BalancingPolicy, Protocol):
    """A policy that has further choices for when its pick is refused.

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
        """Learn from one exchange.

        Args:
            destination: The destination that the request was sent to.
            seconds_to_first_byte: Time from the pick, with the dial if there was one, to the
                head of the response, or to the failure.
            failed: Whether the exchange failed on the destination's side, by status or
                transport.
            now: Monotonic seconds.
        """


@runtime_checkable
class TrackingPolicy(ObservingPolicy, Protocol):
    """A policy that learns also from requests whose response has not begun yet."""

    def began(self, destination: Destination, attempt: object, now: float) -> None:
        """Note that a request is sent.

        Args:
            destination: The destination of the request.
            attempt: Identifies the request until ``ended``.
            now: Monotonic seconds.
        """

    def ended(self, destination: Destination, attempt: object) -> None:
        """Note that the response has begun, or that the attempt ended without one."""
