"""When probe results change a destination's health: so many in a row.

Owns: that rule. Must not know: how probes are sent, or what a flip leads to; the prober
passes it on to the pool.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastapi_proxy_di.pools.destination import Destination

__all__ = ["Threshold"]


@dataclass(frozen=True, slots=True)
class Threshold:
    """Hysteresis between healthy and unhealthy.

    Attributes:
        fall: Failed probes in a row that make a destination unhealthy.
        rise: Good probes in a row that make it healthy again.
    """

    fall: int
    rise: int

    def observe(self, destination: Destination, ok: bool) -> bool:
        """Take one probe result; true if the destination's health is to become ``ok``.

        The first result ever decides at once: until then nothing is known, and a
        destination that is down at start should get no request.
        """
        first = not destination.probed
        destination.probed = True
        if destination.healthy == ok:
            destination.probe_run = 0
            return False
        destination.probe_run += 1
        if not first and destination.probe_run < (self.rise if ok else self.fall):
            return False
        destination.probe_run = 0
        return True
