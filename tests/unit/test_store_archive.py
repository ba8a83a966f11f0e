"""Archives from strangers: what is good comes out whole, every known attack is refused and leaves nothing outside."""

import contextlib
import gzip
import io
import random
import resource
import stat
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import zstandard
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
    path: Path,
    *entries: tuple[tarfile.TarInfo, bytes],
    mode: Literal["w", "w:gz"] = "w:gz",
    format: int = tarfile.PAX_FORMAT,
) -> Path:
    with tarfile.open(path, mode, format=format) as tar:
        for member, content in entries:
            tar.addfile(member, io.BytesIO(content))
    return path


def refused(archive: Path, reason: Reason = Reason.INVALID_MODEL, limits: ArchiveLimits = LIMITS) -> str:
    folder = archive.parent / "inner" / "out"
    folder.parent.mkdir(exist_ok=True)
    with pytest.raises(StoreError) as caught:
        extract(archive, folder, name=archive.name, limits=limits)
    assert caught.value.reason is reason, caught.value.message
    assert [p.name for p in archive.parent.iterdir() if p != archive] == ["inner"]
    assert not [p for p in folder.rglob("*") if p.is_symlink()]
    return caught.value.message


@pytest.mark.parametrize("mode", ["w:gz", "w"])
@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_plain_files_and_folders_come_out(tmp_path: Path, mode: Literal["w", "w:gz"], format: int) -> None:
    contents = {"m/1/model.onnx": b"w" * 3000, "./m/config.pbtxt": b"c" * 512, "m/" + "n" * 90: b""}
    entries = [entry("m", b"", tarfile.DIRTYPE), entry("m/empty", b"", tarfile.DIRTYPE)]
    archive = packed(tmp_path / "a", *entries, *(entry(n, c) for n, c in contents.items()), mode=mode, format=format)
    assert is_archive(archive, "a")
    extract(archive, tmp_path / "out", name="a", limits=LIMITS)
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


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "a": bytes,
    "a.gz": gzip.compress,
    "a.zst": zstandard.compress,
    "a.zip": lambda content: b"PK\x03\x04" + content,
}


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=2000), packing=st.sampled_from(sorted(PACKERS)))
def test_garbage_is_refused_or_harmless(tmp_path_factory: pytest.TempPathFactory, content: bytes, packing: str) -> None:
    folder = tmp_path_factory.mktemp("garbage")
    archive = folder / packing
    archive.write_bytes(PACKERS[packing](content))
    with contextlib.suppress(StoreError):
        extract(archive, folder / "out", name=archive.name, limits=LIMITS)
    assert {p.name for p in folder.iterdir()} <= {packing, "out"}


def zst(path: Path, content: bytes, **compressor: Any) -> Path:
    path.write_bytes(zstandard.ZstdCompressor(**compressor).compress(content))
    return path


def test_a_zstd_archive_of_two_frames_comes_out_whole(tmp_path: Path) -> None:
    tar = packed(tmp_path / "a.tar", entry("m/x", b"w" * 300_000), mode="w").read_bytes()
    archive = tmp_path / "a.tar.zst"
    archive.write_bytes(zstandard.compress(tar[:100_000]) + zstandard.compress(tar[100_000:]))
    assert is_archive(archive, "whatever")
    extract(archive, tmp_path / "out", name="a.tar.zst", limits=LIMITS)
    assert (tmp_path / "out" / "m" / "x").read_bytes() == b"w" * 300_000


def test_a_zstd_frame_that_wants_the_memory_for_itself(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27, enable_ldm=True)
    tar = packed(tmp_path / "a.tar", entry("x", bytes(1000)), mode="w")
    archive = tmp_path / "b" / "a.zst"
    archive.parent.mkdir()
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    archive.write_bytes(compressor.compress(tar.read_bytes()) + compressor.flush())
    assert "memory" in refused(archive)


def test_a_zstd_bomb(tmp_path: Path) -> None:
    tar = packed(tmp_path / "a.tar", entry("x", bytes(3 << 20)), mode="w").read_bytes()
    (tmp_path / "b").mkdir()
    refused(zst(tmp_path / "b" / "a.zst", tar), Reason.SOURCE_TOO_LARGE)


