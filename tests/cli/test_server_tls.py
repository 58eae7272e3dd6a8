"""The files that ``serve`` serves TLS with."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from fastapi_proxy_di import SettingsError
from fastapi_proxy_di.cli.server_tls import PASSWORD_VARIABLE, server_tls

PASSWORD = "geheim"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A certificate, its key, the same with a password, both in one file, and another key."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    issued, other = (authority.issue_cert("gateway.test") for _ in range(2))
    found = {
        name: folder / f"{name}.pem" for name in ("cert", "key", "locked", "both", "other", "none")
    }
    issued.cert_chain_pems[0].write_to_path(found["cert"])
    issued.private_key_pem.write_to_path(found["key"])
    issued.private_key_and_cert_chain_pem.write_to_path(found["both"])
    other.private_key_pem.write_to_path(found["other"])
    key = load_pem_private_key(issued.private_key_pem.bytes(), None)
    locked = key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(PASSWORD.encode())
    )
    found["locked"].write_bytes(locked)
    return found


def test_no_certificate_is_no_tls() -> None:
    """The default."""
    assert server_tls(None, None) is None


def test_key_may_be_in_the_file_of_the_certificate(files: dict[str, Path]) -> None:
    """Or in one of its own."""
    one, two = server_tls(files["both"], None), server_tls(files["cert"], files["key"])

    assert one is not None
    assert two is not None
    assert (one.keyfile, two.keyfile) == (None, files["key"])


def test_password_is_that_of_the_variable(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in no representation."""
    monkeypatch.setenv(PASSWORD_VARIABLE, PASSWORD)
    found = server_tls(files["cert"], files["locked"])

    assert found is not None
    assert found.password == PASSWORD
    assert PASSWORD not in repr(found)


@pytest.mark.parametrize(
    ("certificate", "key", "password", "fault"),
    [
        ("cert", "locked", None, f"the key has a password, and {PASSWORD_VARIABLE} is not set"),
        ("cert", "locked", "wrong", f"and {PASSWORD_VARIABLE} is not the key's"),
        ("none", "key", None, "No such file or directory"),
        ("cert", "other", None, "(?i)key.values.mismatch"),
        ("key", "cert", None, "PEM"),
        ("cert", None, None, "PEM"),
    ],
)
def test_files_that_cannot_be_used_are_a_fault(
    certificate: str,
    key: str | None,
    password: str | None,
    fault: str,
    files: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The message names the files, not the password; nothing asks at the terminal."""
    monkeypatch.setenv(PASSWORD_VARIABLE, password or "")

    with pytest.raises(SettingsError, match=fault) as caught:
        server_tls(files[certificate], None if key is None else files[key])
    assert str(files[certificate]) in str(caught.value)
    assert "wrong" not in str(caught.value)
