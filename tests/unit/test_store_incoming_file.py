"""A file that arrives in any order: its hash is that of what lies on the disk, whoever wrote it."""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conch.store import incoming_file
from conch.store.incoming_file import IncomingFile
from conch.store.threads import Interrupted


@pytest.fixture(autouse=True)
def no_descriptor_left() -> Iterator[None]:
    yield
    open_now = [link for each in Path("/proc/self/fd").iterdir() if (link := _target(each)).endswith("/f")]
    assert not open_now


def _target(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink())
    except FileNotFoundError:  # the one that lists them
        return ""


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@settings(max_examples=100, deadline=None)
@given(data=st.data(), size=st.integers(0, 3000), part=st.integers(1, 700), chunk=st.integers(1, 300))
def test_chunks_of_parts_in_any_order(data: st.DataObject, size: int, part: int, chunk: int) -> None:
    content = hashlib.shake_128(b"x").digest(size)
    step = max(part, size // 20, 1)
    queues = {start: list(range(start, min(start + step, size), chunk)) for start in range(0, size, step)}
    with TemporaryDirectory() as folder:
        path = Path(folder, "a", "f")
        file = IncomingFile(path)
        while queues:
            start = data.draw(st.sampled_from(sorted(queues)))
            position = queues[start].pop(0)
            file.write(start, position, memoryview(content)[position : min(position + chunk, start + step, size)])
            if not queues[start]:
                del queues[start]
        assert file.finish() == sha256(content)
        assert file.hashed_bytes == size
        assert path.read_bytes() == content


def test_many_writers_at_once(tmp_path: Path) -> None:
    content, part = os.urandom(1 << 20), 1 << 14
    file = IncomingFile(tmp_path / "f")

    def write(start: int) -> None:
        for position in range(start, start + part, 1 << 10):
            file.write(start, position, content[position : position + (1 << 10)])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, reversed(range(0, len(content), part))))
    assert file.finish() == sha256(content)
    assert (tmp_path / "f").read_bytes() == content


def test_what_lies_there_from_before_is_hashed_from_the_disk(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"aaaa....cccc")
    file = IncomingFile(tmp_path / "f", {0: 4, 8: 12})
    file.write(4, 4, b"bbbb")
    assert file.finish() == sha256(b"aaaabbbbcccc")


def test_a_gap_is_not_hashed_over(tmp_path: Path) -> None:
    file = IncomingFile(tmp_path / "f")
    file.write(0, 0, b"aaaa")
    file.write(8, 8, b"cccc")
    assert (file.finish(), file.hashed_bytes) == (sha256(b"aaaa"), 4)
    assert (tmp_path / "f").read_bytes() == b"aaaa"


def test_nothing_remains_behind_what_was_hashed(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"a much longer file of before")
    file = IncomingFile(tmp_path / "f")
    file.write(0, 0, b"new")
    assert file.finish() == sha256(b"new")
    assert (tmp_path / "f").read_bytes() == b"new"


def test_start_again(tmp_path: Path) -> None:
    file = IncomingFile(tmp_path / "f")
    file.write(0, 0, b"a long beginning")
    file.start_again()
    file.write(0, 0, b"new")
    assert file.finish() == sha256(b"new")
    assert (tmp_path / "f").read_bytes() == b"new"


def test_a_file_that_became_shorter(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"aa")
    file = IncomingFile(tmp_path / "f", {0: 4})
    with pytest.raises(OSError, match="became shorter"):
        file.finish()
    file.close()


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"a token")
    (tmp_path / "f").symlink_to("elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        IncomingFile(tmp_path / "f").write(0, 0, b"x")
    assert (tmp_path / "elsewhere").read_bytes() == b"a token"


def test_in_one_piece(tmp_path: Path) -> None:
    file = IncomingFile(tmp_path / "a" / "f")
    assert file.write_whole(b"whole") == sha256(b"whole")
    assert file.write_whole(b"new") == sha256(b"new")
    assert (tmp_path / "a" / "f").read_bytes() == b"new"


def test_reading_back_ends_when_nobody_waits_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred gigabytes from before take minutes."""
    monkeypatch.setattr(incoming_file, "READ_BACK_BYTES", 1)
    (tmp_path / "f").write_bytes(b"x" * 1000)
    asked = [0]

    def checkpoint() -> None:
        asked[0] += 1
        if asked[0] == 10:
            raise Interrupted

    file = IncomingFile(tmp_path / "f", {0: 1000}, checkpoint)
    with pytest.raises(Interrupted):
        file.finish()
    file.close()
    assert file.hashed_bytes == 9
