"""Archives from strangers: what is good comes out whole, every known attack is refused and leaves nothing outside."""

import contextlib
import gzip
import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conch.api.reasons import Reason
from conch.store.archive import ArchiveLimits, extract, is_archive
from conch.store.errors import StoreError

LIMITS = ArchiveLimits(files=50, bytes=4 << 20, ratio_from_bytes=1 << 20)


def entry(
    name: str, content: bytes = b"x", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, link, len(content)
    return member, content


def packed(
    path: Path, *entries: tuple[tarfile.TarInfo, bytes], mode: str = "w:gz", format: int = tarfile.PAX_FORMAT
) -> Path:
    with tarfile.open(path, mode, format=format) as tar:  # type: ignore[call-overload]
        for member, content in entries:
            tar.addfile(member, io.BytesIO(content))
    return path


def refused(archive: Path, reason: Reason = Reason.INVALID_MODEL, limits: ArchiveLimits = LIMITS) -> str:
    folder = archive.parent / "inner" / "out"
    folder.parent.mkdir(exist_ok=True)
    with pytest.raises(StoreError) as caught:
        extract(archive, folder, limits=limits)
    assert caught.value.reason is reason, caught.value.message
    assert [p.name for p in archive.parent.iterdir() if p != archive] == ["inner"]
    assert not [p for p in folder.rglob("*") if p.is_symlink()]
    return caught.value.message


@pytest.mark.parametrize("mode", ["w:gz", "w"])
@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_plain_files_and_folders_come_out(tmp_path: Path, mode: str, format: int) -> None:
    contents = {"m/1/model.onnx": b"w" * 3000, "./m/config.pbtxt": b"c" * 512, "m/" + "n" * 90: b""}
    entries = [entry("m", b"", tarfile.DIRTYPE), entry("m/empty", b"", tarfile.DIRTYPE)]
    archive = packed(tmp_path / "a", *entries, *(entry(n, c) for n, c in contents.items()), mode=mode, format=format)
    assert is_archive(archive)
    extract(archive, tmp_path / "out", limits=LIMITS)
    for name, content in contents.items():
        assert (tmp_path / "out" / name).read_bytes() == content
    assert (tmp_path / "out" / "m" / "empty").is_dir()


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", "a/../b", "a\\b", "a\nb", "d/" * 40 + "x", "n" * 1100])
def test_names_that_leave_or_cannot_be_expressed(tmp_path: Path, name: str) -> None:
    refused(packed(tmp_path / "a.tgz", entry(name)))


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.FIFOTYPE,
        tarfile.GNUTYPE_SPARSE,
        b"Z",
    ],
)
def test_everything_but_files_and_folders(tmp_path: Path, kind: bytes) -> None:
    refused(packed(tmp_path / "a.tgz", entry("x", b"", kind, "/etc/passwd")))


def test_a_file_through_a_link_in_the_same_archive(tmp_path: Path) -> None:
    refused(packed(tmp_path / "a.tgz", entry("d", b"", tarfile.SYMTYPE, "/tmp"), entry("d/x")))


@pytest.mark.parametrize("second", ["x", "./x", "x/y"])
def test_names_twice_or_both_file_and_folder(tmp_path: Path, second: str) -> None:
    refused(packed(tmp_path / "a.tgz", entry("x"), entry(second)))


def test_a_folder_in_place_of_a_file(tmp_path: Path) -> None:
    refused(packed(tmp_path / "a.tgz", entry("x"), entry("x", b"", tarfile.DIRTYPE)))


def test_more_bytes_than_allowed(tmp_path: Path) -> None:
    refused(packed(tmp_path / "a.tgz", entry("x", bytes(5 << 20))), Reason.SOURCE_TOO_LARGE)


def test_too_many_files(tmp_path: Path) -> None:
    refused(packed(tmp_path / "a.tgz", *(entry(f"f{i}") for i in range(51))), Reason.SOURCE_TOO_LARGE)


def test_a_ratio_no_model_has(tmp_path: Path) -> None:
    message = refused(packed(tmp_path / "a.tgz", entry("x", bytes(3 << 20))), Reason.SOURCE_TOO_LARGE)
    assert "unpacks to more than" in message


def test_a_header_made_to_fill_the_memory(tmp_path: Path) -> None:
    member = tarfile.TarInfo("x")
    member.pax_headers = {"comment": "c" * (2 << 20)}
    assert "oversized header" in refused(packed(tmp_path / "a.tgz", (member, b"")))


@pytest.mark.parametrize("keep", [10, 200, 900])
def test_damaged_archives(tmp_path: Path, keep: int) -> None:
    archive = packed(tmp_path / "a.tgz", entry("x", bytes(range(256)) * 64))
    whole = archive.read_bytes()
    archive.write_bytes(whole[: min(keep, len(whole) - 20)])
    assert "pack and upload it again" in refused(archive)


def test_a_plain_tar_that_ends_early(tmp_path: Path) -> None:
    archive = packed(tmp_path / "a.tar", entry("x", b"y" * 5000), mode="w")
    archive.write_bytes(archive.read_bytes()[:2000])
    refused(archive)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=2000), zipped=st.booleans())
def test_garbage_is_refused_or_harmless(tmp_path_factory: pytest.TempPathFactory, content: bytes, zipped: bool) -> None:
    folder = tmp_path_factory.mktemp("garbage")
    archive = folder / "a"
    archive.write_bytes(gzip.compress(content) if zipped else content)
    with contextlib.suppress(StoreError):
        extract(archive, folder / "out", limits=LIMITS)
    assert {p.name for p in folder.iterdir()} <= {"a", "out"}
