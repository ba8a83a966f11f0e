"""The agent's files: the assignment as the kubelet swaps it, and a volume that is whole at every moment."""

import json
from pathlib import Path

import pytest

from conch.agent.assignment_file import AssignmentFile
from conch.agent.state import Disk
from conch.agent.volume import Record, Volume
from conch.api.assignment import Assignment
from conch.api.model import ModelSource
from conch.api.source import SCHEMES
from conch.api.source_policy import SourcePolicy

ASSIGNMENT = Assignment(revision="r1", name="mlp", version=1, source=ModelSource(uri="https://h.example/m.onnx"))


def mount(folder: Path, generation: int, content: str) -> Path:
    """A ConfigMap volume: the file is a link through `..data`, which is swapped."""
    data = folder / f"..{generation}"
    data.mkdir(parents=True)
    (data / "assignment.json").write_text(content)
    fresh = folder / "..data_tmp"
    fresh.symlink_to(data.name)
    fresh.rename(folder / "..data")
    file = folder / "assignment.json"
    if not file.is_symlink():
        file.symlink_to("..data/assignment.json")
    return file


def test_absent_then_there_then_swapped_then_gone(tmp_path: Path) -> None:
    file = AssignmentFile(tmp_path / "m" / "assignment.json")
    assert (file.read().assignment, file.read().problem) == (None, None)
    path = mount(tmp_path / "m", 1, ASSIGNMENT.model_dump_json(by_alias=True))
    assert file.read().assignment == ASSIGNMENT
    assert file.read() is file.read()
    changed = ASSIGNMENT.model_copy(update={"version": 2})
    mount(tmp_path / "m", 2, changed.model_dump_json(by_alias=True))
    assert file.read().assignment == changed
    path.unlink()
    assert file.read().assignment is None


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"revision": "r"}', '{"uri": "https://h/x?sig=secret"}'])
def test_nonsense_is_a_problem_in_words(tmp_path: Path, content: str) -> None:
    read = AssignmentFile(mount(tmp_path / "m", 1, content)).read()
    assert read.assignment is None
    assert read.problem is not None
    assert "compatible versions" in read.problem
    assert "secret" not in read.problem


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    made = Volume(tmp_path)
    made.prepare()
    return made


def fetched(volume: Volume, key: str, content: bytes = b"weights") -> None:
    with volume.scratch() as folder:
        (folder / "tree").mkdir()
        (folder / "tree" / "model.onnx").write_bytes(content)
        volume.keep_fetched(key, folder, Record(digest="sha256:d", bytes=len(content), resolved="etag"))


def laid_out(volume: Volume, key: str, name: str) -> None:
    with volume.scratch() as folder:
        (folder / name / "1").mkdir(parents=True)
        volume.keep_layout(key, folder, [name])


def test_what_a_newer_operator_says_besides_is_ignored(tmp_path: Path) -> None:
    newer = ASSIGNMENT.to_wire() | {"surprise": 1, "sourcePolicy": {"httpHosts": ["h"], "alsoNew": True}}
    newer["sourcePolicy"]["schemes"] = [*SCHEMES, "git"]
    path = mount(tmp_path / "m", 1, json.dumps(newer))
    read = AssignmentFile(path).read()
    assert read.problem is None
    assert read.assignment == ASSIGNMENT.model_copy(update={"source_policy": SourcePolicy(http_hosts=("h",))})


def test_what_is_kept_is_seen_by_the_next_agent(tmp_path: Path, volume: Volume) -> None:
    fetched(volume, "k")
    laid_out(volume, "l1", "mlp")
    laid_out(volume, "l2", "mlp")
    again = Volume(tmp_path)
    again.prepare()
    assert again.disk() == Disk(fetched={"k": "sha256:d"}, layouts=(("mlp", "l2"),))
    record = again.record("k")
    assert record is not None
    assert (record.digest, record.bytes, record.resolved) == ("sha256:d", 7, "etag")
    assert again.record("other") is None


def test_after_the_machine_crashed_nothing_is_trusted_until_it_was_verified_anew(tmp_path: Path) -> None:
    before = Volume(tmp_path, boot="1")
    before.prepare()
    fetched(before, "k")
    laid_out(before, "l", "mlp")
    before.partial("p").mkdir()
    after = Volume(tmp_path, boot="2")
    after.prepare()
    assert (after.disk(), after.record("k")) == (Disk(), None)
    assert not after.partial("p").exists()
    record = after.untrusted("k")
    assert record is not None
    after.trust("k", record)
    assert (after.record("k"), after.untrusted("k")) == (record, None)
    assert after.disk().fetched == {"k": "sha256:d"}


def test_what_arrived_in_part_outlives_the_agent(tmp_path: Path, volume: Volume) -> None:
    volume.partial("p").mkdir()
    again = Volume(tmp_path)
    again.prepare()
    assert again.partial("p").exists()


def test_an_interrupted_fetch_leaves_nothing(tmp_path: Path, volume: Volume) -> None:
    with volume.scratch() as folder:
        (folder / "tree").mkdir()
    assert list((tmp_path / "tmp").iterdir()) == []
    (tmp_path / "tmp" / "killed").mkdir()
    (tmp_path / "fetched" / "no-record").mkdir()
    volume.prepare()
    assert list((tmp_path / "tmp").iterdir()) == []
    assert volume.disk().fetched == {}


def test_what_an_ensemble_is_composed_of_is_there_when_it_is(
    tmp_path: Path, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At any moment of laying another one out, an agent that starts anew does not find the one in front of the other's
    members."""

    def lay_out(key: str, *names: str) -> None:
        with volume.scratch() as folder:
            for name in names:
                (folder / name / "1").mkdir(parents=True)
            volume.keep_layout(key, folder, names)

    lay_out("old", "first", "last", "whole")
    seen: list[dict[str, str]] = []
    rename = Path.rename

    def watched(self: Path, target: Path) -> Path:
        result = rename(self, target)
        seen.append(dict(volume.disk().layouts))
        return result

    monkeypatch.setattr(Path, "rename", watched)
    lay_out("new", "first", "whole")
    assert all(seen)
    for layouts in seen:
        if (key := layouts.get("whole")) is not None:
            assert layouts["first"] == key
    volume.clean_up(fetched="k", layout="new")
    assert volume.disk().layouts == (("first", "new"), ("whole", "new"))
    assert sorted(p.name for p in (tmp_path / "repository").iterdir()) == ["first", "whole"]


def test_clean_up_and_drop(tmp_path: Path, volume: Volume) -> None:
    for key in ("k1", "k2"):
        fetched(volume, key)
    laid_out(volume, "l1", "old")
    laid_out(volume, "l2", "new")
    volume.clean_up(fetched="k2", layout="l2")
    assert volume.disk() == Disk(fetched={"k2": "sha256:d"}, layouts=(("new", "l2"),))
    assert [p.name for p in (tmp_path / "repository").iterdir()] == ["new"]
    volume.drop_layout("l2")
    assert list((tmp_path / "repository").iterdir()) == []


def test_a_mark_that_came_with_the_model_is_not_written_through(tmp_path: Path, volume: Volume) -> None:
    fetched = tmp_path / "theirs"
    fetched.write_text("theirs")
    with volume.scratch() as folder:
        (folder / "mlp").mkdir()
        (folder / "mlp" / ".conch-layout").hardlink_to(fetched)
        volume.keep_layout("key", folder, ["mlp"])
    assert fetched.read_text() == "theirs"
    assert volume.disk().layouts == (("mlp", "key"),)
