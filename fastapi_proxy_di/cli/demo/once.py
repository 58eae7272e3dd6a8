"""``demo --once``: ends upstreams under load, restarts them, and counts failed requests.

The load and the fleet are already running.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Collection
from typing import Final

from fastapi_proxy_di.cli.demo.fleet import Fleet, UpstreamProcess
from fastapi_proxy_di.cli.demo.load import Load
from fastapi_proxy_di.cli.demo.tally import Kind, Outage, Tally
from fastapi_proxy_di.cli.tables import print_table

_RETURN_SECONDS: Final = 30.0
_SHOWN_FAILURES: Final = 10


async def disturb(
    load: Load, fleet: Fleet, failed_attempts: Callable[[str], int], pause: float = 1.0
) -> list[Outage]:
    """End the first upstream by SIGTERM and the second by SIGKILL, and restart each.

    Args:
        load: The running load.
        fleet: The running fleet of two upstreams or more.
        failed_attempts: Gives the number of failed attempts at a destination's address.
        pause: Seconds of load before, between and after.

    Returns:
        The outages.

    Raises:
        TimeoutError: A restarted upstream got no traffic within 30 seconds.
    """
    await asyncio.sleep(pause)
    outages = []
    for upstream, number in zip(fleet.upstreams, (signal.SIGTERM, signal.SIGKILL), strict=False):
        outages.append(Outage(upstream.name, number, time.monotonic()))
        print(f"{number.name} to upstream {upstream.name}, pid {upstream.pid}", flush=True)
        upstream.signal(number)
        await upstream.wait()
        await asyncio.sleep(pause)
        # Read before the restart: the gateway then counts from zero again.
        failed = failed_attempts(upstream.url)
        print(f"upstream {upstream.name} is gone, {failed} attempts failed on it", flush=True)
        await _restart(load, upstream)
        await asyncio.sleep(pause)
    return outages


async def _restart(load: Load, upstream: UpstreamProcess) -> None:
    """Restart an upstream, and wait until it has served a request."""
    await upstream.start()
    started = time.monotonic()
    assert upstream.pid is not None
    try:
        async with asyncio.timeout(_RETURN_SECONDS):
            await load.served_by(upstream.pid)
    except TimeoutError:
        raise TimeoutError(
            f"upstream {upstream.name} was started again, but got no request within "
            f"{_RETURN_SECONDS:.0f} s"
        ) from None
    seconds = time.monotonic() - started
    print(
        f"upstream {upstream.name} started again, pid {upstream.pid}, "
        f"has traffic after {seconds:.1f} s",
        flush=True,
    )


def summarise(tally: Tally, outages: Collection[Outage]) -> int:
    """Print the counts of served, failed and ended requests.

    Args:
        tally: Counts of all requests.
        outages: All outages.

    Returns:
        0 if every kind was served and each failure is excused by an outage, else 1.
    """
    failures = tally.failures(outages)
    rows = []
    for kind in Kind:
        failed = sum(broken.kind is kind for broken in failures)
        ended = sum(broken.kind is kind for broken in tally.breaks) - failed
        rows.append(
            [
                kind.value,
                str(tally.served[kind] + ended + failed),
                str(failed),
                str(ended),
                _milliseconds(tally.milliseconds(kind, 0.5)),
                _milliseconds(tally.milliseconds(kind, 0.99)),
            ]
        )
    print()
    print_table(["kind", "requests", "failed", "ended with upstream", "p50", "p99"], rows)
    print()
    for broken in failures[:_SHOWN_FAILURES]:
        print(f"FAILED {broken.kind.value} on {broken.destination or '?'}: {broken.reason}")
    total = sum(tally.served.values()) + len(tally.breaks)
    by_destination = ", ".join(
        f"{name} {count}" for name, count in sorted(tally.by_destination.items())
    )
    print(f"Served by {by_destination or 'no upstream'}.")
    print(f"{len(failures)} failed of {total} requests.", flush=True)
    silent = [kind.value for kind in Kind if not tally.served[kind]]
    if silent:
        print(f"Nothing was served of: {', '.join(silent)}.", flush=True)
    return 1 if failures or silent else 0


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms"
