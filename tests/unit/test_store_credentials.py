"""The entries of a Secret, as the kubelet mounts them."""

from pathlib import Path

import pytest

from conch.api.reasons import Reason
from conch.store.credentials import ENTRY_BYTES_MOST, Credentials
from conch.store.errors import StoreError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The kubelet's layout: entries are links through ..data, which it swaps."""
    mounted = tmp_path / "credentials"
    (mounted / "..2024_01_01").mkdir(parents=True)
    (mounted / "..data").symlink_to("..2024_01_01")
    return mounted


def entry(folder: Path, name: str, content: bytes) -> None:
    (folder / "..data" / name).write_bytes(content)
    (folder / name).symlink_to(f"..data/{name}")


def refusal(folder: Path) -> str:
    with pytest.raises(StoreError) as caught:
        Credentials.read(folder, "my-secret")
    assert caught.value.reason is Reason.SOURCE_ACCESS_DENIED
    assert "my-secret (model.source.credentialsSecretRef)" in caught.value.message
    return caught.value.message


def test_entries(folder: Path) -> None:
    entry(folder, "username", b"ann\n")
    entry(folder, "password", "pä ss".encode())
    entry(folder, ".dockerconfigjson", b"{}")
    assert dict(Credentials.read(folder, "s")) == {".dockerconfigjson": "{}", "password": "pä ss", "username": "ann"}


def test_they_are_read_anew(folder: Path) -> None:
    entry(folder, "token", b"old")
    assert Credentials.read(folder, "s")["token"] == "old"
    (folder / "..2025_01_01").mkdir()
    (folder / "..2025_01_01" / "token").write_bytes(b"new")
    (folder / "..fresh").symlink_to("..2025_01_01")
    (folder / "..fresh").rename(folder / "..data")
    assert Credentials.read(folder, "s")["token"] == "new"


def test_what_is_no_text_is_somebody_elses(folder: Path) -> None:
    entry(folder, "keystore", b"\xff\x00secret")
    assert "no text in it" in refusal(folder)
    entry(folder, "token", b"t")
    assert dict(Credentials.read(folder, "s")) == {"token": "t"}


def test_nothing_is_there(folder: Path, tmp_path: Path) -> None:
    assert "not there or has no text in it" in refusal(folder)
    assert "not there or has no text in it" in refusal(tmp_path / "no-such-folder")


def test_an_entry_cannot_fill_the_memory(folder: Path) -> None:
    entry(folder, "token", b"x" * (ENTRY_BYTES_MOST + 1))
    assert len(Credentials.read(folder, "s")["token"]) == ENTRY_BYTES_MOST


def test_no_value_is_ever_shown() -> None:
    credentials = Credentials({"token": "hidden", "username": "hidden"})
    for text in (repr(credentials), str(credentials), f"{credentials}", f"{[credentials]}"):
        assert "hidden" not in text
        assert "token, username" in text


def test_of_the_environment() -> None:
    environment = {"AWS_ACCESS_KEY_ID": "k", "AZURE_CLIENT_ID": "c", "HF_TOKEN": "t", "AWS_X": "", "CONCH_KEY": "no"}
    found = Credentials.of_environment({**environment, "GOOGLE_APPLICATION_CREDENTIALS": "/f", "PATH": "/bin"})
    assert set(found) == {"AWS_ACCESS_KEY_ID", "AZURE_CLIENT_ID", "HF_TOKEN", "GOOGLE_APPLICATION_CREDENTIALS"}
