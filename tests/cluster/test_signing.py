"""Records are signed over what they are about, and what does not verify is not read."""

import pytest

from fastapi_proxy_di.cluster import signing
from fastapi_proxy_di.cluster.signing import NewerFormat, Signer

SIGNER = Signer(b"0123456789abcdef", "shop")
SUBJECT = ("billing", "drain", "7")


def test_signed_record_is_read() -> None:
    """With the version of the format in it."""
    record = SIGNER.sign(SUBJECT, {"draining": True})

    assert SIGNER.read(SUBJECT, record) == {"v": 1, "draining": True}


@pytest.mark.parametrize(
    ("signer", "subject"),
    [
        (Signer(b"another key of 16", "shop"), SUBJECT),
        (Signer(b"0123456789abcdef", "market"), SUBJECT),
        (SIGNER, ("users", "drain", "7")),
        (SIGNER, ("billing", "drain", "8")),
        (SIGNER, ("billing", "drain7")),
    ],
)
def test_record_about_something_else_does_not_verify(
    signer: Signer, subject: tuple[str, ...]
) -> None:
    """Another key, another app, another upstream, another version, other borders."""
    assert signer.read(subject, SIGNER.sign(SUBJECT, {})) is None


@pytest.mark.parametrize("at", [0, 31, 32, -1])
def test_changed_byte_does_not_verify(at: int) -> None:
    """In the signature and in the text."""
    record = bytearray(SIGNER.sign(SUBJECT, {"draining": True}))
    record[at] ^= 1

    assert SIGNER.read(SUBJECT, bytes(record)) is None


@pytest.mark.parametrize("record", [b"", b"{}", b"\xff" * 40, b"0" * 70000])
def test_what_is_no_record_does_not_verify(record: bytes) -> None:
    """Nothing of it is parsed."""
    assert SIGNER.read(SUBJECT, record) is None


def test_long_record_is_not_written() -> None:
    """A record has at most 64 KiB."""
    with pytest.raises(ValueError, match="more than 65536"):
        SIGNER.sign(SUBJECT, {"reason": "x" * 65536})


def test_newer_format_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that does not know the format says so, instead of ignoring the record."""
    monkeypatch.setattr(signing, "FORMAT", 2)
    record = SIGNER.sign(SUBJECT, {})
    monkeypatch.undo()

    with pytest.raises(NewerFormat, match="format 2"):
        SIGNER.read(SUBJECT, record)


def test_hidden_text_needs_the_key() -> None:
    """The digest has 16 bytes, and is another one with another key or in another app."""
    hidden = SIGNER.hide(b"user 1")

    assert len(bytes.fromhex(hidden)) == 16
    assert hidden == SIGNER.hide(b"user 1")
    assert hidden not in {
        SIGNER.hide(b"user 2"),
        Signer(b"another key of 16", "shop").hide(b"user 1"),
        Signer(b"0123456789abcdef", "market").hide(b"user 1"),
    }
