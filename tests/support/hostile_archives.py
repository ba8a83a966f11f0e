"""Archives that nobody should unpack."""

import gzip
import io
import tarfile

from tests.support.archives import tar_gz


def with_a_way_out(model: bytes) -> bytes:
    """An entry that points out of the archive."""
    return tar_gz({"digits.onnx": model, "../../escaped": b"x"})


def with_a_link() -> bytes:
    """A symbolic link to what every process may read of itself."""
    return _special(tarfile.SYMTYPE, "/proc/self/environ")


def with_a_device() -> bytes:
    """A device node."""
    return _special(tarfile.CHRTYPE, "")


def bomb() -> bytes:
    """A few hundred kB that unpack to 600 MB of nothing."""
    size, packed = 600 << 20, io.BytesIO()
    with gzip.open(packed, "wb") as out:
        member = tarfile.TarInfo("digits.onnx")
        member.size = size
        out.write(member.tobuf())
        zeros = bytes(1 << 20)
        for _ in range(size // len(zeros)):
            out.write(zeros)
        out.write(bytes(2 * tarfile.BLOCKSIZE))
    return packed.getvalue()


def _special(kind: bytes, target: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo("digits.onnx")
        member.type, member.linkname = kind, target
        archive.addfile(member)
    return buffer.getvalue()
