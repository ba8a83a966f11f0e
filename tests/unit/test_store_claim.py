"""A model on a claim is verified where it lies: links within it are followed, anything that leaves it is refused."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from conch.api.reasons import Reason
from conch.api.source import ClaimSource
from conch.store import in_place
from conch.store.errors import StoreError
from conch.store.in_place import InPlace, fingerprint
from conch.store.sources.claim import link_claim
from conch.store.threads import Checkpoint, Interrupted, never_interrupted
from conch.store.transfer import Progress


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def linked(root: Path, path: str, checkpoint: Checkpoint = never_interrupted) -> InPlace:
    source = ClaimSource(claim="models", path=path)
    return link_claim(source, root / "claim", root / "tree", progress=Progress(), checkpoint=checkpoint)


def refused(root: Path, path: str) -> Reason:
    with pytest.raises(StoreError) as caught:
        linked(root, path)
    assert f"pvc://models/{path}" in caught.value.message
    caught.value.message.encode()
    return caught.value.reason


@pytest.fixture
def root(tmp_path: Path) -> Path:
    model = tmp_path / "claim" / "m" / "1"
    model.mkdir(parents=True)
    (model / "model.onnx").write_bytes(b"weights")
    (tmp_path / "claim" / "blob").write_bytes(b"shared")
    (tmp_path / "outside").write_bytes(b"a token")
    return tmp_path


def test_a_folder(root: Path) -> None:
    (root / "claim" / "m" / "labels.txt").symlink_to("../blob")
    found = linked(root, "m")
    assert found.sha256 == {"1/model.onnx": sha256(b"weights"), "labels.txt": sha256(b"shared")}
    assert (root / "tree" / "1" / "model.onnx").readlink() == root / "claim" / "m" / "1" / "model.onnx"
    assert (root / "tree" / "labels.txt").readlink() == root / "claim" / "blob"


def test_a_single_file(root: Path) -> None:
    assert linked(root, "m/1/model.onnx").sha256 == {"model.onnx": sha256(b"weights")}
    assert (root / "tree" / "model.onnx").read_bytes() == b"weights"


def test_progress(root: Path) -> None:
    (root / "claim" / "m" / "labels.txt").write_bytes(b"x" * 100)
    progress = Progress()
    source = ClaimSource(claim="models", path="m")
    link_claim(source, root / "claim", root / "tree", progress=progress, checkpoint=never_interrupted)
    assert (progress.bytes, progress.files) == (107, 2)


@pytest.mark.parametrize("target", ["../../outside", "/etc/passwd", "/proc/self/environ", "/", "../..", "/dev/null"])
def test_links_that_leave_the_claim(root: Path, target: str) -> None:
    (root / "claim" / "m" / "x").symlink_to(target)
    assert refused(root, "m") is Reason.SOURCE_NOT_ALLOWED


def test_the_path_itself_through_a_link_that_leaves(root: Path) -> None:
    (root / "claim" / "up").symlink_to("..")
    assert refused(root, "up/outside") is Reason.SOURCE_NOT_ALLOWED


def test_a_folder_beside_the_claim_with_a_longer_name(root: Path) -> None:
    (root / "claim2").mkdir()
    (root / "claim2" / "f").write_bytes(b"a token")
    (root / "claim" / "m" / "x").symlink_to("../../claim2/f")
    assert refused(root, "m") is Reason.SOURCE_NOT_ALLOWED


def test_a_link_that_leads_back(root: Path) -> None:
    (root / "claim" / "m" / "again").symlink_to(".")
    assert refused(root, "m") is Reason.INVALID_MODEL


def test_links_that_multiply_folders(root: Path) -> None:
    """Two ways from each folder to the next are a million ways to the last one, without a single file."""
    for number in range(20):
        (root / "claim" / f"d{number}").mkdir()
        for name in "ab":
            (root / "claim" / f"d{number}" / name).symlink_to(f"../d{number + 1}")
    (root / "claim" / "d20").mkdir()
    assert refused(root, "d0") is Reason.SOURCE_TOO_LARGE


def test_it_ends_between_folders_when_nobody_waits_any_more(root: Path) -> None:
    def checkpoint() -> None:
        raise Interrupted

    (root / "claim" / "empty").mkdir()
    with pytest.raises(Interrupted):
        linked(root, "empty", checkpoint)


def test_too_many_files(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_place, "ENTRIES_MOST", 4)
    linked(root, "m")
    (root / "claim" / "m" / "one").touch()
    (root / "claim" / "m" / "more").touch()
    (root / "tree").rename(root / "before")
    assert refused(root, "m") is Reason.SOURCE_TOO_LARGE


def test_nothing_there(root: Path) -> None:
    assert refused(root, "no/such") is Reason.SOURCE_NOT_FOUND
    (root / "tree").rmdir()
    (root / "claim" / "m" / "dangling").symlink_to("nowhere")
    assert refused(root, "m") is Reason.SOURCE_NOT_FOUND


@pytest.mark.parametrize("name", ["pipe", "a\nb", "a\\b", "a\udc80"])
def test_special_files_and_bad_names(root: Path, name: str) -> None:
    path = root / "claim" / "m" / name
    if name == "pipe":
        os.mkfifo(path)
    else:
        path.touch()
    assert refused(root, "m") is Reason.INVALID_MODEL


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/etc/passwd")])
def test_messages_about_names_that_are_no_text(root: Path, make: Callable[[Path], None]) -> None:
    """A message with half a character in it could not be reported."""
    make(root / "claim" / "m" / "a\udc80")
    assert refused(root, "m") in (Reason.INVALID_MODEL, Reason.SOURCE_NOT_ALLOWED)


def test_the_fingerprint_stays_as_long_as_nothing_is_written(root: Path) -> None:
    (root / "claim" / "m" / "labels.txt").symlink_to("../blob")
    found = linked(root, "m")
    assert fingerprint(root / "tree") == found.fingerprint
    (root / "claim" / "m" / "1" / "model.onnx").read_bytes()
    (root / "claim" / "m" / "beside").touch()
    assert fingerprint(root / "tree") == found.fingerprint


def rewrite(file: Path) -> None:
    before = file.stat()
    file.write_bytes(b"WEIGHTS")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(file: Path) -> None:
    rewrite_to = file.with_name("fresh")
    rewrite_to.write_bytes(b"WEIGHTS")
    rewrite_to.rename(file)


def lead_elsewhere(file: Path) -> None:
    file.unlink()
    file.symlink_to("../../../outside")


CHANGES = (rewrite, replace, lead_elsewhere, lambda file: os.truncate(file, 3))


@pytest.mark.parametrize("change", CHANGES)
def test_the_fingerprint_changes_with_a_file(root: Path, change: Callable[[Path], None]) -> None:
    found = linked(root, "m")
    change(root / "claim" / "m" / "1" / "model.onnx")
    assert fingerprint(root / "tree") != found.fingerprint


def test_a_file_that_is_gone(root: Path) -> None:
    linked(root, "m")
    (root / "claim" / "m" / "1" / "model.onnx").unlink()
    with pytest.raises(OSError, match="No such file"):
        fingerprint(root / "tree")


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_while_others_are_still_read(root: Path, change: Callable[[Path], None]) -> None:
    """What was hashed is not there any more: the fingerprint is of what was hashed."""
    (root / "claim" / "m" / "2").write_bytes(b"the last one")
    calls = [0]

    def checkpoint() -> None:
        if (root / "tree" / "1" / "model.onnx").is_symlink() and not calls[0]:
            calls[0] = 1
            change(root / "claim" / "m" / "1" / "model.onnx")

    found = linked(root, "m", checkpoint)
    assert calls[0]
    assert found.sha256["1/model.onnx"] == sha256(b"weights")
    assert fingerprint(root / "tree") != found.fingerprint
