"""Copies from a claim: links within it are followed, anything that leaves it is refused."""

import os
from pathlib import Path

import pytest

from conch.api.reasons import Reason
from conch.api.source import ClaimSource
from conch.store.claim import copy_claim
from conch.store.errors import StoreError
from conch.store.threads import never_interrupted


def copied(root: Path, path: str, limit: int = 1 << 20) -> Path:
    target = root / "copy"
    copy_claim(
        ClaimSource(claim="models", path=path),
        root / "claim",
        target,
        limit_bytes=limit,
        progress=lambda _done, _total: None,
        checkpoint=never_interrupted,
    )
    return target


def refused(root: Path, path: str, limit: int = 1 << 20) -> Reason:
    with pytest.raises(StoreError) as caught:
        copied(root, path, limit)
    assert f"pvc://models/{path}" in caught.value.message
    return caught.value.reason


@pytest.fixture
def root(tmp_path: Path) -> Path:
    model = tmp_path / "claim" / "m" / "1"
    model.mkdir(parents=True)
    (model / "model.onnx").write_bytes(b"weights")
    (tmp_path / "claim" / "blob").write_bytes(b"shared")
    (tmp_path / "outside").write_bytes(b"a token")
    return tmp_path


def test_a_folder_and_a_file(root: Path) -> None:
    (root / "claim" / "m" / "labels.txt").symlink_to("../blob")
    tree = copied(root, "m")
    assert (tree / "1" / "model.onnx").read_bytes() == b"weights"
    assert (tree / "labels.txt").read_bytes() == b"shared"
    assert not (tree / "labels.txt").is_symlink()


def test_a_single_file(root: Path) -> None:
    assert copied(root, "m/1/model.onnx").read_bytes() == b"weights"


@pytest.mark.parametrize("target", ["../../outside", "/etc/passwd", "/proc/self/environ"])
def test_links_that_leave_the_claim(root: Path, target: str) -> None:
    (root / "claim" / "m" / "x").symlink_to(target)
    assert refused(root, "m") is Reason.SOURCE_NOT_ALLOWED


def test_the_path_itself_through_a_link_that_leaves(root: Path) -> None:
    (root / "claim" / "up").symlink_to("..")
    assert refused(root, "up/outside") is Reason.SOURCE_NOT_ALLOWED


def test_a_link_that_leads_back(root: Path) -> None:
    (root / "claim" / "m" / "again").symlink_to(".")
    assert refused(root, "m") is Reason.INVALID_MODEL


def test_nothing_there(root: Path) -> None:
    assert refused(root, "no/such") is Reason.SOURCE_NOT_FOUND
    (root / "claim" / "m" / "dangling").symlink_to("nowhere")
    assert refused(root, "m") is Reason.SOURCE_NOT_FOUND


def test_special_files_and_size(root: Path) -> None:
    assert refused(root, "m", limit=3) is Reason.SOURCE_TOO_LARGE
    (root / "copy" / "1" / "model.onnx").unlink()
    os.mkfifo(root / "claim" / "pipe")
    assert refused(root, "pipe") is Reason.INVALID_MODEL
