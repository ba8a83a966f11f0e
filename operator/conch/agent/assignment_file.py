"""The assignment as the kubelet mounts it: a file behind a symbolic link that is swapped atomically."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from conch.api.assignment import Assignment

ASSIGNMENT_BYTES_MOST = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadAssignment:
    """What the file says: an assignment, or a problem with it, or neither when there is no file yet."""

    assignment: Assignment | None = None
    problem: str | None = None


class AssignmentFile:
    """Reads the assignment; cheap to ask each second, since an unchanged file costs one stat."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, ...] | None = None
        self._read = ReadAssignment()

    def read(self) -> ReadAssignment:
        """The file's present content; never raises."""
        try:
            stat = self._path.stat()
            stamp = (stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if stamp != self._stamp:
                self._read = _parse(self._path)
                self._stamp = stamp
        except FileNotFoundError:
            self._stamp, self._read = None, ReadAssignment()
        except OSError as error:
            self._stamp, self._read = None, ReadAssignment(problem=f"{self._path} cannot be read: {error.strerror}")
        return self._read


def _parse(path: Path) -> ReadAssignment:
    with path.open("rb") as stream:
        content = stream.read(ASSIGNMENT_BYTES_MOST + 1)
    try:
        return ReadAssignment(assignment=Assignment.model_validate_json(content))
    except ValidationError as error:
        # Without the input: it may hold a signed URL.
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}"
            for e in error.errors(include_input=False, include_url=False)
        )
        return ReadAssignment(
            problem=f"the assignment is not valid ({problems}); operator and agent must be of compatible versions"
        )
