"""Paths in a model's configuration that lead to files of its own.

Backends take paths from their working folder, which is Triton's, not the model's; so what an author writes as a path
within the model is made absolute, as Triton sees it.
"""

import posixpath
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

MODEL_DIRECTORY: Final = "$$TRITON_MODEL_DIRECTORY"
"""Triton's own word for the model's folder, which it knows only in a Python model's EXECUTION_ENV_PATH."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where Triton sees a model, and what is there."""

    folder: str
    """Absolute."""
    version: int
    files: Collection[str]
    """Below the folder."""

    def own(self, path: str) -> str | None:
        """The absolute path of a file or folder of the model; None for one that is elsewhere or not there.

        A path is taken from the version's folder, from the model's where it begins with MODEL_DIRECTORY, or as it is
        where it is absolute.
        """
        meant = self.folder + path.removeprefix(MODEL_DIRECTORY) if path.startswith(MODEL_DIRECTORY) else path
        whole = posixpath.normpath(posixpath.join(self.folder, str(self.version), meant))
        inner = posixpath.relpath(whole, self.folder)
        if inner == "." or inner in self.files or any(file.startswith(f"{inner}/") for file in self.files):
            return whole
        return None

    def below(self, whole: str) -> set[str]:
        """The files below an own folder, from there."""
        inner = posixpath.relpath(whole, self.folder)
        start = "" if inner == "." else f"{inner}/"
        return {file.removeprefix(start) for file in self.files if file.startswith(start)}


def settle_parameters(config: Any, place: Place) -> None:
    """Write the model's folder into the parameters that name it by MODEL_DIRECTORY."""
    for parameter in config.parameters.values():
        if parameter.string_value.startswith(MODEL_DIRECTORY):
            parameter.string_value = place.folder + parameter.string_value.removeprefix(MODEL_DIRECTORY)
