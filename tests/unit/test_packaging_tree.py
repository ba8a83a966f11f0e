"""What is written into a repository is written whole or not at all."""

import errno
import fcntl
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from conch.packaging.errors import PackagingError
from conch.packaging.output import tree
from conch.packaging.output.tree import ModelFiles, require_place, write_model
from conch.triton.config_pbtxt import parse_config

CONFIG = """
    name: "net" backend: "onnxruntime" max_batch_size: 8
    input { name: "x" data_type: TYPE_FP32 dims: 4 } output { name: "y" data_type: TYPE_FP32 dims: 3 }
"""
ENSEMBLE = 'platform: "ensemble" ensemble_scheduling { step { model_name: "net" model_version: -1 } }'


def model(version: int = 1, config: str = CONFIG, **files: bytes | Path) -> ModelFiles:
    given = {name.replace("__", "/"): content for name, content in files.items()}
    return ModelFiles(
        config=parse_config(config), version=version, files={f"{version}/model.onnx": b"graph %d" % version, **given}
    )


def content(folder: Path) -> dict[str, bytes]:
    return {each.relative_to(folder).as_posix(): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


def everything(folder: Path) -> dict[str, bytes | None]:
    """Also hidden files and folders."""
    return {
        each.relative_to(folder).as_posix(): each.read_bytes() if each.is_file() else None for each in folder.rglob("*")
    }


def test_a_model_and_an_ensemble(tmp_path: Path) -> None:
    labels = tmp_path / "names"
    labels.write_bytes(b"a\nb\n")
    out = tmp_path / "deep" / "models"
    ensemble = ModelFiles(config=parse_config(ENSEMBLE), version=3)
    write_model(out, {"net": model(labels=labels), "text": ensemble})
    assert parse_config((out / "net" / "config.pbtxt").read_text()) == parse_config(CONFIG)
    assert content(out).keys() == {
        *("net/config.pbtxt", "net/1/model.onnx", "net/labels"),
        *("text/config.pbtxt", "text/3/.keep"),
    }
    assert (out / "net" / "labels").read_bytes() == b"a\nb\n"
    assert (out / "net").stat().st_mode & 0o777 == out.stat().st_mode & 0o777, "others may read it"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["deep", "names"]
    assert [each.name for each in (tmp_path / "deep").iterdir()] == ["models"]


def test_another_version_keeps_the_ones_that_are_there(tmp_path: Path) -> None:
    write_model(tmp_path, {"net": model(1, golden=b"1", README=b"mine", library__a=b"old")})
    first = (tmp_path / "net" / "1" / "model.onnx").stat().st_ino
    write_model(tmp_path, {"net": model(2, golden=b"2", library__b=b"new")})
    files = content(tmp_path / "net")
    files.pop("config.pbtxt")
    assert files == {
        **{"1/model.onnx": b"graph 1", "2/model.onnx": b"graph 2"},
        **{"golden": b"2", "README": b"mine", "library/b": b"new"},
    }
    assert (tmp_path / "net" / "1" / "model.onnx").stat().st_ino == first, "weights are not copied"


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("dims: 4", "dims: 5", r"input 'x' of version 2 .*: FP32 \[5\], there FP32 \[4\]"),
        ("TYPE_FP32 dims: 3", "TYPE_INT64 dims: 3", r"output 'y' .* INT64 \[3\], there FP32 \[3\]"),
        ('name: "x"', 'name: "z"', r"input 'x' of version 2 .*: none, there FP32 \[4\]"),
        ("max_batch_size: 8", "", "batches of version 2 .*: no, there yes"),
        ('backend: "onnxruntime"', 'backend: "python"', "backend of version 2 .*: python, there onnxruntime"),
    ],
)
def test_another_version_takes_and_gives_the_same(tmp_path: Path, before: str, after: str, words: str) -> None:
    write_model(tmp_path, {"net": model()})
    there = everything(tmp_path)
    assert before in CONFIG
    with pytest.raises(PackagingError, match=f"{words}.*give another --name"):
        write_model(tmp_path, {"net": model(2, CONFIG.replace(before, after))})
    assert everything(tmp_path) == there