@pytest.mark.parametrize("packing", ["a.tar", "a.tar.zst"])
def test_an_archive_that_was_cut_off_between_two_files(tmp_path: Path, packing: str) -> None:
    """Not even zstd's own reader notices: half a model must not pass for a whole one."""
    whole = packed(tmp_path / "whole", entry("a", b"1" * 512), entry("b", b"2" * 512), mode="w").read_bytes()
    (tmp_path / "b").mkdir()
    archive = tmp_path / "b" / packing
    archive.write_bytes(zstandard.compress(whole[:1024]) if packing.endswith("zst") else whole[:1024])
    assert "no end mark" in refused(archive)


@pytest.mark.parametrize("kept", [1024 + 100, 1024 + 512 + 100])
def test_an_archive_that_was_cut_off_inside_a_header(tmp_path: Path, kept: int) -> None:
    whole = packed(tmp_path / "whole", entry("a", b"1" * 512), entry("b", b"2" * 512), mode="w").read_bytes()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "a.tar").write_bytes(whole[:kept])
    refused(tmp_path / "b" / "a.tar")


def test_an_archive_with_a_damaged_header_in_the_middle(tmp_path: Path) -> None:
    whole = bytearray(packed(tmp_path / "whole", entry("a"), entry("b"), mode="w").read_bytes())
    whole[1024] ^= 1
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "a.tar").write_bytes(whole)
    assert "no end mark" in refused(tmp_path / "b" / "a.tar")


def test_a_checksum_behind_the_end_mark_counts(tmp_path: Path) -> None:
    content = bytearray(packed(tmp_path / "a.tgz", entry("a", b"1" * 5000)).read_bytes())
    content[-6] ^= 1
    (tmp_path / "a.tgz").write_bytes(content)
    assert "pack and upload it again" in refused(tmp_path / "a.tgz")


def test_an_entry_of_negative_size(tmp_path: Path) -> None:
    """It would be read to the stream's end in one piece."""
    whole = bytearray(packed(tmp_path / "whole", entry("a", b"1" * 512), mode="w").read_bytes())
    whole[124:136] = b"\xff" * 12
    whole[148:156] = b" " * 8
    whole[148:156] = b"%06o\0 " % sum(whole[:512])
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "a.tar").write_bytes(whole)
    assert "negative size" in refused(tmp_path / "b" / "a.tar")


def test_a_disk_that_takes_half_of_the_last_write(tmp_path: Path) -> None:
    """A write may be short without an error: what is cut off must not pass for the model."""
    limit = (1 << 20) + 100_000
    archive = packed(tmp_path / "a.tgz", entry("x", bytes(limit + 50_000)))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        refused(archive, Reason.SOURCE_TOO_LARGE, ArchiveLimits())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_chain_of_headers_without_end(tmp_path: Path) -> None:
    header = tarfile.TarInfo("x").create_pax_global_header({"comment": "c"})
    (tmp_path / "a.tar").write_bytes(header * 900)
    refused(tmp_path / "a.tar")


def test_a_file_of_pzstd_begins_with_a_frame_without_data(tmp_path: Path) -> None:
    tar = packed(tmp_path / "whole", entry("m/x", b"w" * 5000), mode="w").read_bytes()
    archive = tmp_path / "a.tar.zst"
    archive.write_bytes(b"\x50\x2a\x4d\x18\x04\0\0\0size" + zstandard.compress(tar))
    assert is_archive(archive, "a")
    extract(archive, tmp_path / "out", name="a", limits=LIMITS)
    assert (tmp_path / "out" / "m" / "x").read_bytes() == b"w" * 5000


def test_a_tar_that_calls_itself_a_zip(tmp_path: Path) -> None:
    archive = packed(tmp_path / "a.zip", entry("m/x", b"w"))
    extract(archive, tmp_path / "out", name="a.zip", limits=LIMITS)
    assert (tmp_path / "out" / "m" / "x").read_bytes() == b"w"


def test_a_zstd_archive_that_ends_early(tmp_path: Path) -> None:
    tar = packed(tmp_path / "whole", entry("a", random.Random(1).randbytes(100_000)), mode="w").read_bytes()
    (tmp_path / "b").mkdir()
    archive = zst(tmp_path / "b" / "a.zst", tar)
    archive.write_bytes(archive.read_bytes()[:50_000])
    refused(archive)


