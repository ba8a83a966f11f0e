"""What a restarted agent knows: of the files as they are listed now, and of nothing else."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from conch.store.journal import Journal, Known
from conch.store.remote import RemoteFile


def file_of(path: str, version: str = "v1", size: int | None = 100) -> RemoteFile:
    return RemoteFile(path=path, key=path, size=size, version=version)


A, B = file_of("a"), file_of("b")


def known(path: Path, *files: RemoteFile) -> Mapping[str, Known]:
    journal = Journal(path)
    try:
        return journal.open(files)
    finally:
        journal.close()


def written(path: Path, *files: RemoteFile) -> None:
    """Each file: a part, then another one, then all of it if it is named b."""
    journal = Journal(path)
    journal.open(files)
    for file in files:
        journal.add_part(file, 0, 40)
        journal.add_part(file, 60, 100)
        if file.path == "b":
            journal.add_file(file, "5ha")
    journal.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "partial" / "journal"


def test_nothing_yet(path: Path) -> None:
    assert known(path, A) == {}


def test_parts_and_files(path: Path) -> None:
    written(path, A, B)
    both = {"a": Known("v1", 100, None, {0: 40, 60: 100}), "b": Known("v1", 100, "5ha", {0: 40, 60: 100})}
    for _ in range(3):
        assert known(path, A, B) == both


def test_it_is_there_before_it_is_closed(path: Path) -> None:
    """A process that is killed closes nothing."""
    journal = Journal(path)
    journal.open([A])
    journal.add_part(A, 0, 40)
    assert json.loads(path.read_text()) == ["a", "v1", 100, 0, 40, None]
    journal.close()


@pytest.mark.parametrize("now", [file_of("a", "v2"), file_of("a", size=99), file_of("a", size=None), file_of("a", "")])
def test_another_version_or_size_is_forgotten_for_good(path: Path, now: RemoteFile) -> None:
    written(path, A)
    assert known(path, now) == {}
    assert known(path, A) == {}


def test_what_is_not_listed_is_forgotten(path: Path) -> None:
    written(path, A, B)
    assert known(path, B).keys() == {"b"}
    assert known(path, A, B).keys() == {"b"}


def test_without_a_version_nothing_is_written(path: Path) -> None:
    written(path, file_of("a", ""), file_of("b", ""))
    assert path.read_text() == ""
    path.write_text('["a", "", 100, 0, 100, "5ha"]\n')
    assert known(path, file_of("a", "")) == {}


def test_the_latest_version_counts(path: Path) -> None:
    path.parent.mkdir()
    lines = [["a", "v1", 100, 0, 100, "old"], ["a", "v2", 100, 0, 40, None]]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert known(path, A) == {}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert known(path, file_of("a", "v2")) == {"a": Known("v2", 100, None, {0: 40})}


@pytest.mark.parametrize("torn", ["[", '["a", "v1", 100, 40', "\0\0\0\0"])
def test_a_torn_line_and_what_is_written_after_it(path: Path, torn: str) -> None:
    written(path, A)
    with path.open("a") as end:
        end.write(torn)
    journal = Journal(path)
    journal.open([A])
    journal.add_part(A, 40, 60)
    journal.close()
    assert known(path, A) == {"a": Known("v1", 100, None, {0: 40, 60: 100, 40: 60})}


def test_it_does_not_grow_with_restarts(path: Path) -> None:
    written(path, A, B)
    known(path, A, B)
    size = path.stat().st_size
    for _ in range(5):
        known(path, A, B)
    assert path.stat().st_size == size


@pytest.mark.parametrize("name", ["é\u2028\x85", 'quo"te', "[", "null"])
def test_names_and_versions_of_every_kind(path: Path, name: str) -> None:
    file = RemoteFile(path=name, key="k", size=100, version=f'W/"{name}"\udc80')
    written(path, file)
    assert known(path, file)[name].parts == {0: 40, 60: 100}
