"""How long the result of a look-up serves."""

from __future__ import annotations

import errno
import socket

import pytest

from fastapi_proxy_di.transport.dialling.known_name import AddressInfo, KnownName, is_no_such_name

ADDRESSES: tuple[AddressInfo, ...] = ((2, 1, 6, "", ("10.0.0.1", 80)),)
AGAIN = socket.gaierror(socket.EAI_AGAIN, "temporary failure")
UNKNOWN = socket.gaierror(socket.EAI_NONAME, "unknown")


def test_addresses_are_fresh_for_five_seconds_and_stale_for_sixty() -> None:
    """The age counts from the look-up that succeeded."""
    known = KnownName()
    known.resolved(ADDRESSES, 100.0)

    assert [known.fresh(100.0), known.fresh(104.9), known.fresh(105.0)] == [ADDRESSES] * 2 + [()]
    assert [known.stale(105.0), known.stale(159.9), known.stale(160.0)] == [ADDRESSES] * 2 + [()]


def test_failure_serves_for_a_second() -> None:
    """Then the name is looked up again."""
    known = KnownName()
    known.failed(AGAIN, 100.0)

    assert [known.failure(100.9), known.failure(101.0)] == [AGAIN, None]
    assert known.fresh(100.0) == known.stale(100.0) == ()


def test_temporary_failure_keeps_stale_addresses() -> None:
    """A name server that is down for a moment takes no destination away."""
    known = KnownName()
    known.resolved(ADDRESSES, 100.0)
    known.failed(AGAIN, 106.0)

    assert known.fresh(106.0) == ()
    assert known.stale(106.0) == ADDRESSES


def test_unknown_name_forgets_its_addresses() -> None:
    """The name server has said that the name is gone."""
    known = KnownName()
    known.resolved(ADDRESSES, 100.0)
    known.failed(UNKNOWN, 106.0)

    assert known.stale(106.0) == ()


def test_success_forgets_the_failure() -> None:
    """The newer result serves."""
    known = KnownName()
    known.failed(AGAIN, 100.0)
    known.resolved(ADDRESSES, 100.5)

    assert known.failure(100.5) is None
    assert known.fresh(100.5) == ADDRESSES


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (UNKNOWN, True),
        (socket.gaierror(socket.EAI_NODATA, "no address"), True),
        (AGAIN, False),
        (OSError(errno.EMFILE, "no descriptor"), False),
    ],
)
def test_no_such_name_is_told_from_other_failures(failure: OSError, expected: bool) -> None:
    """Both "no such name" and "the name has no address" are final."""
    assert is_no_such_name(failure) is expected
