"""Close codes and reasons, in both directions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_proxy_di.wire.close import Close, close_downwards, close_upwards, may_be_sent


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (999, False),
        (1000, True),
        (1003, True),
        (1004, False),
        (1005, False),
        (1006, False),
        (1007, True),
        (1014, True),
        (1015, False),
        (2999, False),
        (3000, True),
        (4999, True),
        (5000, False),
    ],
)
def test_may_be_sent_follows_the_registry(code: int, expected: bool) -> None:
    """Reserved and local codes may not be sent."""
    assert may_be_sent(code) is expected


@pytest.mark.parametrize(
    ("code", "reason", "framed", "expected"),
    [
        (1000, "bye", True, Close(1000, "bye")),
        (1001, None, True, Close(1001, "")),
        (1012, None, False, Close(1012, "")),
        (3000, "", True, Close(3000, "")),
        (4999, "x", True, Close(4999, "x")),
        (1005, "", True, Close(None, "")),
        (1005, None, False, None),
        (1006, "", True, None),
        (1006, None, False, None),
        (1015, None, True, None),
        (2000, "odd", True, Close(1002, "odd")),
    ],
)
def test_close_upwards_sends_no_frame_for_a_lost_connection(
    code: int, reason: str | None, framed: bool, expected: Close | None
) -> None:
    """Codes are forwarded, an empty close stays empty."""
    assert close_upwards(code, reason, framed=framed) == expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [(1000, 1000), (1001, 1001), (1005, 1000), (1006, 1011), (1015, 1011), (4000, 4000), (0, 1011)],
)
def test_close_downwards_gives_a_code_that_may_be_sent(code: int, expected: int) -> None:
    """An empty close becomes 1000; a lost connection becomes 1011, not a clean close."""
    assert close_downwards(code, "").code == expected


@pytest.mark.parametrize(("code", "reason"), [(1014, ""), (1006, ""), (1014, "why"), (1015, "why")])
def test_close_downwards_says_why_instead_of_1014(code: int, reason: str) -> None:
    """Clients on wsproto or gorilla/websocket take 1014 for a protocol error."""
    assert close_downwards(code, reason) == Close(1011, reason or "bad gateway")


@given(st.text(max_size=200))
def test_close_reasons_are_cut_at_a_character(reason: str) -> None:
    """The reason fits a close frame and is a prefix of the given one."""
    cut = close_downwards(4000, reason).reason

    assert len(cut.encode()) <= 123
    assert reason.encode("utf-8", "replace").decode().startswith(cut)
    assert len(cut) == len(reason) or len(cut.encode()) > 119


def test_close_reasons_are_cut_both_ways() -> None:
    """The limit is 123 bytes; a character across it is removed."""
    reason = "a" + "é" * 100

    expected = "a" + "é" * 61
    assert close_upwards(4000, reason, framed=True) == Close(4000, expected)
    assert close_downwards(4000, reason) == Close(4000, expected)