def test_a_version_is_never_overwritten(tmp_path: Path) -> None:
    write_model(tmp_path, {"net": model()})
    there = everything(tmp_path)
    with pytest.raises(PackagingError, match="has a version 1 already, and a version is never overwritten"):
        write_model(tmp_path, {"other": model(), "net": model()})
    assert everything(tmp_path) == there


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda out: (out / "config.pbtxt").write_text(""), "is a model's folder, not a repository's"),
        (lambda out: (out / "net").write_text(""), "is no folder"),
        (lambda out: (out / "net").symlink_to("nowhere"), "is no folder"),
        (lambda out: (out / "net" / "notes").mkdir(parents=True), "holds something that is no model"),
        (lambda out: write_model(out, {"net": model(2)}), "give another --version than 2"),
    ],
)
def test_places_that_are_taken(tmp_path: Path, prepare: Callable[[Path], Any], words: str) -> None:
    prepare(tmp_path)
    with pytest.raises(PackagingError, match=words):
        require_place(tmp_path, "net", 2)


def test_a_file_in_place_of_the_repository(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(PackagingError, match="out is no folder; give another --output"):
        require_place(tmp_path / "out", "net", 1)


def test_a_folder_that_may_not_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PackagingError, match=f"{tmp_path} may not be written to"):
        require_place(tmp_path / "a" / "b", "net", 1)


def failing(error: BaseException, *, at: int) -> Callable[..., Any]:
    """Path.write_bytes that fails at that call."""
    calls = iter(range(100))
    original = Path.write_bytes

    def write(self: Path, data: bytes) -> int:
        if next(calls) == at:
            raise error
        return original(self, data)

    return write


@pytest.mark.parametrize("at", [0, 1, 2, 3])
@pytest.mark.parametrize("kind", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_nothing_is_left_of_what_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: BaseException, at: int
) -> None:
    out = tmp_path / "models"
    monkeypatch.setattr(Path, "write_bytes", failing(kind, at=at))
    with pytest.raises((PackagingError, KeyboardInterrupt)) as raised:
        write_model(out / "new" / "ones", {"net": model(), "other": model()})
    assert everything(tmp_path) == {}
    if isinstance(kind, OSError):
        assert "does not fit into" in str(raised.value)
        assert "make room" in str(raised.value)


def test_nothing_has_changed_where_a_second_version_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path / "models", {"net": model(golden=b"1")})
    there = everything(tmp_path)
    monkeypatch.setattr(Path, "write_bytes", failing(OSError(errno.EDQUOT, "Disk quota exceeded"), at=1))
    with pytest.raises(PackagingError, match=r"does not fit into .*Disk quota exceeded"):
        write_model(tmp_path / "models", {"net": model(2, golden=b"2")})
    assert everything(tmp_path) == there


