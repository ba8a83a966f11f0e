"""The tree digest is what the documented shell command prints, and refuses what that command cannot express."""

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conch.api.reasons import Reason
from conch.store import StoreError, tree_digest

ONE_LINER = r"find . -type f -printf '%P\0' | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum"
NAMES = st.text(
    st.characters(exclude_characters="/\0\n\r\\", exclude_categories=["Cs"]), min_size=1, max_size=12
).filter(lambda name: name not in (".", "..") and not name.startswith("-"))


def shell_digest(folder: Path) -> str:
    listing = subprocess.run(["bash", "-c", ONE_LINER], cwd=folder, check=True, capture_output=True)
    return f"sha256:{listing.stdout.split()[0].decode()}"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=st.dictionaries(st.lists(NAMES, min_size=1, max_size=3).map("/".join), st.binary(max_size=64), min_size=1))
def test_equals_the_shell_command(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
    folder = tmp_path_factory.mktemp("tree")
    for name, content in files.items():
        path = folder / name
        if any(parent.is_file() for parent in path.parents) or path.is_dir():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert tree_digest(folder) == shell_digest(folder)


def test_a_bare_file_counts_as_itself_in_a_folder(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"weights")
    assert tree_digest(file) == tree_digest(tmp_path) == shell_digest(tmp_path)


def test_modes_times_and_empty_folders_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    before = tree_digest(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "a").chmod(0o755)
    os.utime(tmp_path / "a", (1, 1))
    assert tree_digest(tmp_path) == before


@pytest.mark.parametrize("name", ["with\nbreak", "with\\backslash", "with\rreturn"])
def test_ambiguous_names_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    refused(tmp_path, "rename")


def test_names_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff\xfe")).write_bytes(b"x")
    refused(tmp_path, "UTF-8")


def test_links_and_special_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    refused(tmp_path, "symbolic link")
    (tmp_path / "link").unlink()
    (tmp_path / "folder-link").symlink_to("/etc")
    refused(tmp_path, "symbolic link")
    (tmp_path / "folder-link").unlink()
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path, "special file")
    with pytest.raises(StoreError):
        tree_digest(tmp_path / "pipe")


def refused(folder: Path, words: str) -> None:
    with pytest.raises(StoreError, match=words) as caught:
        tree_digest(folder)
    assert caught.value.reason is Reason.INVALID_MODEL
