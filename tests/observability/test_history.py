"""The recent events of an app."""

import asyncio

from fastapi_proxy_di.observability.history import KEPT, History
from fastapi_proxy_di.supervision.events import DestinationUp


def up(number: int) -> DestinationUp:
    """Give an event that tells its number."""
    return DestinationUp("billing", f"http://{number}")


def test_events_after_a_number() -> None:
    """In order, numbered from 1."""
    history = History()
    for number in (1, 2, 3):
        history.listen(up(number))

    assert [(one.number, one.event) for one in history.after(1)] == [(2, up(2)), (3, up(3))]
    assert history.last == 3
    assert not history.after(3)


def test_old_events_are_forgotten() -> None:
    """The numbers go on."""
    history = History()
    for number in range(KEPT + 2):
        history.listen(up(number))

    kept = history.after(0)
    assert (kept[0].number, kept[-1].number) == (3, KEPT + 2)


async def test_waiting_for_an_event() -> None:
    """All waiting ends with the next event."""
    history = History()
    waiting = [asyncio.create_task(history.wait(0, 60.0)) for _ in range(3)]
    await asyncio.sleep(0)
    history.listen(up(1))
    history.listen(up(2))
    await asyncio.gather(*waiting)

    assert history.last == 2


async def test_waiting_ends_at_once_for_a_past_event() -> None:
    """An event between two questions is not missed."""
    history = History()
    history.listen(up(1))

    await history.wait(0, 60.0)


async def test_waiting_ends_by_time() -> None:
    """Without an event."""
    history = History()

    await history.wait(0, 0.001)

    assert not history.after(0)


async def test_waiting_ends_with_the_app() -> None:
    """Without an event either."""
    history = History()
    waiting = asyncio.create_task(history.wait(0, 60.0))
    await asyncio.sleep(0)

    history.wake()
    await waiting

    assert not history.after(0)