@pytest.mark.parametrize("at", range(5))
def test_renames_are_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    out = tmp_path / "models"
    write_model(out, {"net": model(), "text": model()})
    there = everything(tmp_path)
    original, calls = Path.rename, iter(range(100))

    def rename(self: Path, target: Path) -> Path:
        if next(calls) == at:
            raise OSError(errno.EIO, "Input/output error")
        return original(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(PackagingError, match=r"cannot be written to .*Input/output error"):
        write_model(out, {"a": model(), "net": model(2), "text": model(2)})
    assert everything(tmp_path) == there


def test_an_interruption_waits_for_the_renames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Path.rename

    def rename(self: Path, target: Path) -> Path:
        signal.raise_signal(signal.SIGINT)
        return original(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    out = tmp_path / "models"
    # Whoever starts the tests in the background may have them ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            write_model(out, {"net": model(), "text": model()})
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert {each.name for each in out.iterdir()} == {"net", "text"}, "both, not one of them"
    assert [each.name for each in tmp_path.iterdir()] == ["models"]


def test_the_temporary_folder_lies_beside_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton would take it for a model, and not start."""
    out, seen = tmp_path / "models", []
    original = tree._move_in

    def look(*told: Any) -> None:
        seen.append({each.name.startswith(".models-conch-") for each in tmp_path.iterdir() if each != out})
        assert list(out.iterdir()) == []
        original(*told)

    monkeypatch.setattr(tree, "_move_in", look)
    write_model(out, {"net": model()})
    assert seen == [{True}]


def test_where_it_cannot_lie_there_it_lies_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "models"
    out.mkdir()
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path and allowed(path, mode))
    original = tree._move_in
    seen: list[object] = []

    def look(*told: Any) -> None:
        seen.extend((list(tmp_path.iterdir()), [each.name[:8] for each in out.iterdir()]))
        original(*told)

    monkeypatch.setattr(tree, "_move_in", look)
    write_model(out, {"net": model()})
    assert seen == [[out], [".models-"]]
    assert [each.name for each in out.iterdir()] == ["net"]


def test_a_file_system_without_links_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_told: Any, **_named: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    write_model(tmp_path, {"net": model()})
    monkeypatch.setattr(os, "link", link)
    write_model(tmp_path, {"net": model(2)})
    assert (tmp_path / "net" / "1" / "model.onnx").read_bytes() == b"graph 1"


def test_a_file_that_is_to_be_copied_is_missing(tmp_path: Path) -> None:
    with pytest.raises(PackagingError, match=r"cannot be written to .*: No such file or directory \(.*gone\)"):
        write_model(tmp_path / "models", {"net": model(labels=tmp_path / "gone")})
    assert everything(tmp_path) == {}


def test_a_configuration_that_is_damaged(tmp_path: Path) -> None:
    write_model(tmp_path, {"net": model()})
    (tmp_path / "net" / "config.pbtxt").write_text("input {")
    with pytest.raises(PackagingError, match=r"config.pbtxt cannot be read \(.*\); mend it"):
        write_model(tmp_path, {"net": model(2)})


def test_the_copy_does_not_reach_into_the_model_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of the other versions are links: writing through one would change what is served."""
    out = tmp_path / "models"
    write_model(out, {"net": model(golden=b"1")})
    monkeypatch.setattr(shutil, "rmtree", lambda *_told, **_named: None)
    write_model(out, {"net": model(2, golden=b"2")})
    (old,) = tmp_path.glob(".models-conch-*/old/net/golden")
    assert old.read_bytes() == b"1"


def test_two_at_once_keep_each_others_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one has looked before the first one writes, and waits for it."""
    out = tmp_path / "models"
    out.mkdir()
    fill, held = tree._fill, []

    def filled(*arguments: Any, **named: Any) -> None:
        other = os.open(out, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(other)
        held.append(True)
        fill(*arguments, **named)

    monkeypatch.setattr(tree, "_fill", filled)
    write_model(out, {"net": model()})
    assert held == [True]
    alone = tree._alone

    @contextmanager
    def late(folder: Path) -> Iterator[None]:
        with alone(folder):
            shutil.copytree(out / "net" / "1", out / "net" / "2")
            yield

    monkeypatch.setattr(tree, "_alone", late)
    with pytest.raises(PackagingError, match="has a version 2 already"):
        write_model(out, {"net": model(2)})


def test_folders_of_ones_own_stay_with_another_version(tmp_path: Path) -> None:
    write_model(tmp_path, {"net": model(lib__old=b"1")})
    (tmp_path / "net" / ".git").mkdir()
    (tmp_path / "net" / ".git" / "HEAD").write_text("ref")
    write_model(tmp_path, {"net": model(2, lib__new=b"2")})
    there = content(tmp_path / "net")
    assert there[".git/HEAD"] == b"ref"
    assert (there.get("lib/old"), there["lib/new"]) == (None, b"2"), "what the new version brings comes whole"


def test_no_version_beside_a_link(tmp_path: Path) -> None:
    write_model(tmp_path, {"net": model()})
    (tmp_path / "net" / "link").symlink_to("1")
    before = everything(tmp_path)
    with pytest.raises(PackagingError, match=r"cannot get another version: .*symbolic link link"):
        write_model(tmp_path, {"net": model(2)})
    assert everything(tmp_path) == before


@pytest.mark.parametrize("name", ["a" * 300, "a\0b"])
def test_a_name_that_no_folder_can_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(PackagingError, match="cannot be written to"):
        require_place(tmp_path / name, "net", 1)
