"""What one upstream does with the store for its health: shared probes and shared ejections."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, Final

from fastapi_proxy_di.cluster.probing import SharedProbing
from fastapi_proxy_di.cluster.state import SharedState
from fastapi_proxy_di.cluster.store import Store
from fastapi_proxy_di.cluster.votes import Votes
from fastapi_proxy_di.supervision.events import Event, Events, StoreBack
from fastapi_proxy_di.supervision.prober import Prober
from fastapi_proxy_di.supervision.supervisor import Supervisor

__all__ = ["SharedHealth"]


class SharedHealth:
    """Shares the health of one upstream, from its making to ``close``.

    Args:
        supervisor: The supervisor of the upstream.
        prober: Its prober.
        store: The store.
        state: The records that processes share.
        events: Emits the events.
        random: The source of jitter.
        probes_alone: Whether each process sends all probes itself, as for the policy ``latency``.

    Attributes:
        probing: Shares the probes.
        votes: Shares the ejections.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        prober: Prober,
        store: Store,
        state: SharedState,
        events: Events,
        random: Random,
        *,
        probes_alone: Callable[[], bool],
    ) -> None:
        name = supervisor.pool.name
        self.votes: Final = Votes(supervisor, store, state, events)
        self.probing: Final = SharedProbing(
            supervisor,
            prober,
            store,
            state,
            random,
            own=self.votes.ejected_alone,
            alone=probes_alone,
        )
        supervisor.sharing, prober.sharing = self.votes, self.probing
        self._name: Final = name
        self._subscriptions: Final = (
            state.subscribe(name, "health", self.probing.follow),
            state.subscribe(name, "ejection", self.votes.follow),
            events.subscribe(self._listen),
        )

    async def start(self) -> None:
        """Take the leases that are free, before the first probes; the records are read already."""
        await self.probing.start()

    def tasks(self) -> tuple[tuple[Coroutine[Any, Any, None], str], ...]:
        """Give what is to run from then on until it is cancelled, each with its name.

        At its end the leases are given away, so the store must be closed later.
        """
        return (
            (self.probing.run(), f"shared probes of {self._name}"),
            (self.votes.run(), f"votes of {self._name}"),
        )

    def close(self) -> None:
        """Follow no more records."""
        for unsubscribe in self._subscriptions:
            unsubscribe()

    def _listen(self, event: Event) -> None:
        if isinstance(event, StoreBack) and event.upstream == self._name:
            self.probing.found_again()
            self.votes.found_again()
