"""What is pushed: only what can be fetched again, packed the same way every time, and printed to be pasted."""

import hashlib
import itertools
import os
import tarfile
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from conch.api.model import ModelSource
from conch.api.reasons import Reason
from conch.api.source import BucketSource, parse_source_uri
from conch.store.archive import ArchiveLimits, extract
from conch.store.digest import tree_digest
from conch.store.errors import StoreError
from conch.store.push import buckets
from conch.store.push.dispatch import yaml_of
from conch.store.push.meter import Meter
from conch.store.push.pack import pack
from conch.store.push.settings import PushSettings
from conch.store.push.tree import Tree, TreeFile, read_tree

FILES = {"b/model.onnx": b"weights" * 300_000, "a": b"", "labels ü.txt": b"x\n"}
METER = Meter(terminal=False)


def model(folder: Path) -> Path:
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def refusal(path: Path) -> str:
    with pytest.raises(StoreError) as failed:
        read_tree(path, METER)
    return failed.value.message


def test_a_folder(tmp_path: Path) -> None:
    tree = read_tree(model(tmp_path / "m"), METER)
    assert tree.digest == tree_digest(tmp_path / "m")
    assert {file.path: b"".join(file.chunks()) for file in tree.files} == FILES
    assert (tree.bytes, str(tree)) == (2_100_002, "3 files")
    assert sorted(tree.at("x/y")) == ["x/y/a", "x/y/b/model.onnx", "x/y/labels ü.txt"]
    assert sorted(tree.at("")) == sorted(FILES)


def test_a_bare_file_keeps_its_name(tmp_path: Path) -> None:
    path = model(tmp_path / "m") / "b" / "model.onnx"
    tree = read_tree(path, METER)
    assert tree.digest == tree_digest(path)
    assert list(tree.at("x")) == ["x/model.onnx"]
    assert list(tree.at("x/model.onnx")) == ["x/model.onnx"]
    assert list(tree.at("")) == ["model.onnx"]


def test_what_could_not_be_fetched_again(tmp_path: Path) -> None:
    empty, linked, special, odd = (tmp_path / name for name in ("empty", "linked", "special", "odd"))
    for folder in (empty, linked, special, odd):
        folder.mkdir()
    (empty / "folder").mkdir()
    assert "has no files" in refusal(empty)
    (linked / "link").symlink_to("/etc/passwd")
    assert "symbolic link link" in refusal(linked)
    (tmp_path / "top").symlink_to(model(tmp_path / "m"))
    assert "name the folder or file that it leads to" in refusal(tmp_path / "top")
    os.mkfifo(special / "pipe")
    assert "special file pipe" in refusal(special)
    (odd / "line\nbreak").touch()
    assert "rename it" in refusal(odd)


def test_an_archive_would_be_unpacked(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "model.bin", "w:gz") as tar:
        tar.add(model(tmp_path / "m"), "m")
    assert "unpack it here" in refusal(tmp_path / "model.bin")
    (tmp_path / "folder").mkdir()
    (tmp_path / "model.bin").rename(tmp_path / "folder" / "model.zip")
    assert "unpack it here" in refusal(tmp_path / "folder")


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_a_file_that_changes_is_never_sent_whole(tmp_path_factory: pytest.TempPathFactory, a: bytes, b: bytes) -> None:
    path = tmp_path_factory.mktemp("model") / "m"
    path.write_bytes(b)
    file = TreeFile(path="m", local=path, size=len(a), sha256=hashlib.sha256(a).hexdigest())
    sent = bytearray()
    if a and a != b:
        with pytest.raises(StoreError) as failed:
            sent.extend(itertools.chain.from_iterable(file.chunks()))
        assert (failed.value.reason, len(sent) < len(a)) == (Reason.SOURCE_CHANGED, True)
    else:
        assert b"".join(file.chunks()) == a


@pytest.mark.parametrize("name", ["m.tar", "m.tar.gz", "m.tgz", "m.tar.zst"])
def test_an_archive_is_the_same_whenever_it_is_packed(name: str, tmp_path: Path) -> None:
    packed = []
    for number in range(2):
        folder = model(tmp_path / f"m{number}")
        os.utime(folder / "a", (number * 1000, number * 1000))
        (folder / "a").chmod(0o600 + number)
        tree = read_tree(folder, METER)
        archive = tmp_path / f"packed-{number}"
        with METER.step("packing", None) as step:
            pack(tree, archive, name, step)
        packed.append(archive.read_bytes())
    assert packed[0] == packed[1]
    hashes = extract(tmp_path / "packed-0", tmp_path / "unpacked", name=name, limits=ArchiveLimits())
    assert hashes == {path: hashlib.sha256(content).hexdigest() for path, content in FILES.items()}


def test_an_archive_may_not_have_more_files_than_are_unpacked(tmp_path: Path) -> None:
    file = TreeFile(path="m", local=tmp_path, size=0, sha256="")
    with METER.step("packing", None) as step, pytest.raises(StoreError, match="another kind of store"):
        pack(
            Tree(files=(file,) * (ArchiveLimits().files + 1), digest="", bare=False), tmp_path / "m.tar", "m.tar", step
        )


def test_what_is_printed_is_a_source() -> None:
    source = ModelSource(
        uri="s3://models/" + "long/" * 60 + "m",
        digest=f"sha256:{'0' * 64}",
        endpoint="https://minio.example.com",
        region="eu-1",
        path_style=False,
    )
    printed = yaml_of(source)
    assert ModelSource.model_validate(yaml.safe_load(printed)["source"]) == source
    assert len(printed.splitlines()) == 6
    plain = yaml_of(ModelSource(uri="gs://models/m", digest=source.digest))
    assert plain == f"source:\n  uri: gs://models/m\n  digest: {source.digest}\n"


def test_what_some_stores_cannot_have_beside_each_other() -> None:
    wanted = read_names("p/a", "p/b/c")
    assert buckets._in_the_way(["p", "p/a/x", "p/a/x/y", "p/b", "p/z", "p/b/d"], wanted) == {
        "p",
        "p/a/x",
        "p/a/x/y",
        "p/b",
    }


def read_names(*keys: str) -> dict[str, TreeFile]:
    return {key: TreeFile(path=key, local=Path(key), size=0, sha256="") for key in keys}


def test_google_wants_credentials() -> None:
    source = parse_source_uri("gs://models/m")
    assert isinstance(source, BucketSource)
    settings = PushSettings(shown="gs://models/m", meter=METER)
    with pytest.raises(StoreError, match="GOOGLE_APPLICATION_CREDENTIALS"):
        buckets.push(source, Tree(files=(), digest="", bare=False), settings)
