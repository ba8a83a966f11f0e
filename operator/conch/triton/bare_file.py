"""A model that is one file without a Triton configuration: which file of a folder that is, and which backend runs it.

By the files' names, or by `model.format`; what is in the file is looked at when its configuration is derived
(author_config.py).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from conch.api.model import ModelFormat
from conch.triton.errors import InvalidModelError


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of file that Triton has a backend for."""

    backend: str
    names: str
    """A whole name, or the end of one after a `*`."""
    with_folders: bool = False
    """Whether folders beside the file belong to it: a program has packages, a graph's weights lie beside it."""

    def is_of(self, file: str) -> bool:
        """Whether a file of this name is of this kind."""
        return file.endswith(self.names[1:]) if self.names.startswith("*") else file == self.names


@dataclass(frozen=True, slots=True, kw_only=True)
class BareFile:
    """The file that is the model."""

    name: str
    kind: Kind


KINDS: Final = {
    ModelFormat.ONNX: Kind(backend="onnxruntime", names="*.onnx"),
    ModelFormat.TORCHSCRIPT: Kind(backend="pytorch", names="*.pt"),
    ModelFormat.TENSORRT: Kind(backend="tensorrt", names="*.plan"),
    ModelFormat.PYTHON: Kind(backend="python", names="model.py", with_folders=True),
}


def find_bare_file(files: Sequence[str], format: ModelFormat, *, alone: bool) -> BareFile | None:
    """The model among the files of a folder; None where there is none. Raises InvalidModelError for several.

    `alone`: that there are no folders, so that a single file is the model whatever its name, if `format` says its kind.
    """
    formats: Collection[ModelFormat] = KINDS if format is ModelFormat.AUTO else KINDS.keys() & {format}
    found = {file: kind for file in files for kind in formats if KINDS[kind].is_of(file)}
    if len(found) > 1:
        told = ", ".join(found)
        kinds = sorted(set(found.values()))
        if len(kinds) > 1:
            raise InvalidModelError(
                f"each of the files {told} could be the model; set spec.model.format to the one that is meant "
                f"({' or '.join(kinds)})"
            )
        raise InvalidModelError(f"the source holds the models {told}; put one into each source")
    for file, kind in found.items():
        return BareFile(name=file, kind=KINDS[kind])
    if format in KINDS and alone and len(files) == 1:
        return BareFile(name=files[0], kind=KINDS[format])
    return None


def wanted_words(format: ModelFormat) -> str:
    """What a source of this format may hold, for a message."""
    directory = "a Triton model directory (config.pbtxt and version folders)"
    match format:
        case ModelFormat.REPOSITORY:
            return f"{directory} or a repository"
        case ModelFormat.AUTO:
            return f"{directory}, a repository or one of {', '.join(kind.names for kind in KINDS.values())}"
        case _:
            names = KINDS[format].names
            return f"one {names.removeprefix('*')} file" if names.startswith("*") else f"the file {names}"