def zipped(path: Path, *entries: tuple[zipfile.ZipInfo | str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", method) as archive:
        warnings.simplefilter("ignore")  # it warns of names that it writes twice
        for name, content in entries:
            archive.writestr(name, content)
    return path


def zip_entry(name: str, mode: int = 0) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.external_attr = mode << 16
    return member


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_comes_out(tmp_path: Path, method: int) -> None:
    archive = zipped(tmp_path / "a.ZIP", ("m/1/x", b"w" * 3000), ("m/empty/", b""), ("./m/ü", b""), method=method)
    assert is_archive(archive, archive.name)
    extract(archive, tmp_path / "out", name=archive.name, limits=LIMITS)
    assert (tmp_path / "out/m/1/x").read_bytes() == b"w" * 3000
    assert (tmp_path / "out/m/ü").read_bytes() == b""
    assert (tmp_path / "out/m/empty").is_dir()


def test_a_model_that_happens_to_be_a_zip_is_no_archive(tmp_path: Path) -> None:
    model = zipped(tmp_path / "model.pt", ("model/data.pkl", b"x"))
    assert not is_archive(model, "model.pt")


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../b", "a\\b", "a\nb", "d/" * 40 + "x", "a\0b"])
def test_names_in_a_zip_that_leave_or_cannot_be_expressed(tmp_path: Path, name: str) -> None:
    member = zip_entry("x" * len(name))
    archive = zipped(tmp_path / "a.zip", (member, b"x"))
    archive.write_bytes(archive.read_bytes().replace(b"x" * len(name), name.encode()))
    refused(archive)


@pytest.mark.parametrize("mode", [stat.S_IFLNK | 0o777, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_everything_but_files_and_folders_in_a_zip(tmp_path: Path, mode: int) -> None:
    assert "link or device" in refused(zipped(tmp_path / "a.zip", (zip_entry("x", mode), b"/etc/passwd")))


@pytest.mark.parametrize("second", ["x", "./x", "x/y", "x/"])
def test_names_twice_or_both_file_and_folder_in_a_zip(tmp_path: Path, second: str) -> None:
    refused(zipped(tmp_path / "a.zip", ("x", b"1"), (second, b"")))


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_zip_that_chooses_how_much_memory_it_takes(tmp_path: Path, method: int) -> None:
    assert "deflate" in refused(zipped(tmp_path / "a.zip", ("x", b"1"), method=method))


def test_a_zip_entry_without_a_name(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", ("x", b"1"))
    content = archive.read_bytes()
    for magic, offset in ((b"PK\x03\x04", 26), (b"PK\x01\x02", 28)):
        at = content.index(magic)
        name = 30 if magic == b"PK\x03\x04" else 46
        content = content[: at + offset] + b"\0\0" + content[at + offset + 2 : at + name] + content[at + name + 1 :]
    archive.write_bytes(content)
    refused(archive)


def test_a_zip_with_a_password(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", ("x", b"1"))
    content = bytearray(archive.read_bytes())
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(magic) + offset] |= 1
    archive.write_bytes(content)
    assert "password" in refused(archive)


def test_a_zip_bomb(tmp_path: Path) -> None:
    refused(zipped(tmp_path / "a.zip", ("x", bytes(3 << 20))), Reason.SOURCE_TOO_LARGE)


def test_a_zip_of_too_many_files(tmp_path: Path) -> None:
    refused(zipped(tmp_path / "a.zip", *((f"f{i}", b"") for i in range(51))), Reason.SOURCE_TOO_LARGE)


def test_a_zip_whose_list_of_contents_is_made_to_fill_the_memory(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", *((f"{i}" + "n" * 1000, b"") for i in range(600)))
    assert "list of contents" in refused(archive)


@pytest.mark.parametrize("cut", [1, 30, 200])
def test_a_damaged_zip(tmp_path: Path, cut: int) -> None:
    archive = zipped(tmp_path / "a.zip", ("x", random.Random(1).randbytes(1000)))
    archive.write_bytes(archive.read_bytes()[:-cut])
    assert "pack and upload it again" in refused(archive)


def test_a_zip_whose_content_is_not_what_its_checksum_says(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", ("x", b"good" * 100), method=zipfile.ZIP_STORED)
    archive.write_bytes(archive.read_bytes().replace(b"goodgood", b"goodevil", 1))
    assert "pack and upload it again" in refused(archive)
